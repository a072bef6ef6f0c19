"""Idle connections: each makes one request, reads its answer, and then only stays."""

import resource
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from bench.errors import VoidRun

SPARE = 512  # descriptors of everything else: listeners, logs, the 64 active connections


def room(wanted: int) -> int:
    """How many of `wanted` connections a process here may hold. Raises the soft limit, which servers inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(need, hard)), hard))
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)


@contextmanager
def held(port: int, requests: Iterable[bytes]) -> Iterator[None]:
    """One connection for each request, closed at the end. VoidRun: one was refused, or ended before."""
    peers: list[socket.socket] = []
    try:
        for request in requests:
            peers.append(_open(port, request, len(peers) + 1))
        yield
        if not all(map(_alive, peers)):
            raise VoidRun("the server closed idle connections")
    finally:
        for peer in peers:
            peer.close()


def _open(port: int, request: bytes, number: int) -> socket.socket:
    try:
        peer = socket.create_connection(("127.0.0.1", port), timeout=10)
        peer.sendall(request)
        answered = _answered(peer)
    except OSError as error:
        raise VoidRun(f"idle connection {number}: {error}") from error
    if not answered:
        peer.close()
        raise VoidRun(f"idle connection {number} got no GIF")
    return peer


def _answered(peer: socket.socket) -> bool:
    data = b""
    while not data.endswith(b"\x01\x00;") and (more := peer.recv(2048)):  # the last bytes of any 1x1 GIF
        data += more
    return data.startswith(b"HTTP/1.1 200") and b"dropped" not in data and data.endswith(b";")


def _alive(peer: socket.socket) -> bool:
    """Nothing has come since the answer, neither bytes nor an end."""
    peer.setblocking(False)
    try:
        peer.recv(1)
    except BlockingIOError:
        return True
    return False
