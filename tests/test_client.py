"""Scripts as browsers get them: values in place, compressed, cached, asked for again."""

import gzip
import json
import subprocess

import pytest

from fastpixel import client

VALUES = (("__SID__", "ds-1"),)


def reply(**headers):
    return client.script("kpix.js", VALUES, **{"if_none_match": "", "accept_encoding": "", **headers})


def headers_of(answer):
    return dict(answer.headers)


def test_the_value_is_in_its_place():
    answer = reply()
    assert (answer.status, answer.content_type) == (200, "text/javascript; charset=utf-8")
    assert b'const SID = "ds-1";' in answer.body
    assert b"__SID__" not in answer.body
    assert len(answer.body) <= 8192


def test_it_may_be_kept_for_five_minutes():
    headers = headers_of(reply())
    assert headers["Cache-Control"] == "public, max-age=300"
    assert headers["Vary"] == "Origin, Accept-Encoding"
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(
    "accepted", ["gzip", "br, gzip", "GZIP;q=0.5", "deflate, gzip;q=1.0, *;q=0.1", "*", "gzip ; q=1"]
)
def test_compressed_when_that_is_accepted(accepted):
    answer = reply(accept_encoding=accepted)
    assert headers_of(answer)["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.body) == reply().body
    assert len(answer.body) < len(reply().body) / 2


@pytest.mark.parametrize(
    "accepted", ["", "identity", "br", "gzip;q=0", "gzip; q=0.000", "*;q=0", "gzip;q=0, *", "xgzip"]
)
def test_plain_otherwise(accepted):
    assert reply(accept_encoding=accepted) == reply()


@pytest.mark.parametrize("form", ["{}", '"x", {}', "{},x", "*"])
def test_not_sent_twice(form):
    tag = headers_of(reply())["ETag"]
    for asked in (form.format(tag), form.format(tag.removeprefix("W/"))):
        answer = reply(if_none_match=asked, accept_encoding="gzip")
        assert (answer.status, answer.body) == (304, b"")
        headers = headers_of(answer)
        assert headers["ETag"] == tag
        assert headers["Vary"] == "Origin, Accept-Encoding"
        assert "Content-Encoding" not in headers


@pytest.mark.parametrize("asked", ["", '"x"', "W/", '""'])
def test_sent_when_it_is_another(asked):
    assert reply(if_none_match=asked).status == 200


def test_each_value_has_its_tag():
    other = client.script("kpix.js", (("__SID__", "ds-2"),), if_none_match="", accept_encoding="")
    assert headers_of(other)["ETag"] != headers_of(reply())["ETag"]


def test_a_value_must_have_its_place():
    with pytest.raises(ValueError, match="must have '__NO__' once"):
        client.script("kpix.js", (("__NO__", "x"),), if_none_match="", accept_encoding="")


HOSTILE = "</script><!-- \u2028\u2029 & \"'\\ \x00\n é 😀"


def test_a_literal_is_harmless_in_html_and_says_the_same():
    literal = client.literal(HOSTILE)
    assert json.loads(literal) == HOSTILE
    assert not set("<>&\u2028\u2029\n") & set(literal)
    ran = subprocess.run(
        ["node", "--print", f"JSON.stringify({literal})"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert json.loads(ran.stdout) == HOSTILE
