"""A client of bytes: writes requests exactly as they are given, reads answers by their framing.

It knows HTTP just enough to find where an answer ends, so that nothing a real client would mend goes unseen.
"""

import socket
import ssl
from typing import NamedTuple

GIF_BYTES = 43


class Answer(NamedTuple):
    """Header names in lower case."""

    status: int
    headers: dict
    body: bytes

    @property
    def reason(self):
        """Why nothing was stored; empty: it was."""
        return self.headers.get("x-fastpixel", "").rpartition("reason=")[2]

    @property
    def is_gif(self):
        return self.body[:6] == b"GIF89a" and len(self.body) == GIF_BYTES

    @property
    def is_stored(self):
        """The promise: a GIF with 200 and without the mark."""
        return self.status == 200 and self.is_gif and "x-fastpixel" not in self.headers


def request(target, *headers, method="GET", body=b"", version="1.1"):
    """The bytes of one request."""
    lines = [f"{method} {target} HTTP/{version}", "Host: 127.0.0.1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse(head):
    """(status, headers) of an answer's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


class Client:
    """One connection."""

    def __init__(self, address, timeout=20.0, tls=None):
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.left = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def ask(self, target, *headers, **more):
        """One request and its answer."""
        method = more.get("method", "GET")
        self.send(request(target, *headers, **more))
        return self.answer(has_body=method != "HEAD")

    def answer(self, has_body=True):
        """The next answer. ConnectionError: the connection ended first."""
        while b"\r\n\r\n" not in self.left:
            self._more()
        head, _, self.left = self.left.partition(b"\r\n\r\n")
        status, headers = parse(head)
        length = int(headers.get("content-length", 0)) if has_body else 0
        while len(self.left) < length:
            self._more()
        body, self.left = self.left[:length], self.left[length:]
        return Answer(status, headers, body)

    def is_closed(self):
        """Waits for the end of the stream; False: something else came."""
        try:
            return not self.left and self.sock.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True

    def reset(self):
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def _more(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError(f"the connection ended; left: {self.left!r}")
        self.left += data
