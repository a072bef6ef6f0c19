"""The plain twin of the core's decoding, as a Python team would write it: parse_qsl, nested dicts, msgpack."""

from typing import Any
from urllib.parse import parse_qsl

import msgpack


def nested(query: bytes) -> dict[str, Any]:
    """The plain way to a tree: parse_qsl, then a dict a level; the first of a repeated name wins."""
    root: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("ascii"), keep_blank_values=True):
        *parents, last = name.split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node.setdefault(last, value)
    return root


def packed(query: bytes) -> bytes:
    return msgpack.packb(nested(query))
