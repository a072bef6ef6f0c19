"""The text forms of values: sizes, durations, rates, addresses, networks, origins.

What lives here: for each kind of value one reader (text -> stored value, ValueError says what is wrong and how to write
it) and, where the stored value has lost its text, one writer that the reader takes back unchanged. What it must not
know: which setting a value belongs to, files, the environment. Used by config.py and by commands with such options.

Stored forms: sizes are int bytes, durations float seconds, rates float events a second (0.0: no limit).
Not supported: sums such as "1h30m", wildcard origins, address ranges that are not CIDR blocks.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from typing import TypeAlias
from urllib.parse import urlsplit

import msgspec

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

SIZE_UNITS = {
    "": 1, "b": 1,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
SIZE_NAMES = {1 << 40: "TiB", 1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}
DURATION_UNITS = {
    "w": Decimal(604800), "d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60),
    "s": Decimal(1), "ms": Decimal("0.001"),
}  # fmt: skip
RATE_UNITS = {"s": 1, "m": 60, "h": 3600}
DEFAULT_PORTS = {"http": 80, "https": 443}

_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
_SIZE = re.compile(_NUMBER + r" ?([a-z]*)", re.ASCII)
_DURATION = re.compile(_NUMBER + r" ?([a-z]+)", re.ASCII)
_RATE = re.compile(_NUMBER + r" ?/ ?([a-z]+)", re.ASCII)
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII | re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
UNIX_PATH_BYTES = 107  # sun_path of unix(7), less its final NUL


class Bind(msgspec.Struct, frozen=True):
    """Where a listener waits: a TCP host and port (0: any free one), or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_number(value: object) -> bool:
    """A TOML integer or float; Python counts bool among the integers, a configuration does not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def printable(text: str) -> str:
    """Text for a terminal and one line: control characters and lone surrogates become escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(value: object) -> str:
    """A value as an error message quotes it: text in double quotes, true and false as TOML has them, 80 characters."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = printable(text.lower() if isinstance(value, bool) else text)
    return text if len(text) <= 80 else text[:77] + "..."


def size(value: object) -> int:
    """`"256MiB"`, `"1.5GiB"`, `"10MB"` or a plain integer -> bytes."""
    hint = f'{shown(value)} is not a size; write bytes as an integer or like "256MiB"'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    unit = SIZE_UNITS.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(hint)
    total = Decimal(match[1]) * unit
    if total != int(total):
        raise ValueError(f"{shown(value)} is not a whole number of bytes")
    return int(total)


def size_text(count: int) -> str | int:
    """The largest binary unit that divides `count`, else the number itself: 4096000 -> "4000KiB"."""
    for unit, name in SIZE_NAMES.items():
        if count and count % unit == 0:
            return f"{count // unit}{name}"
    return count


def duration(value: object) -> float:
    """`"500ms"`, `"10s"`, `"1.5h"`, `"7d"`, or a number of seconds -> seconds."""
    hint = f'{shown(value)} is not a duration; write it like "500ms", "10s", "5m", "2h" or "7d"'
    if is_number(value):
        value = f"{Decimal(str(value)):f}s"
    match = _DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    unit = DURATION_UNITS.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(hint)
    return float(Decimal(match[1]) * unit)


def duration_text(seconds: float) -> str:
    """The largest unit that gives a whole number, else seconds with their fraction: 5400.0 -> "90m"."""
    exact = Decimal(repr(seconds))
    for name, unit in DURATION_UNITS.items():
        if exact and exact % unit == 0:
            return f"{exact / unit:.0f}{name}"
    return f"{exact.normalize():f}s"


def rate(value: object) -> float:
    """`"1000/s"`, `"60/m"`, `"100/h"`, or a number a second -> events a second; 0: no limit."""
    hint = f'{shown(value)} is not a rate; write it like "1000/s", "60/m" or "100/h"'
    if is_number(value):
        value = f"{Decimal(str(value)):f}/s"
    match = _RATE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    unit = RATE_UNITS.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(hint)
    return float(match[1]) / unit


def rate_text(per_second: float) -> str:
    """The first unit in which the rate is a whole number: 1 / 60 -> "1/m"."""
    for name, unit in RATE_UNITS.items():
        whole = round(per_second * unit)
        if whole / unit == per_second:
            return f"{whole}/{name}"
    return f"{Decimal(repr(per_second)):f}/s"


def bind(value: object) -> Bind:
    """`"127.0.0.1:8080"`, `"[::1]:8080"`, `"localhost:0"`, `"unix:/run/fastpixel.sock"` -> Bind."""
    if not isinstance(value, str):
        raise ValueError(f'{shown(value)} is not an address; write it like "127.0.0.1:8080"')
    if value.startswith("unix:"):
        return Bind(path=_unix_path(value))
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'{shown(value)} has no port between 0 and 65535; write it like "127.0.0.1:8080"')
    return Bind(_host(host, value), int(port))


def _unix_path(value: str) -> str:
    path = value[5:]
    if not path or "\0" in path:
        raise ValueError(f'{shown(value)} names no socket; write it like "unix:/run/fastpixel.sock"')
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_BYTES:
        raise ValueError(f"{shown(value)} is too long; a unix socket's path has at most {UNIX_PATH_BYTES} bytes")
    return path


def _host(host: str, value: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return str(_address(host[1:-1], value))
    if ":" in host:
        raise ValueError(f'{shown(value)}: an IPv6 address stands in brackets, like "[::1]:8080"')
    if not _HOST.fullmatch(host):
        raise ValueError(f'{shown(value)} has no host; for every interface write "0.0.0.0:8080" or "[::]:8080"')
    if host.replace(".", "").isdigit():
        return str(_address(host, value))
    return host


def _address(text: str, value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(value)}: {shown(text)} is not an IP address") from None


def network(value: object) -> Network:
    """`"10.0.0.0/8"`, `"fd00::/8"`, or one address -> network. Host bits are an error, not silently cut."""
    if not isinstance(value, str):
        raise ValueError(f'{shown(value)} is not a network; write it like "10.0.0.0/8"')
    try:
        block = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f'{shown(value)} is not a network; write it like "10.0.0.0/8" or "fd00::/8"') from None
    address = ipaddress.ip_address(value.partition("/")[0])
    if address != block.network_address:
        raise ValueError(f'{shown(value)} has bits beyond its mask; did you mean "{block}"?')
    return block


def origin(value: object) -> str:
    """`"https://shop.example.com"` -> the form browsers send: lower case, no default port, no path (RFC 6454, 6.2)."""
    wrong = ValueError(f'{shown(value)} is not an origin; write scheme and host, like "https://shop.example.com"')
    if not isinstance(value, str) or not value.isascii() or value != value.strip():
        raise wrong
    try:
        parts = urlsplit(value.lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    plain = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username is not None)
    if not host or not plain or not _SCHEME.fullmatch(parts.scheme) or value.endswith((":", "?", "#")):
        raise wrong
    if ":" in host:
        host = f"[{host}]"
    elif not _HOST.fullmatch(host):
        raise wrong
    return f"{parts.scheme}://{host}" + ("" if port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{port}")
