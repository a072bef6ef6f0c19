"""Listening sockets, owned by the supervisor for the whole life of the service.

An address gets one SO_REUSEPORT socket a worker, so that the kernel spreads connections and a restarted worker finds
its backlog as it was. SO_REUSEPORT would also let a second service bind the same address in silence; so the address is
bound without it first, which fails if anybody listens there. A unix socket is one socket that all workers accept from.

The kernel resets connections that wait in a listener's backlog when it is closed. So a listener first refuses new ones
(`refuse_new`), then its workers accept what waits, and only then it is closed.
"""

from __future__ import annotations

import errno
import resource
import socket
import ssl
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path

from fastpixel.errors import FastpixelError
from fastpixel.units import Bind

BACKLOG = 4096

# A classic BPF program: load byte 13 of the TCP header; SYN set: drop the packet; else keep it (linux/filter.h).
NO_SYN = struct.pack("HBBI" * 4, 0x30, 0, 0, 13, 0x45, 0, 1, 0x02, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF)
SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module has no name for it


class ListenError(FastpixelError):
    """An address cannot be bound."""


def listen(bind: Bind, count: int, flag: str = "--bind") -> list[socket.socket]:
    """`count` listening sockets of the address; all with the same port, also when it was 0. `flag` sets the address."""
    if bind.is_unix:
        return [_unix(bind.path)] * count
    try:
        return _tcp(bind, count)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {bind}: {error.strerror or error}; is another service running there? {flag} changes it"
        ) from None


def tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The server's side of TLS; None without a certificate. FastpixelError: the files cannot be used."""
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or error
        raise ListenError(
            f"tls_cert {cert} and tls_key {key} cannot be used ({reason}): give a PEM chain and its key"
        ) from None
    return context


def refuse_new(groups: Iterable[Iterable[socket.socket]]) -> None:
    """No connection is added to the backlogs any more; those that wait there can still be accepted."""
    for sock in {sock for group in groups for sock in group}:
        if sock.family == socket.AF_UNIX:
            Path(sock.getsockname()).unlink(missing_ok=True)
        else:
            program = array("B", NO_SYN)
            address = program.buffer_info()[0]
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_SYN) // 8, address))


def raise_descriptor_limit() -> None:
    """Takes all descriptors that this process may have: shells give 1,024, fewer than max_connections needs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def url(sock: socket.socket, scheme: str = "http") -> str:
    """What a person would type to reach it."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _tcp(bind: Bind, count: int) -> list[socket.socket]:
    family, kind, proto, _, address = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)  # with SO_REUSEADDR the bind alone would not fail beside a listener of ours
        port = probe.getsockname()[1]
    return [_reuse(family, (address[0], port, *address[2:])) for _ in range(count)]


def _reuse(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on unix:{path}: {error.strerror or error}") from None
    return sock


def _clear(path: str) -> None:
    """Removes the socket that a service left when it was killed; one that answers is in use."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) == 0:
            raise OSError(errno.EADDRINUSE, "another service is listening there")
    Path(path).unlink(missing_ok=True)
