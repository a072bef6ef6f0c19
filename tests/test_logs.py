"""The log's two forms: one line an entry, and nothing that moves a terminal's cursor."""

import json
import logging
import sys

import pytest

from fastpixel import logs
from fastpixel.logs import JsonFormatter, TextFormatter

MOMENT = 1_767_225_599.0625  # 2025-12-31T23:59:59.062Z


def entry(message, *arguments, level=logging.INFO, error=None):
    record = logging.LogRecord("fastpixel.test", level, __file__, 1, message, arguments, error)
    record.created, record.msecs = MOMENT, 62.5
    return record


def failure():
    try:
        raise ValueError("bad\x1b[2J")
    except ValueError:
        return sys.exc_info()


def test_text():
    assert TextFormatter("worker 0").format(entry("%d events", 3)) == "2025-12-31T23:59:59.062Z worker 0: 3 events"


def test_text_names_the_level_of_what_is_not_information():
    line = TextFormatter("fastpixel").format(entry("full", level=logging.ERROR))
    assert line == "2025-12-31T23:59:59.062Z ERROR fastpixel: full"


def test_json():
    found = json.loads(JsonFormatter("worker 0").format(entry("full: %s", 'a "disk"', level=logging.WARNING)))
    assert found == {
        "time": "2025-12-31T23:59:59.062Z",
        "level": "warning",
        "process": "worker 0",
        "message": 'full: a "disk"',
    }


@pytest.mark.parametrize("formatter", [TextFormatter("w"), JsonFormatter("w")], ids=["text", "json"])
@pytest.mark.parametrize("message", ["a\nb", "a\r\nb", "\x1b[31mred", "\x9b0m", "\u2028", "\x00", "\udcff"])
def test_a_message_is_one_line_of_printable_text(formatter, message):
    line = formatter.format(entry("%s", message))
    assert line.isprintable()


def test_a_traceback_follows_on_lines_of_its_own():
    first, *rest = TextFormatter("w").format(entry("failed", level=logging.ERROR, error=failure())).split("\n")
    assert first.endswith("ERROR w: failed")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: bad\\x1b[2J"


def test_a_traceback_is_within_the_json():
    line = JsonFormatter("w").format(entry("failed", error=failure()))
    assert "\n" not in line
    assert "ValueError: bad" in json.loads(line)["message"]


@pytest.mark.parametrize(("log_format", "formatter"), [("text", TextFormatter), ("json", JsonFormatter)])
def test_set_up_writes_to_standard_error(log_format, formatter, capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.set_up(log_format, "fastpixel")
    logging.getLogger("fastpixel.test").info("hello")
    logging.getLogger("fastpixel.test").debug("nobody needs this")
    assert isinstance(root.handlers[0].formatter, formatter)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "hello" in output.err
