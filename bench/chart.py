"""Results -> SVG: bars of CPU per event (for the README, and of every scenario) and of p99. Pure, like report.py.

Plain SVG text, readable on light and dark pages: every colour is a middle tone, and the background is left to the page.
"""

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median
from typing import NamedTuple

from bench.results import Measurement, Results
from bench.scenarios import LATENCY, ONE, SCENARIOS, SHARES
from bench.servers import SERVERS

COLOURS = {"nginx": "#8c8c8c", "floor": "#b9a06a", "commit": "#2f8f6b", "fsync": "#3b78c2"}
OTHER = "#b0748f"  # the Python servers
README = ("floor", "commit", "nginx", "fsync", "socketify", "granian", "uvicorn")
WIDTH, LEFT, ROW, GAP, TOP = 760, 230, 22, 14, 34
RIGHT = 90  # room for a bar's number


class Bar(NamedTuple):
    server: str
    title: str
    value: float


Group = tuple[str, Sequence[Bar]]


def charts(results: Results) -> dict[str, str]:
    """File name -> SVG, of what was measured."""
    cpu = "CPU microseconds per event, whole process tree (less is better)"
    found = {
        "results.svg": chart(f"{cpu}, 64 keep-alive connections", "µs", [("", _cpu(results, "keepalive", README))]),
        "scenarios.svg": chart(
            f"{cpu}; each scenario has its own scale", "µs",
            [(row.title, _cpu(results, row.name, ONE)) for row in SCENARIOS], shared=False,
        ),
        "latency.svg": chart("p99 milliseconds at fixed rates (less is better)", "ms", _latency(results)),
    }  # fmt: skip
    return {name: svg for name, svg in found.items() if svg}


def chart(head: str, unit: str, groups: Iterable[Group], *, shared: bool = True) -> str:
    """The whole file, with one scale or a scale for each group; empty without a bar."""
    drawn = [(title, bars) for title, bars in groups if bars]
    if not drawn:
        return ""
    widest = max(bar.value for _, bars in drawn for bar in bars)
    parts, y = [_text(10, 20, head, "start", size=13, weight="bold")], TOP
    for title, bars in drawn:
        if title:
            parts.append(_text(10, y + 15, title, "start", weight="bold"))
            y += ROW + 2
        scale = (WIDTH - LEFT - RIGHT) / (widest if shared else max(bar.value for bar in bars))
        for bar in bars:
            parts += _bar(bar, y, scale, unit)
            y += ROW
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" role="img" '
        f'aria-label="{escape(head)}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _cpu(results: Results, scenario: str, servers: Iterable[str]) -> list[Bar]:
    """Dearer ones lower down: the order is that of the numbers."""
    found = [(name, results.of(scenario, name)) for name in servers]
    bars = [Bar(name, SERVERS[name].title, _median(runs)) for name, runs in found if runs]
    return sorted(bars, key=lambda bar: bar.value)


def _median(runs: Iterable[Measurement]) -> float:
    return median(run.cpu_per_event for run in runs)


def _latency(results: Results) -> list[Group]:
    groups = []
    for share in SHARES:
        found = [(name, results.of(f"rate{share}", name)) for name in LATENCY]
        bars = [Bar(name, SERVERS[name].title, median(r.p99_us for r in runs) / 1000) for name, runs in found if runs]
        groups.append((f"{share} % of the full rate", bars))
    return groups


def _bar(bar: Bar, y: float, scale: float, unit: str) -> list[str]:
    width, colour = bar.value * scale, COLOURS.get(bar.server, OTHER)
    digits = 1 if unit == "µs" else 2
    weight = "bold" if bar.title.startswith("fastpixel") else "normal"
    return [
        _text(LEFT - 8, y + 15, bar.title, "end", weight=weight),
        f'<rect x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" rx="2" fill="{colour}"/>',
        _text(LEFT + width + 6, y + 15, f"{bar.value:.{digits}f} {unit}", "start", weight=weight),
    ]


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#7a7a7a">{escape(text)}</text>'
    )
