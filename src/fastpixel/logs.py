"""The log: standard error, one line an entry, as text or as JSON."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import msgspec

from fastpixel.units import printable


class TextFormatter(logging.Formatter):
    """`2026-01-31T23:59:59.999Z WARNING worker 0: text`; INFO is not spelt out."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return f"{_moment(record)} {level}{self._who}: {_text(self, record)}"


class JsonFormatter(logging.Formatter):
    """{"time":..., "level":..., "process":..., "message":...}"""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {"time": _moment(record), "level": record.levelname.lower(), "process": self._who}
        return msgspec.json.encode({**entry, "message": _text(self, record)}).decode()


def set_up(log_format: str, who: str) -> None:
    """Once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(who) if log_format == "json" else TextFormatter(who))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The message on one line, without control characters; a traceback follows on lines of its own."""
    text = printable(record.getMessage())
    if record.exc_info:
        text = "\n".join([text, *map(printable, formatter.formatException(record.exc_info).splitlines())])
    return text
