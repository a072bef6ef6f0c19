"""Personal data: what is hashed, where it is found, and that nothing of it is left in clear."""

import hashlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from fastpixel.personal import PREFIXES, cleaned, hidden, number_text, parameters, suspected


def hash1(plain):
    return "hash1:" + hashlib.sha256(plain.encode()).hexdigest()


BOB = hash1("bob@example.com")


@pytest.mark.parametrize(
    ("kind", "text", "plain"),
    [
        ("email", "bob@example.com", "bob@example.com"),
        ("email", " \t\r\n\u00a0\u2028\ufeffBob@EXAMPLE.com\u3000", "bob@example.com"),
        ("email", "J\u00d6RG@Example.com", "j\u00d6rg@example.com"),  # ASCII lower case
        ("email", "a b", "a b"),
        ("email", " md5:x", "md5:x"),
        ("email", "MD5:X", "md5:x"),
        ("phone", "+49 (151) 123-456", "+49151123456"),
        ("phone", "0151/123", "0151123"),
        ("phone", "\u0661\u0662 1", "1"),  # ASCII digits only
    ],
)
def test_the_normalised_value_is_hashed(kind, text, plain):
    assert hidden(kind, text) == hash1(plain)


@pytest.mark.parametrize("kind", ["email", "phone"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixed_values_are_kept(kind, prefix):
    assert hidden(kind, f"{prefix} Any Thing ") == f"{prefix} Any Thing "


@pytest.mark.parametrize(
    ("kind", "text"), [("email", ""), ("email", " \u200b\ufeff"), ("phone", ""), ("phone", "n/a"), ("phone", "++")]
)
def test_what_holds_nothing_is_none(kind, text):
    assert hidden(kind, text) is None


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        ({"email": "bob@example.com", "phone": "", "id": "bob@example.com"}, {"email": BOB, "id": "bob@example.com"}),
        ({"a": [{"b": {"email": "bob@example.com"}}]}, {"a": [{"b": {"email": BOB}}]}),
        ({"email": None, "phone": True}, {"email": None, "phone": True}),
        ({"phone": 49151, "a": {"phone": 49151.0}}, {"phone": hash1("49151"), "a": {"phone": hash1("49151")}}),
        ({"email": ["bob@example.com", "", "md5:x", None]}, {"email": [BOB, "md5:x", None]}),
        ({"email": {"bob@example.com": 1}}, {"email": hash1('{"bob@example.com":1}')}),
        ({"email": [["bob@example.com"]]}, {"email": hash1('[["bob@example.com"]]')}),
        ({"email": ["x"] * 101}, {"email": hash1(json.dumps(["x"] * 101, separators=(",", ":")))}),
        ({"user.email": "bob@example.com"}, {"user.email": BOB}),
        ({"email.0": "bob@example.com"}, {"email.0": BOB}),
        ({"email.bob@example.com": "bob@example.com"}, {f"email.{BOB}": BOB}),
        ({"emails": "x", "email_hash": "x"}, {"emails": "x", "email_hash": "x"}),
        ({"Email": "bob@example.com", "a.PHONE": "1"}, {"Email": BOB, "a.PHONE": hash1("1")}),
        ({"EMAIL.bob@example.com": 1}, {f"EMAIL.{BOB}": hash1("1")}),
        ({"labels": ["Email=bob@example.com"]}, {"labels": [f"Email={BOB}"]}),
        ({"labels": ["email=bob@example.com", "email=", "email", "a=b"]}, {"labels": [f"email={BOB}", "email", "a=b"]}),
        ({"labels": "user.email=bob@example.com"}, {"labels": f"user.email={BOB}"}),
        ({"labels": [["email=bob@example.com"], 5]}, {"labels": [[f"email={BOB}"], 5]}),
        ({"labels": [{"email": "bob@example.com"}]}, {"labels": [{"email": BOB}]}),
        ({"labels": {"email": "bob@example.com"}}, {"labels": {"email": BOB}}),
        ({"labels": "labels=email=bob@example.com"}, {"labels": "labels=email=bob@example.com"}),
        ({"labels": "email.bob@example.com"}, {"labels": f"email.{BOB}"}),
        ([{"email": " "}, "email"], [{}, "email"]),
        ("email", "email"),
    ],
)  # fmt: skip
def test_documents(document, kept):
    assert cleaned(document) == kept
    assert cleaned(cleaned(document)) == kept, "a retry must make the same"


def test_a_member_alone():
    assert cleaned(" ", "email") is UNSET
    assert cleaned("bob@example.com", "user_info.email") == BOB
    assert cleaned("email=", "labels") is UNSET


def test_parameters():
    sent = [("sid", "1"), ("user_info.email", "bob@example.com"), ("phone", " "), ("labels", "email=bob@example.com")]
    kept = [("sid", "1"), ("user_info.email", BOB), ("labels", f"email={BOB}")]
    assert parameters(sent) == kept
    assert parameters([("email.bob@example.com.x", "y")])[0][0].startswith("email.hash1:")


def test_suspected():
    assert suspected(b"\x81\xa5email\xa1x")
    assert suspected(b"\x81\xa7a.phone\xa1x")
    assert suspected(b"\x81\xa5Email\xa1x")
    assert not suspected(b"\x81\xa4mail\xa1x")


def test_numbers_as_text():
    assert [number_text(value) for value in (5, -5, 5.0, 5.5, 1e300, 2**64)] == [
        "5", "-5", "5", "5.5", str(int(1e300)), str(2**64),
    ]  # fmt: skip


SECRET = "Clear@Secret.example"
names = st.sampled_from(["a", "labels", "event_data", "user_id", "x.y"])
personal_names = st.sampled_from(["email", "Phone", "user_info.EMAIL", "phone.0", "email.x", "labels.phone"])
secrets = st.sampled_from([SECRET, f" {SECRET}", SECRET.upper(), f"{SECRET}0815"])
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
labels = st.builds("{}={}".format, st.sampled_from(["email", "phone", "a.email"]), secrets)
below = st.recursive(secrets | leaves, lambda more: st.lists(more) | st.dictionaries(secrets | names, more))
documents = st.recursive(
    leaves,
    lambda more: (
        st.lists(more)
        | st.dictionaries(names, more)
        | st.dictionaries(personal_names, below)
        | st.fixed_dictionaries({"labels": st.lists(labels) | labels})
    ),
)


@given(documents)
def test_nothing_is_left_in_clear(document):
    kept = json.dumps(cleaned(document))
    assert SECRET.lower() not in kept.lower()
    assert json.dumps(cleaned(json.loads(kept))) == kept


def test_the_deepest_document_is_walked():
    document = {"email": "bob@example.com"}
    for level in range(199):
        document = {"a": document} if level % 2 else [document]
    assert BOB in json.dumps(cleaned(document))


def test_a_name_of_a_million_segments_is_read_once():
    name = "a." * 1_000_000 + "email"
    start = time.process_time()
    assert cleaned({name: "bob@example.com"}) == {name: BOB}
    assert time.process_time() - start < 2
