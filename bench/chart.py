"""Measurements -> bench/results.svg: CPU per event as bars, one group a scenario. Pure, like report.py.

Plain SVG text, readable on light and dark pages: every colour is a middle tone, and the background is left to the page.
"""

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from bench.report import Measurement, Table
from bench.scenarios import SCENARIOS
from bench.servers import SERVERS

COLOURS = {"nginx": "#8c8c8c", "floor": "#b9a06a", "commit": "#2f8f6b", "fsync": "#3b78c2"}
WIDTH, LEFT, ROW, GAP, TOP = 760, 230, 20, 14, 34
SCALE_RIGHT = 90  # room for a bar's number

Bar = tuple[str, str, float]  # server, title, microseconds


def chart(measurements: Iterable[Measurement]) -> str:
    """The whole file."""
    groups = _groups(Table(measurements))
    widest = max(value for _, bars in groups for _, _, value in bars)
    parts, y = [], TOP
    for title, bars in groups:
        parts.append(_text(10, y + 14, title, "start", weight="bold"))
        y += ROW + 2
        for bar in bars:
            parts += _bar(bar, y, (WIDTH - LEFT - SCALE_RIGHT) / widest)
            y += ROW
        y += GAP
    head = _text(10, 20, "CPU microseconds per event, whole process tree (less is better)", "start", size=13)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" role="img" '
        f'aria-label="CPU per event of fastpixel, nginx and a C floor">\n' + "\n".join([head, *parts]) + "\n</svg>\n"
    )


def _groups(table: Table) -> list[tuple[str, Sequence[Bar]]]:
    found = []
    for scenario in SCENARIOS:
        bars = [
            (name, server.title, median(run.cpu_per_event for run in table.runs(scenario.name, name)))
            for name, server in SERVERS.items()
            if table.runs(scenario.name, name)
        ]
        if bars:
            found.append((scenario.title, bars))
    return found


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    server, title, value = bar
    return [
        _text(LEFT - 8, y + 14, title, "end"),
        f'<rect x="{LEFT}" y="{y + 3}" width="{value * scale:.1f}" height="{ROW - 6}" fill="{COLOURS[server]}"/>',
        _text(LEFT + value * scale + 6, y + 14, f"{value:.1f} µs", "start"),
    ]


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#7a7a7a">{escape(text)}</text>'
    )
