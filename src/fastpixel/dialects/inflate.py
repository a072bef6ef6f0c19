"""gzip bodies, with the limit on their size enforced while they inflate.

Source: RFC 1952; a body may be several members, one after the other. Memory is bounded by the limit, time by it and by
the number of members, each of which costs a copy of what follows it. Zeros after the last member, which some archives
have, are garbage here.
"""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = 31  # window bits, and that header and trailer are gzip's
_MEMBERS: Final = 16  # no client sends more than one


def gunzip(data: bytes, limit: int) -> tuple[str | None, bytes]:
    """(reason, what it holds) of a gzip body of at most `limit` bytes. Reasons: bad_encoding, too_large."""
    pieces: list[bytes] = []
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(_GZIP)
        try:
            pieces.append(stream.decompress(data, limit + 1))
        except zlib.error:
            return "bad_encoding", b""
        limit -= len(pieces[-1])
        if limit < 0:
            return "too_large", b""
        if not stream.eof:
            return "bad_encoding", b""
        data = stream.unused_data
        if not data:
            return None, b"".join(pieces)
    return "bad_encoding", b""
