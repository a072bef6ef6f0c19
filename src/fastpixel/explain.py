"""`fastpixel explain`: what a request would be answered and stored as, without a server, a socket or a disk.

The request goes through the same Connection and Plan as live traffic; only the batch is shown instead of stored.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastpixel import dialects
from fastpixel._core import Intake, json_lines
from fastpixel.config import Config
from fastpixel.errors import FastpixelError

_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//")


@dataclass(frozen=True)
class Explanation:
    """`answer`: the bytes a client would get; `records` and `rejects`: NDJSON of what would be stored."""

    answer: bytes
    records: str
    rejects: str

    @property
    def status(self) -> str:
        return self.answer.partition(b"\r\n")[0].decode("latin-1").partition(" ")[2]

    @property
    def headers(self) -> list[str]:
        return self.answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]

    @property
    def body(self) -> bytes:
        return self.answer.partition(b"\r\n\r\n")[2]

    @property
    def reason(self) -> str:
        """Why nothing would be stored; empty: it would be, or no route answers it."""
        marks = [line.partition("reason=")[2] for line in self.headers if line.startswith("X-Fastpixel:")]
        return marks[0] if marks else ""


def explain(config: Config, url: str, *, method: str, headers: Sequence[str], body: bytes, ip: str) -> Explanation:
    """FastpixelError: the URL, the method, a header or the address is none, or the request is not whole."""
    intake = Intake(
        dialects.plan(config),
        max_request_line=config.max_request_line,
        max_header_bytes=config.max_header_bytes,
        max_body_bytes=config.max_body_bytes,
        trusted_proxies=[str(network) for network in config.trusted_proxies],
    )
    connection = intake.connection(_address(ip))
    connection.feed(_request(url, method, headers, body))
    batch = intake.take()
    if batch is not None:
        intake.done(batch, True)
    answer = connection.output()
    if not answer:
        raise FastpixelError("the request is not whole, a server would wait for more: check the headers of its body")
    if batch is None:
        return Explanation(answer, "", "")
    return Explanation(answer, json_lines(batch.events).decode(), json_lines(batch.rejects).decode())


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise FastpixelError(f"{text!r} is no address: give --ip 203.0.113.5") from None


def _request(url: str, method: str, headers: Sequence[str], body: bytes) -> bytes:
    try:
        parts = urlsplit(
            url if _ABSOLUTE.match(url) else f"//127.0.0.1:8080{url if url.startswith('/') else '/' + url}"
        )
    except ValueError as error:
        raise FastpixelError(f"{url!r} is no URL ({error}): give https://HOST/PATH?QUERY, or /PATH?QUERY") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target.replace(' ', '%20')} HTTP/1.1"]
    named = {line.partition(":")[0].strip().lower() for line in headers}
    if "host" not in named:
        lines.append(f"Host: {parts.netloc}")
    if body and not named & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    for line in headers:
        if ":" not in line or "\n" in line or "\r" in line:
            raise FastpixelError(f"{line!r} is no header: give --header 'Name: value'")
        lines.append(line)
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
