"""JSON to msgpack against Python's json with the protocol rules as hooks, packed by msgpack-python."""

import json
import math
import re
import time

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import _core

SURROGATE = re.compile("[\ud800-\udfff]")


class BadJSON(ValueError):
    pass


def text_twin(text):
    return SURROGATE.sub("\ufffd", text)


def int_twin(text):
    if len(text) > 1024:
        raise BadJSON
    return int(text) if -(2**63) <= int(text) < 2**64 else text


def float_twin(text):
    if len(text) > 1024:
        raise BadJSON
    return float(text) if math.isfinite(float(text)) else text


def object_twin(pairs):
    members = {}
    for name, value in pairs:
        name = text_twin(name)
        members.pop(name, None)
        members[name] = value
    members.pop("__proto__", None)
    return members


def constant_twin(name):
    raise BadJSON(name)


HOOKS = {
    "parse_int": int_twin,
    "parse_float": float_twin,
    "parse_constant": constant_twin,
    "object_pairs_hook": object_twin,
}


def repaired(value):
    if isinstance(value, str):
        return text_twin(value)
    if isinstance(value, list):
        return [repaired(item) for item in value]
    if isinstance(value, dict):
        return {name: repaired(item) for name, item in value.items()}
    return value


def twin(data):
    """For documents that are not deep."""
    try:
        return None, msgpack.packb(repaired(json.loads(data.decode("utf-8"), **HOOKS)))
    except UnicodeDecodeError:
        return "bad_encoding", b""
    except ValueError:
        return "bad_json", b""


ACCEPTED = [
    ("0", 0),
    ("-0", 0),
    ("-0.0", -0.0),
    ("0e0", 0.0),
    ("-0e-5", -0.0),
    ("1.0", 1.0),
    ("1E2", 100.0),
    ("1e+2", 100.0),
    ("0.1e-2", 0.001),
    ("127", 127),
    ("-32", -32),
    ("-33", -33),
    ("65536", 65536),
    ("9223372036854775808", 2**63),
    ("-9223372036854775808", -(2**63)),
    ("-9223372036854775809", "-9223372036854775809"),
    ("18446744073709551615", 2**64 - 1),
    ("18446744073709551616", "18446744073709551616"),
    ("-18446744073709551615", "-18446744073709551615"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("1e400", "1e400"),
    ("-1.50E+400", "-1.50E+400"),
    ("1e-400", 0.0),
    ("-1e-400", -0.0),
    ("1e99999999999999999999", "1e99999999999999999999"),
    ("1e-99999999999999999999", 0.0),
    ("0e99999999999999999999", 0.0),
    ("5e-324", 5e-324),
    ("2.2250738585072011e-308", 2.2250738585072011e-308),
    ("9007199254740993.0", 9007199254740992.0),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("1.7976931348623159e308", "1.7976931348623159e308"),
    ("123456789012345678901234567890.0", 123456789012345678901234567890.0),
    ("0." + "0" * 1000 + "1", 0.0),
    ("1" * 1024, "1" * 1024),
    ("0." + "3" * 1022, 1 / 3),
    ("1" + "0" * 400 + ".0e-400", 1.0),
    (" \t\r\n[ ] ", []),
    ("{}", {}),
    ('{"":""}', {"": ""}),
    ('"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    ('"\\u0000\\u001F\\u00e9\\u20AC"', "\x00\x1fé€"),
    ('"\\ud83d\\ude00"', "😀"),
    ('"\\uD83D\\uDE00\\uDBFF\\uDFFF"', "😀\U0010ffff"),
    ('"\\ud83d"', "\ufffd"),
    ('"\\ude00"', "\ufffd"),
    ('"\\ude00\\ud83d"', "\ufffd\ufffd"),
    ('"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
    ('"\\ud83dx\\n"', "\ufffdx\n"),
    ('"\\ud83d\\n"', "\ufffd\n"),
    ('"\\ud83d\\u0041"', "\ufffdA"),
    ('"\x7f\u2028\u2029\ufeff\uffff"', "\x7f\u2028\u2029\ufeff\uffff"),
    ('{"\\ud800":1}', {"\ufffd": 1}),
    ('{"\\ud800":1,"\\udfff":2}', {"\ufffd": 2}),
    ('{"a":1,"a":2}', {"a": 2}),
    ('{"a":1,"b":2,"\\u0061":3}', {"b": 2, "a": 3}),
    ('{"a":{"a":1,"a":[1]},"a":{"b":1,"b":{}}}', {"a": {"b": {}}}),
    ('{"abcdefgh":1,"abcdefgi":2,"abcdefgh":3}', {"abcdefgi": 2, "abcdefgh": 3}),
    ('{"a\\u0000":1,"a":2}', {"a\x00": 1, "a": 2}),
    ('{"__proto__":1}', {}),
    ('{"a":1,"__proto__":{"b":[1,{"c":2,"c":3}]},"d":4}', {"a": 1, "d": 4}),
    ('{"\\u005f_proto__":1,"x":{"__proto__":null,"y":1}}', {"x": {"y": 1}}),
    ('{"constructor":1,"prototype":2}', {"constructor": 1, "prototype": 2}),
    ('{"__proto":3,"__proto___":4}', {"__proto": 3, "__proto___": 4}),
    ('["__proto__"]', ["__proto__"]),
    ("[[[[[1],2],3],4],5]", [[[[[1], 2], 3], 4], 5]),
    ("[null,true,false]", [None, True, False]),
]

REFUSED = r"""
    nul|tru|falsey|True|NULL|NaN|Infinity|-Infinity|undefined|'a'|a
    [|]|{|}|[}|{]|[1|[1,|[1,]|[,1]|[,]|[1 2]|[1,,2]|[1}|1]|[]]|[]{}|1 2|[][]
    {"a"|{"a":|{"a":1|{"a":1,|{"a":1,}|{,}|{,"a":1}|{a:1}|{1:1}|{"a" 1}
    {"a"::1}|{"a":1 "b":2}|{"a":1,,"b":2}|{null:1}
    {"__proto__":}|{"__proto__":1,}|{"a":1}}|{["a"]:1}|{"a":1:2}|{"a","b"}
    -|+|+1|01|-01|00|1.|.5|-.5|1.e5|1e|1e+|1e-|1e1.5|1e5e5|0x10|1_000|1,5|--1|-+1|1-|1..2|0e|1E+-2|١|1f
    "|"a|"\|"\"|"\x41"|"\u"|"\u12"|"\u123g"|"\U0041"|"\ud83d\u12"|"\ud83d\|"\a"|"\0"|"\'"|"a""b"|"a"b
    /**/1|//1|1//|#1|$
"""
REFUSED_TEXTS = [case.strip() for line in REFUSED.strip().split("\n") for case in line.split("|")]
REFUSED_TEXTS += ["\x0b1", "\x0c1", "\xa01", "\u20281", "\ufeff1", "\ufeff{}", "[1]\ufeff", "{}\x00", "\x00"]


@pytest.mark.parametrize(("text", "value"), ACCEPTED, ids=lambda value: ascii(value)[:60])
def test_accepted(text, value):
    assert _core.pack_json(text.encode()) == (None, msgpack.packb(value))
    assert twin(text.encode()) == (None, msgpack.packb(value))


@pytest.mark.parametrize("text", REFUSED_TEXTS, ids=ascii)
def test_refused(text):
    assert twin(text.encode()) == ("bad_json", b"")
    assert _core.pack_json(text.encode()) == ("bad_json", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b'"\n"',
        b'"\x00"',
        b'"a\x1fb"',
        b'"\\\n"',
        b'["12345678\t"]',
        b"1" * 1025,
        b"0." + b"1" * 1023,
        b"1e" + b"0" * 1023,
        b"-" + b"1" * 1024,
        b"[" + b"9" * 1025 + b"]",
        "[1]".encode("utf-16-le"),
    ],
    ids=lambda data: repr(data)[:40],
)
def test_refused_bytes(data):
    assert _core.pack_json(data) == twin(data) == ("bad_json", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b'"\xff"',
        b'{"\xc3":1}',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xe2\x82',
        b"[1]\x80",
        "[1]".encode("utf-16"),
        "é".encode("latin-1"),
        b'"abcdefgh\xffabcdefgh"',
        b'"\\n\xff"',
        b"{,\xff",
        b"[" * 300 + b"\xff",
    ],
    ids=lambda data: repr(data)[:40],
)
def test_what_is_not_utf8_is_bad_encoding_whatever_else_it_is(data):
    assert _core.pack_json(data) == twin(data) == ("bad_encoding", b"")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=12), inner, max_size=40),
    max_leaves=40,
)
DUMPS = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 3, "\t"])}
    | {"separators": st.sampled_from([None, (",", ":"), (" , ", "\r\n:")])}
)
DOCUMENTS = st.builds(lambda value, how: json.dumps(value, **how).encode("utf-8", "replace"), VALUES, DUMPS)
TOKENS = r'{ } [ ] , : "a" "b" "\u0061" "__proto__" "\ud800" "\ude00" "ninechars" 1 -1 1e9 true null " \ \n é'
SOUP = st.lists(st.sampled_from(["\n", " ", *TOKENS.split()]), max_size=30).map("".join).map(str.encode)


@given(DOCUMENTS)
def test_any_document(data):
    assert _core.pack_json(data) == twin(data)


@given(SOUP | st.binary(max_size=30) | SOUP.map(lambda data: b'{"a":[' + data + b"]}"))
def test_any_bytes(data):
    assert _core.pack_json(data) == twin(data)


@given(DOCUMENTS, st.integers(0, 200), st.integers(0, 5), st.binary(max_size=5) | SOUP)
def test_any_damage(data, at, drop, put):
    damaged = data[:at] + put + data[at + drop :]
    assert _core.pack_json(damaged) == twin(damaged)


NAMES = st.text("ab\x00", max_size=3) | st.sampled_from(["__proto__", "abcdefg", "abcdefgh", "abcdefghi", "x" * 40])


def objects(inner):
    members = st.lists(st.tuples(NAMES, inner), max_size=40)
    return members.map(lambda pairs: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}")


def arrays(inner):
    return st.lists(inner, max_size=20).map(lambda items: "[" + ",".join(items) + "]")


@given(st.recursive(st.just("1"), lambda inner: objects(inner) | arrays(inner), max_leaves=80))
def test_any_repeated_names(text):
    assert _core.pack_json(text.encode()) == twin(text.encode())


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_any_number(text):
    assert _core.pack_json(text.encode()) == twin(text.encode())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_comes_back(value):
    assert _core.pack_json(repr(value).encode()) == (None, msgpack.packb(value))
    assert _core.pack_json(b"%.30e" % value) == (None, msgpack.packb(value))


def test_every_prefix_of_a_document():
    document = b'{"a":[1,-2.5e3,"\\u00e9\\ud83d\\ude00\xc3\xa9"],"b":{"a":null,"a":true},"__proto__":{"x":[false]}}'
    assert _core.pack_json(document)[0] is None
    for i in range(len(document)):
        assert _core.pack_json(document[:i]) == twin(document[:i])
        assert _core.pack_json(document[i:]) == twin(document[i:])


@pytest.mark.parametrize("count", [14, 15, 16, 17, 255, 256, 65535, 65536])
def test_headers_are_the_shortest(count):
    values = {f"n{i}": i for i in range(count)}
    for value in (values, list(values), "x" * count, [values, [list(values)]], {"a" * count: values}):
        assert _core.pack_json(json.dumps(value).encode()) == (None, msgpack.packb(value))
    repeated = ",".join(["1"] + [f'"n{i % count}":{i}' for i in range(2 * count)])[2:]
    assert _core.pack_json(b"{%s}" % repeated.encode()) == twin(b"{%s}" % repeated.encode())


def test_escaped_strings_have_the_shortest_header_too():
    for length in (1, 30, 31, 32, 255, 256, 65535, 65536):
        assert _core.pack_json(b'"' + b"\\n" * length + b'"') == (None, msgpack.packb("\n" * length))


def test_depth():
    def nested(depth):
        return b"[" * depth + b"]" * depth

    assert _core.pack_json(nested(200))[0] is None
    assert _core.pack_json(nested(201)) == ("too_deep", b"")
    assert _core.pack_json(nested(32), 32)[0] is None
    assert _core.pack_json(nested(33), 32) == ("too_deep", b"")
    assert _core.pack_json(b"1", 0) == (None, b"\x01")
    assert _core.pack_json(b"{}", 0) == ("too_deep", b"")
    assert _core.pack_json(nested(1000), 1000)[0] is None
    assert _core.pack_json(b'{"a":' * 200 + b"1" + b"}" * 200)[0] is None
    assert _core.pack_json(b'{"a":' * 201 + b"1" + b"}" * 201) == ("too_deep", b"")
    assert _core.pack_json(b"[" + b"[]," * 500 + b"{}]", 2)[0] is None
    assert _core.pack_json(b"[" * 201) == ("too_deep", b"")
    assert _core.pack_json(b"[" * 200) == ("bad_json", b"")
    for limit in (-1, 1001):
        with pytest.raises(ValueError, match="0 to 1000"):
            _core.pack_json(b"1", limit)


HOSTILE = {
    "brackets": b"[" * 10_000_000,
    "objects": b'{"a":' * 2_000_000,
    "one number": b"1" * 10_000_000,
    "one exponent": b"1e" + b"9" * 10_000_000,
    "one fraction": b"0." + b"9" * 10_000_000,
    "one name": b"{" + b",".join([b'"a":1'] * 100_000) + b"}",
    "two names": b"{" + b",".join([b'"a":1,"b":{"c":1,"c":2}'] * 100_000) + b"}",
    "every other name": b"{" + b",".join(b'"a":1,"k%d":1' % i for i in range(100_000)) + b"}",
    "many names": b"{" + b",".join(b'"k%d":1' % i for i in range(100_000)) + b"}",
    "long alike names": b"{" + b",".join(b'"%s%04d":1' % (b"x" * 996, i) for i in range(4_000)) + b"}",
    "many small maps": b"[" + b",".join([b'{"a":1,"a":2}'] * 200_000) + b"]",
    "many arrays of 16": b"[" + b",".join([b"[" + b"0," * 15 + b"0]"] * 60_000) + b"]",
    "large arrays in one another": (b"[" + b"0," * 15) * 199 + b"[" + b"0," * 1_000_000 + b"0]" + b"]" * 199,
    "escapes": b'"' + b"\\n" * 2_000_000 + b'"',
    "high surrogates": b'"' + b"\\ud800" * 600_000 + b'"',
    "white space": b" " * 4_000_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_documents_take_linear_time(data):
    start = time.perf_counter()
    reason, packed = _core.pack_json(data)
    assert time.perf_counter() - start < 2
    assert len(packed) <= len(data)
    if reason is None:
        assert packed == twin(data)[1]


def test_wants_bytes():
    with pytest.raises(TypeError):
        _core.pack_json("{}")
    with pytest.raises(TypeError):
        _core.pack_json(None)
