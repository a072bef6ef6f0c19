"""The text forms of values: every written form is read back unchanged, and what cannot be meant is refused."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import units
from fastpixel.units import Bind

SIZES = {
    "0": 0, 0: 0, 1: 1, "1": 1, "12B": 12, "1KiB": 1024, "4000KiB": 4096000, "256MiB": 268435456, "1.5GiB": 1610612736,
    "50gib": 53687091200, "1 TiB": 1 << 40, "10KB": 10000, "10MB": 10**7, "2GB": 2 * 10**9, "1TB": 10**12,
    " 1MiB ": 1 << 20,
}  # fmt: skip
NO_SIZES = [
    "",
    "MiB",
    "1PiB",
    "-1",
    -1,
    1.5,
    True,
    None,
    "1,5MiB",
    "1MiBs",
    "0x10",
    "1e3",
    "١KiB",
    "0.3B",
    [],
    "9" * 19,
]

DURATIONS = {
    "500ms": 0.5, "10s": 10, "5m": 300, "2h": 7200, "7d": 604800, "400d": 34560000, "1w": 604800, "1.5h": 5400,
    "0s": 0, 0: 0, 30: 30, 0.25: 0.25, "0.1s": 0.1, "1 s": 1, "10S": 10,
}  # fmt: skip
NO_DURATIONS = ["", "7", "d", "-1s", -1, "1y", "1h30m", True, None, "1.s", float("nan"), float("inf"), 1e300, "١s"]

RATES = {"1000/s": 1000, "60/m": 1, "90/h": 0.025, "0/s": 0, 0: 0, 5: 5, 0.5: 0.5, "0.5/s": 0.5, "1 / s": 1}
NO_RATES = ["", "1000", "1000/d", "-1/s", "/s", "fast", True, None, float("nan")]

BINDS = {
    "127.0.0.1:8080": Bind("127.0.0.1", 8080), "0.0.0.0:0": Bind("0.0.0.0", 0), "[::1]:8080": Bind("::1", 8080),
    "[::]:1": Bind("::", 1), "localhost:65535": Bind("localhost", 65535),
    "edge-1.example.com:80": Bind("edge-1.example.com", 80),
    "unix:/run/fp.sock": Bind(path="/run/fp.sock"), "unix:fp.sock": Bind(path="fp.sock"),
}  # fmt: skip
NO_BINDS = [
    "", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:٣", "::1:8080",
    "[::1]", "[::g]:80", "[127.0.0.1:80", "256.0.0.1:80", "1.2.3:80", "a b:80", "-a:80", "http://x:80", "*:80", "unix:",
    "unix:/\0", "unix:/" + "a" * 107, 8080, None, True, ["127.0.0.1:80"],
]  # fmt: skip

NETWORKS = {
    "10.0.0.0/8": "10.0.0.0/8",
    "192.0.2.7": "192.0.2.7/32",
    "fd00::/8": "fd00::/8",
    "::1": "::1/128",
    "0.0.0.0/0": "0.0.0.0/0",
}
NO_NETWORKS = ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "fd00::1/8", "localhost", 10, None]

ORIGINS = {
    "https://shop.example.com": "https://shop.example.com", "HTTPS://Shop.Example.com/": "https://shop.example.com",
    "https://a.b:443": "https://a.b", "http://a.b:80": "http://a.b", "http://a.b:8080": "http://a.b:8080",
    "http://[::1]:3000": "http://[::1]:3000", "capacitor://localhost": "capacitor://localhost",
    "https://a.b:80": "https://a.b:80",
}  # fmt: skip
NO_ORIGINS = [
    "", "*", "null", "shop.example.com", "https://", "https://a.b/x", "https://a.b?x", "https://a.b#x", "https://u@a.b",
    "https://a.b:99999", "https://*.a.b", "https://bücher.example", "https://a b", " https://a.b", "https://a.b:",
    "https://[::1", "https://a.b?", "https://a.b#", 1, None,
]  # fmt: skip

READERS = [
    (units.size, SIZES, NO_SIZES),
    (units.duration, DURATIONS, NO_DURATIONS),
    (units.rate, RATES, NO_RATES),
    (units.bind, BINDS, NO_BINDS),
    (units.network, {text: ipaddress.ip_network(block) for text, block in NETWORKS.items()}, NO_NETWORKS),
    (units.origin, ORIGINS, NO_ORIGINS),
]


@pytest.mark.parametrize(
    ("read", "value", "stored"),
    [(read, value, stored) for read, good, _ in READERS for value, stored in good.items()],
)
def test_reads(read, value, stored):
    assert read(value) == stored
    assert type(read(value)) in (type(stored), float)


@pytest.mark.parametrize(("read", "value"), [(read, value) for read, _, bad in READERS for value in bad])
def test_refuses_in_one_line(read, value):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        read(value)


@pytest.mark.parametrize("value", BINDS)
def test_a_bind_prints_as_it_is_written(value):
    assert str(units.bind(value)) == value
    assert units.bind(value).is_unix == value.startswith("unix:")


@given(st.integers(0, 1 << 60))
def test_sizes_survive_printing(count):
    assert units.size(units.size_text(count)) == count


@given(st.integers(0, 10**12), st.sampled_from(list(units.DURATION_UNITS)))
def test_durations_survive_printing(count, unit):
    seconds = units.duration(f"{count}{unit}")
    assert units.duration(units.duration_text(seconds)) == seconds


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_durations_of_any_fraction_survive_printing(seconds):
    read = units.duration(round(seconds, 9))
    assert units.duration(units.duration_text(read)) == read


@given(st.integers(0, 10**12), st.sampled_from(list(units.RATE_UNITS)))
def test_rates_survive_printing(count, unit):
    rate = units.rate(f"{count}/{unit}")
    assert units.rate(units.rate_text(rate)) == rate


@pytest.mark.parametrize(
    ("stored", "text"),
    [(604800.0, "1w"), (5400.0, "90m"), (0.5, "500ms"), (0.0, "0s"), (0.0001, "0.0001s"), (34560000.0, "400d")],
)
def test_durations_print_in_the_largest_whole_unit(stored, text):
    assert units.duration_text(stored) == text


@pytest.mark.parametrize(("stored", "text"), [(4096000, "4000KiB"), (0, 0), (1000, 1000), (1 << 40, "1TiB")])
def test_sizes_print_in_the_largest_whole_unit(stored, text):
    assert units.size_text(stored) == text


def test_an_error_shows_a_value_in_one_short_line():
    assert units.shown("\ud800" + "x" * 200).endswith("...")
    assert len(units.shown("x" * 200)) == 80
    assert units.shown(True) == "true"
