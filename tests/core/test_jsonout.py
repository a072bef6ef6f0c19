"""Batches read back: NDJSON, split and scan, against msgpack and json."""

import datetime
import json
import math
import struct

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastpixel import _core

EPOCH = datetime.datetime(1970, 1, 1)
FIRST, LAST = -62135596800, 253402300799
SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def text_twin(text):
    def one(c):
        if c in SHORT:
            return SHORT[c]
        code = ord(c)
        return f"\\u{code:04x}" if code < 0x20 or 0x7F <= code < 0xA0 or code in {0x2028, 0x2029} else c

    return '"' + "".join(map(one, text)) + '"'


def time_twin(stamp):
    if not FIRST <= stamp.seconds <= LAST:
        return "null"
    when = EPOCH + datetime.timedelta(seconds=stamp.seconds)
    return f'"{when.isoformat()}.{stamp.nanoseconds // 1_000_000:03}Z"'


def value_twin(value):
    match value:
        case str():
            return text_twin(value)
        case msgpack.Timestamp():
            return time_twin(value)
        case dict():
            return "{" + ",".join(f"{name_twin(k)}:{value_twin(v)}" for k, v in value.items()) + "}"
        case bytes() | msgpack.ExtType():
            return "null"
        case list():
            return "[" + ",".join(map(value_twin, value)) + "]"
        case float() if not math.isfinite(value):
            return "null"
        case _:
            return json.dumps(value)


def name_twin(name):
    text = value_twin(name)
    return text if text.startswith('"') else f'"{text}"'


def lines(*values):
    return _core.json_lines(b"".join(map(msgpack.packb, values))).decode()


TIMES = st.builds(
    msgpack.Timestamp,
    st.integers(FIRST - 10, LAST + 10) | st.integers(0, 2**32) | st.integers(-(2**63), 2**63 - 1),
    st.just(0) | st.integers(0, 999_999_999),
)
EXTENSIONS = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
TEXT = st.text() | st.text(st.sampled_from('ab"\\/\x00\x1f\x7f\x80\x9f\xa0\u2027\u2028\u2029\u2030é😀\n\t'))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | TIMES
VALUES = st.recursive(
    SCALARS | st.binary(max_size=8) | EXTENSIONS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT | st.integers(-9, 9), inner, max_size=20),
    max_leaves=30,
)
RECORDS = st.dictionaries(TEXT, VALUES, max_size=6)


@given(st.lists(RECORDS, max_size=4))
def test_json_lines_is_what_python_writes(records):
    assert lines(*records) == "".join(value_twin(record) + "\n" for record in records)


@given(st.lists(RECORDS, max_size=4), TEXT.filter(bool), st.integers(0, 2**60))
def test_seq_is_the_last_member(records, prefix, first):
    out = _core.json_lines(b"".join(map(msgpack.packb, records)), prefix, first).decode()
    for i, (line, record) in enumerate(zip(out.splitlines(), records, strict=True)):
        assert line == value_twin({**record, "seq": f"{prefix}{first + i}"})


@given(st.lists(RECORDS, max_size=4))
def test_split_gives_the_records(records):
    packed = [msgpack.packb(record) for record in records]
    assert _core.split(b"".join(packed)) == packed


@given(st.lists(RECORDS, max_size=4), st.lists(TIMES | SCALARS, max_size=4))
def test_scan_finds_the_least_and_the_greatest(records, times):
    records = records + [{"a": [{"receivedAt": msgpack.Timestamp(0)}], "receivedAt": time} for time in times]
    stamps = [record.get("receivedAt") for record in records]
    found = [s.to_unix_nano() for s in stamps if isinstance(s, msgpack.Timestamp) and FIRST <= s.seconds <= LAST]
    batch = b"".join(map(msgpack.packb, records))
    assert _core.scan(batch) == (len(records), min(found, default=0), max(found, default=0))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ({"a": []}, '{"a":[]}'),
        ({"a": {}}, '{"a":{}}'),
        ({"a": [1, None, True, False]}, '{"a":[1,null,true,false]}'),
        ({"a": 2**64 - 1, "b": -(2**63)}, '{"a":18446744073709551615,"b":-9223372036854775808}'),
        ({"a": [-1, -32, -33, -128, -129, -32769]}, '{"a":[-1,-32,-33,-128,-129,-32769]}'),
        ({"a": [math.nan, math.inf, -math.inf]}, '{"a":[null,null,null]}'),
        ({1: 2, None: 3, False: 4, 1.5: 5}, '{"1":2,"null":3,"false":4,"1.5":5}'),
        ({"\x00\x7f\x85\u2028": "</script>"}, '{"\\u0000\\u007f\\u0085\\u2028":"</script>"}'),
        ({"t": msgpack.Timestamp(0)}, '{"t":"1970-01-01T00:00:00.000Z"}'),
        ({"t": msgpack.Timestamp(951827696, 999_999_999)}, '{"t":"2000-02-29T12:34:56.999Z"}'),
        ({"t": msgpack.Timestamp(-1, 1_000_000)}, '{"t":"1969-12-31T23:59:59.001Z"}'),
        ({"t": msgpack.Timestamp(FIRST)}, '{"t":"0001-01-01T00:00:00.000Z"}'),
        ({"t": msgpack.Timestamp(LAST, 999_999_999)}, '{"t":"9999-12-31T23:59:59.999Z"}'),
        ({"t": msgpack.Timestamp(FIRST - 1)}, '{"t":null}'),
        ({"t": msgpack.Timestamp(LAST + 1)}, '{"t":null}'),
        ({"b": b"abc", "x": msgpack.ExtType(5, b"1234")}, '{"b":null,"x":null}'),
    ],
)
def test_cases(value, text):
    assert lines(value) == text + "\n"


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"\x81\xa1a\xca\x3f\xc0\x00\x00", '{"a":1.5}'),
        (b"\x81\xa1a\xca\x7f\x80\x00\x00", '{"a":null}'),
        (b"\x81\xa1a\xcf\x00\x00\x00\x00\x00\x00\x00\x01", '{"a":1}'),
        (b"\x81\xa1a\xd3\xff\xff\xff\xff\xff\xff\xff\xff", '{"a":-1}'),
        (b"\x81\xd9\x01a\xdb\x00\x00\x00\x01b", '{"a":"b"}'),
        (b"\xde\x00\x01\xa1a\xdc\x00\x01\x07", '{"a":[7]}'),
        (b"\xdf\x00\x00\x00\x01\xa1a\xdd\x00\x00\x00\x00", '{"a":[]}'),
        (b"\x81\xa1a\xa3\xff\xc0b", '{"a":"\ufffd\ufffdb"}'),
        (b"\x81\xa1a\xa3\xed\xa0\x80", '{"a":"\ufffd\ufffd\ufffd"}'),
        (b"\x81\xa1a\xc7\x0c\xff\x3b\x9a\xca\x00" + bytes(8), '{"a":null}'),  # 1,000,000,000 ns in a second
        (b"\x81\xa1a\xc7\x04\xff\x00\x00\x00\x00", '{"a":"1970-01-01T00:00:00.000Z"}'),
        (b"\x81\xa1a\xd4\xff\x00", '{"a":null}'),
        (b"\x81\xa1a\xc7\x00\xff", '{"a":null}'),
        (b"\x81\xd6\xff\x00\x00\x00\x00\x01", '{"1970-01-01T00:00:00.000Z":1}'),
        (b"\x81\xd4\x05\x00\x01", '{"null":1}'),
    ],
    ids=repr,
)
def test_forms_that_msgpack_python_does_not_write(packed, text):
    assert _core.json_lines(packed).decode() == text + "\n"
    assert _core.split(packed) == [packed]


BROKEN = [
    b"\xc0",
    b"\x01",
    b"\xa1a",
    b"\x90",
    b"\x81\xa1a",
    b"\x81\xa1a\xc1",
    b"\x81\xa2a",
    b"\xde\x00",
    b"\xdf\xff\xff\xff\xff",
    b"\x81\xa1a\xdd\xff\xff\xff\xff\xc0",
    b"\x81\xa1a\xdb\xff\xff\xff\xffabc",
    b"\x81\xa1a\xc9\x00\x00\x00\x02\xff1",
    b"\x81\xa1a\xc7\x04",
    b"\x81\xa1a\xd7\xff1234567",
]


@pytest.mark.parametrize("door", [_core.json_lines, _core.split, _core.scan])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_what_is_not_whole_maps_is_refused(door, value):
    with pytest.raises(ValueError, match="whole msgpack maps: record 1 is broken at byte"):
        door(b"\x80" + value)


@pytest.mark.parametrize("door", [_core.json_lines, _core.split, _core.scan])
def test_every_prefix_is_refused_or_whole(door):
    record = {
        "a": [1, 2**40, -5, 1.5, None],
        "receivedAt": msgpack.Timestamp(1, 1),
        "é": {"x" * 40: b"1" * 300},
    }
    packed = msgpack.packb(record)
    for i in range(1, len(packed)):
        with pytest.raises(ValueError, match="record 0"):
            door(packed[:i])
        with pytest.raises(ValueError, match="record 1"):
            door(packed + packed[:i])


@given(
    st.binary()
    | st.builds(lambda a, b, c: a[:b] + c + a[b + 1 :], RECORDS.map(msgpack.packb), st.integers(0, 99), st.binary())
)
@example(b"\x91" * 600)
def test_any_bytes_are_refused_or_give_strict_lines(value):
    try:
        records = _core.split(value)
    except ValueError:
        with pytest.raises(ValueError, match="broken"):
            _core.json_lines(value)
        with pytest.raises(ValueError, match="broken"):
            _core.scan(value)
        return
    assert b"".join(records) == value
    try:
        out = _core.json_lines(value, "p-", 5).decode("utf-8")
    except ValueError:
        return  # a map or an array is a name
    assert _core.scan(value)[0] == len(records)
    assert len(out.split("\n")) == len(records) + 1
    for i, line in enumerate(out.splitlines()):
        assert json.loads(line, parse_constant=pytest.fail)["seq"] == f"p-{5 + i}"


def test_nesting_is_bounded():
    deep = b"\x81\xa1a" * 511 + b"\x80"
    assert _core.json_lines(deep).startswith(b'{"a":{"a":')
    assert _core.split(b"\x81\xa1a" + deep)
    with pytest.raises(ValueError, match="broken"):
        _core.json_lines(b"\x81\xa1a" + deep)
    bomb = b"\x81\xa1a" + b"\x91" * 1_000_000
    for door in (_core.json_lines, _core.split, _core.scan):
        with pytest.raises(ValueError, match="broken"):
            door(bomb)
    assert _core.split(bomb + b"\xc0") == [bomb + b"\xc0"]


def test_an_empty_batch():
    assert (_core.json_lines(b""), _core.split(b""), _core.scan(b"")) == (b"", [], (0, 0, 0))


def test_the_prefix_is_escaped_and_lone_surrogates_do_not_pass():
    assert _core.json_lines(b"\x80", '"\n', 1) == b'{"seq":"\\"\\n1"}\n'
    assert _core.json_lines(b"\x80", "\ud800", 1) == b'{"seq":"?1"}\n'


def test_scan_holds_years_that_64_bits_of_nanoseconds_do_not():
    batch = b"".join(msgpack.packb({"receivedAt": msgpack.Timestamp(s, 7)}) for s in (LAST, FIRST))
    assert _core.scan(batch) == (2, FIRST * 10**9 + 7, LAST * 10**9 + 7)


def test_float32_is_written_as_the_double_it_is():
    packed = b"\x81\xa1a\xca" + struct.pack(">f", 0.1)
    assert _core.json_lines(packed) == b'{"a":0.10000000149011612}\n'
