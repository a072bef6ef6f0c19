"""Doubles written by the core against Python's repr."""

import json
import math
import random
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import _core


def written(values):
    return _core.json_lines(msgpack.packb({"a": values})).decode()[6:-3]


def twin(values):
    return json.dumps(values, separators=(",", ":"))[1:-1]


CASES = """
    0.0 -0.0 1.0 -1.5 100.0 0.1 19.99 0.0001 0.00012 1e-05 1.5e-07 0.000001 123456.789 52.520008 -13.404954
    4.35
    1234567890123456.0 999999999999999.9 9999999999999998.0 1e+16 1.2e+17 1e+22 1e+23 9007199254740992.0
    9007199254740993.0 0.30000000000000004 5e-324 2.2250738585072014e-308 2.225073858507201e-308
    1.7976931348623157e+308 5.684341886080802e-14
"""


@pytest.mark.parametrize("text", CASES.split())
def test_cases(text):
    assert written([float(text)]) == repr(float(text))


def test_every_power_of_two_and_its_neighbours():
    powers = [math.ldexp(1, e) for e in range(-1074, 1024)]
    values = [v for p in powers for v in (p, math.nextafter(p, 0), math.nextafter(p, math.inf))]
    assert written(values[:-1]) == twin(values[:-1])


def test_every_power_of_ten():
    values = [float(f"{d}e{e}") for d in ("1", "9", "9.5", "1.2345678") for e in range(-323, 308)]
    assert written(values) == twin(values)


def test_random_bits():
    source = random.Random(1)
    values = [struct.unpack("<d", source.randbytes(8))[0] for _ in range(50_000)]
    values = [v for v in values if math.isfinite(v)]
    assert written(values) == twin(values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-(10**7), 10**7, places=4).map(float)))
def test_any_double(values):
    assert written(values) == twin(values)
