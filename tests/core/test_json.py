"""JSON to msgpack against Python's json with the protocol rules as hooks, packed by msgpack-python.

The documents are those of tests/corpus/rfc8259.py, what Hypothesis makes, and mutations of both.
"""

import json
import math
import re
import time

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.rfc8259 import CASES
from fastpixel import _core
from vectors import fuzz

SURROGATE = re.compile("[\ud800-\udfff]")
BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{}\]]', re.DOTALL)
CLOSING = {"[": "]", "{": "}"}


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


def refused_depth(text, limit):
    """The document up to the bracket that opens one level too many, with what is open; None: there is none."""
    opened = []
    for found in BRACKETS.finditer(text):
        if found[0] in CLOSING:
            if len(opened) == limit:
                return text[: found.start()], opened
            opened.append(found[0])
        elif found[0] in CLOSING.values() and opened:
            opened.pop()
    return None


def is_too_deep(text, limit):
    """Whether nothing is wrong before that bracket: with an end that is made up, it would be a document."""
    cut = refused_depth(text, limit)
    if cut is None:
        return False
    before, opened = cut
    return parsed(before + " null" + "".join(CLOSING[bracket] for bracket in reversed(opened)))[0] is None


def parsed(text):
    try:
        return None, repaired(json.loads(text, **HOOKS))
    except ValueError:
        return "bad_json", None


def twin(data, max_depth=200):
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "bad_encoding", b""
    reason, value = ("too_deep", None) if is_too_deep(text, max_depth) else parsed(text)
    return reason, b"" if reason else msgpack.packb(value)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_corpus(case):
    expected = case.reason, b"" if case.reason else msgpack.packb(case.value)
    assert _core.pack_json(case.data) == expected
    assert twin(case.data) == expected


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_letters_of_the_corpus_are_those_of_python(case):
    """Without our rules: Python reads every `y`, and no `n`; but for NaN and Infinity, which it is told to refuse."""
    try:
        json.loads(case.data.decode(), parse_constant=constant_twin)
        letters = "yi"
    except ValueError:
        letters = "ni"
    assert case.name[0] in letters
    assert (case.reason is None) == (case.name[0] == "y") or case.name[0] == "i"


def test_the_corpus_names_every_case_once():
    assert len({case.name for case in CASES}) == len(CASES) == len({case.data for case in CASES})


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


CORPUS = st.sampled_from([case.data for case in CASES])


@fuzz
@given(DOCUMENTS, st.integers(0, 8) | st.just(200))
def test_any_document(data, max_depth):
    assert _core.pack_json(data, max_depth) == twin(data, max_depth)


@fuzz
@given(SOUP | st.binary(max_size=30) | SOUP.map(lambda data: b'{"a":[' + data + b"]}"))
def test_any_bytes(data):
    assert _core.pack_json(data) == twin(data)


@fuzz
@given(DOCUMENTS | CORPUS, st.integers(0, 200), st.integers(0, 5), st.binary(max_size=5) | SOUP | CORPUS)
def test_any_damage(data, at, drop, put):
    damaged = data[:at] + put + data[at + drop :]
    assert _core.pack_json(damaged) == twin(damaged)


@fuzz
@given(st.lists(CORPUS, max_size=4), st.sampled_from([b",", b" ", b":", b""]), st.sampled_from([b"[]", b"{}", b'""']))
def test_any_of_the_corpus_in_one_another(parts, between, around):
    document = around[:1] + between.join(parts) + around[1:]
    assert _core.pack_json(document) == twin(document)


@fuzz
@given(
    st.lists(st.sampled_from(["[", '{"a":', "[1,", '{"a":[],"a":', '{"__proto__":{},"b":', " [{}, "]), max_size=4),
    st.integers(45, 55),
    CORPUS | SOUP,
    st.sampled_from(["", "]", "}", "]]", "]}"]),
)
def test_any_depth_around_the_limit(openings, times, inner, end):
    """Closed as it was opened, and then a little more or less."""
    opened = "".join(openings) * times
    closing = "".join(CLOSING[bracket] for bracket in reversed(re.findall(r"[\[{](?![\]}])", opened)))
    document = opened.encode() + inner + closing.encode() + end.encode()
    assert _core.pack_json(document) == twin(document)


@fuzz
@given(st.integers(0, 1030), st.sampled_from(["-", "", "[", '{"a":']), st.sampled_from([".", "e", "e+", ".0e-", ""]))
def test_any_length_of_a_number(digits, before, between):
    for split in {0, 1, digits // 2, digits}:
        data = (before + "7" * split + between + "1" * (digits - split)).encode()
        assert _core.pack_json(data) == twin(data)
        assert _core.pack_json(b"[" + data + b"]") == twin(b"[" + data + b"]")


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


def test_a_limit_of_depth_may_be_given():
    def nested(depth):
        return b"[" * depth + b"]" * depth

    assert _core.pack_json(nested(32), 32)[0] is None
    assert _core.pack_json(nested(33), 32) == ("too_deep", b"")
    assert _core.pack_json(b"1", 0) == (None, b"\x01")
    assert _core.pack_json(b"{}", 0) == ("too_deep", b"")
    assert _core.pack_json(nested(1000), 1000)[0] is None
    assert _core.pack_json(nested(1001), 1000) == ("too_deep", b"")
    assert _core.pack_json(b"[" + b"[]," * 500 + b"{}]", 2)[0] is None
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


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"{", 1),
        (b"{,}", 1),
        (b'{"a": 1, }', 9),
        (b'{"a" 1}', 5),
        (b"[1 2]", 3),
        (b'"a\nb"', 2),
        (b"[tru]", 4),
        (b"[1] x", 4),
        (b'["\xc3\xa9", nul]', 10),
        (b'["\xff"]', 2),
    ],
)
def test_where_a_document_goes_wrong(data, offset):
    assert _core.json_offset(data) == offset


@given(SOUP | st.binary(max_size=30))
def test_the_offset_is_that_of_the_first_bad_byte(data):
    offset = _core.json_offset(data)
    assert 0 <= offset <= len(data)
    if twin(data)[0] is None:
        assert offset == len(data)
    else:
        for end in range(offset + 1, len(data) + 1):  # nothing that comes later makes it right
            assert twin(data[:end])[0] is not None
