"""Every vector in every mode against the core, and the core's records and rejects against the oracle."""

from __future__ import annotations

from collections import Counter

import pytest

import oracle
import vectors
from vectors import Vector

ALL = vectors.load()
RUNS = list(vectors.runs(ALL))
ROUTED = [vector for vector in ALL if vector.is_the_oracles and vector.expect[0].get("status") not in (204, 404, 405)]


@pytest.mark.parametrize(("vector", "mode"), RUNS, ids=[f"{vector.id}-{mode}" for vector, mode in RUNS])
def test_vector(vector: Vector, mode: str):
    vectors.check(vector, mode, vectors.run(vector, mode))


def judged(vector: Vector) -> tuple[oracle.Request, oracle.Verdict]:
    request = vectors.parsed(vector)
    assert request is not None
    return request, oracle.judge(vectors.DIALECTS, vector.settings.sources, request)


@pytest.mark.parametrize("vector", ROUTED, ids=[vector.id for vector in ROUTED])
def test_oracle_answers_as_the_vector_says(vector: Vector):
    request, verdict = judged(vector)
    options = vector.options.get(verdict.dialect.name, {})
    reply, reason = oracle.reply_of(verdict, request.header("accept"), options)
    body = b"" if request.method == "HEAD" else oracle.body_of(verdict, reply, reason)
    headers = oracle.headers_of(request, reply, reason)
    answer = vectors.Answer(reply.status, {name.lower(): value for name, value in headers.items()}, body)
    answer.headers["date"] = "Sat, 04 May 2024 12:34:56 GMT"
    answer.headers["content-length"] = str(len(oracle.body_of(verdict, reply, reason)))
    assert answer.status == vector.expect[0].get("status", 200)
    vectors.check_answer(vector, answer, vector.expect[0])


@pytest.mark.parametrize("vector", ROUTED, ids=[vector.id for vector in ROUTED])
def test_oracle_stores_what_the_vector_says(vector: Vector):
    _, verdict = judged(vector)
    records = [verdict.record] if verdict.record else []
    expected = vector.expect[0]["records"]
    assert [vectors.alike(record, to) for record, to in zip(records, expected, strict=True)] == expected


@pytest.mark.parametrize("vector", ROUTED, ids=[vector.id for vector in ROUTED])
def test_rejects_are_kept(vector: Vector):
    request, verdict = judged(vector)
    kept = oracle.reject_of(request, verdict)
    assert vectors.run(vector, "whole").rejects == ([kept] if kept else [])


def test_names_are_unique():
    repeated = [name for name, count in Counter(vector.id for vector in ALL).items() if count > 1]
    assert repeated == []


def test_every_reason_of_the_pixels_has_a_vector():
    shown = {one["reason"] for vector in ALL for one in vector.expect if "reason" in one}
    rows = {
        reason
        for dialect in vectors.DIALECTS
        for route in dialect.routes
        for row in route.fields
        for reason in (row.required, row.nonempty)
        if reason
    }
    assert rows <= shown
