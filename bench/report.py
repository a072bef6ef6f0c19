"""Results -> Markdown. Pure: the same results give the same text. A cell: median (least..greatest)."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median, quantiles

from bench.results import Measurement, Memory, Results, Spread
from bench.scenarios import BY_NAME, LATENCY, MEMORY, SCENARIOS, SERVERS_ON, SHARES
from bench.servers import SERVERS
from bench.targets import judge

COLUMNS = (
    "server", "CPU µs/event", "x nginx+log", "x floor", "events per CPU s", "events/s", "p50 ms", "p99 ms",
    "answer bytes",
)  # fmt: skip
PLACES = {1: "The server on one core, the loader on the other", 2: "Server and loader on both cores, nothing pinned"}
BUSY = 0.1  # of a core beside server and loader: more than this is named
NAMED = 5  # such runs are named one by one


def targets(results: Results, *, measured: bool = False) -> str:
    """All of them, or those that were measured."""
    rows = [row.cells() for row in judge(results) if row.value is not None or not measured]
    return _markdown(("", "target", "limit", "measured", "verdict"), rows)


def tables(results: Results) -> str:
    """Everything that was measured, in the order of the document; what was not leaves no heading."""
    parts = [_closed(results, cores) for cores in SERVERS_ON]
    parts += [_latency(results), _memory(results), _decode(results)]
    return "\n\n".join(part for part in parts if part)


# ---- closed loop ----


def _closed(results: Results, cores: int) -> str:
    parts = [_scenario(results, scenario.name, cores) for scenario in SCENARIOS]
    found = [part for part in parts if part]
    return "\n\n".join([f"## CPU per event: {PLACES[cores].lower()}", *found]) if found else ""


def _scenario(results: Results, scenario: str, cores: int) -> str:
    rows = [row for name in SERVERS_ON[cores] if (row := _row(results, scenario, name, cores))]
    return f"### {BY_NAME[scenario].title} (`{scenario}`)\n\n{_markdown(COLUMNS, rows)}" if rows else ""


def _row(results: Results, scenario: str, server: str, cores: int) -> list[str] | None:
    runs = results.of(scenario, server, cores)
    if not runs:
        why = results.why_missing(scenario, server, cores)
        return why and [SERVERS[server].title, why, *["-"] * (len(COLUMNS) - 2)]
    return [
        SERVERS[server].title,
        Spread.of(run.cpu_per_event for run in runs).text(),
        *(_ratio_text(results, scenario, server, against, cores) for against in ("nginx", "floor")),
        f"{1e6 / median(run.cpu_per_event for run in runs):,.0f}",
        Spread.of(run.rate for run in runs).text(0),
        Spread.of(run.p50_us / 1000 for run in runs).text(),
        Spread.of(run.p99_us / 1000 for run in runs).text(),
        f"{runs[0].bytes / runs[0].requests:.0f}",
    ]


def _ratio_text(results: Results, scenario: str, server: str, against: str, cores: int) -> str:
    ratio = results.ratio(scenario, server, against, cores)
    return "-" if ratio is None or server == against else ratio.text()


# ---- open loop ----


def _latency(results: Results) -> str:
    rows = [row for name in LATENCY for share in SHARES if (row := _rate_row(results, name, share))]
    if not rows:
        return ""
    head = ("server", "connections", "load", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "due but not sent")
    return f"## Latency at fixed rates\n\n{_markdown(head, rows)}\n\n{_commits(results)}".rstrip()


def _rate_row(results: Results, server: str, share: int) -> list[str] | None:
    runs = results.of(f"rate{share}", server)
    if not runs:
        return None
    return [
        SERVERS[server].title,
        str(BY_NAME[LATENCY[server]].connections),
        f"{share} %",
        f"{median(run.rate for run in runs):,.0f}",
        *(Spread.of(getattr(run, name) / 1000 for run in runs).text() for name in ("p50_us", "p99_us", "p999_us")),
        f"{sum(run.unsent for run in runs):,}",
    ]


def _commits(results: Results) -> str:
    times = results.commit_us()
    if not times:
        return ""
    middle, high = median(times) / 1000, quantiles(times, n=100)[98] / 1000
    size = median(probe.value_bytes for probe in results.commits)
    return (
        f"One durable LMDB commit of one value of {size:,.0f} bytes, the average batch of the 50 % run, took "
        f"{middle:.2f} ms (median of {len(times)} on the same filesystem in the same run; p99 {high:.2f} ms). "
        f"The target uses the median, the strict figure: {2 * middle + 1:.2f} ms; with the p99 it would be "
        f"{2 * high + 1:.2f} ms."
    )


# ---- memory and decode ----


def _memory(results: Results) -> str:
    rows = [_memory_row(results, name, found) for name in MEMORY if (found := _of(results.memory, name))]
    if not rows:
        return ""
    head = ("server", "at start MiB", "after load MiB", "idle connections", "KiB a connection",
            "CPU/event of 64 beside them", "p99 of 64 beside them")  # fmt: skip
    return f"## Memory (RssAnon of the worker) and idle connections\n\n{_markdown(head, rows)}"


def _of(rows: Iterable[Memory], server: str) -> list[Memory]:
    return [row for row in rows if row.server == server]


def _memory_row(results: Results, server: str, found: Sequence[Memory]) -> list[str]:
    cpu = results.beside_idle(lambda run: run.cpu_per_event, server)
    p99 = results.beside_idle(lambda run: run.p99_us, server)
    return [
        SERVERS[server].title,
        Spread.of(row.start / 1024**2 for row in found).text(1),
        Spread.of(row.loaded / 1024**2 for row in found).text(1),
        f"{min(row.connections for row in found):,}",
        Spread.of(row.per_connection / 1024 for row in found).text(),
        *(f"x {spread.text()}" if spread else "-" for spread in (cpu, p99)),
    ]


def _decode(results: Results) -> str:
    if not results.decode:
        why = results.why_missing("decode", "commit")
        return f"## Decoding one request, in process\n\nNot measured: {why}." if why else ""
    core, plain, copy = (
        Spread.of(getattr(row, name) for row in results.decode) for name in ("core_ns", "plain_ns", "copy_ns")
    )
    rows = [
        ["the core: request to record", core.text(0), "1.0"],
        [
            "`parse_qsl`, nested dict, `msgpack.packb`: query to tree",
            plain.text(0),
            f"{plain.middle / core.middle:.1f}",
        ],
        ["`memcpy` of the request's bytes", copy.text(0), f"{copy.middle / core.middle:.3f}"],
    ]
    return f"## Decoding one request, in process\n\n{_markdown(('', 'ns', 'x core'), rows)}"


# ---- the document ----


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 2), "---"]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def quiet(runs: Sequence[Measurement]) -> str:
    """How quiet the machine was, and which runs were not."""
    used = Spread.of(run.others for run in runs)
    steal = max(run.steal_us / run.seconds / 1e6 for run in runs)
    loud = [f"{run.name} in round {run.round} ({run.others:.2f})" for run in _loud(runs)]
    named = ": " + ", ".join(loud[:NAMED]) + (", ..." if loud[NAMED:] else "") if loud else ""
    return (
        f"beside server and loader {used.middle:.2f} of a core was busy, kernel threads included (median; "
        f"{used.high:.2f} at most); the hypervisor took {steal:.2f} at most. More than {BUSY:g} of a core was busy "
        f"in {len(loud)} of {len(runs)} runs{named}"
    )


def _loud(runs: Sequence[Measurement]) -> list[Measurement]:
    return [run for run in runs if run.others > BUSY]


def warning(results: Results) -> str:
    """Empty when the machine was quiet: one run in ten may be disturbed, its median is not."""
    if len(_loud(results.runs)) * 10 <= len(results.runs):
        return ""
    return "**The machine was busy with something else during these runs: do not quote them, measure again.**"


def missing(results: Results) -> str:
    if not results.missing:
        return "Every run counts."
    lines = [f"- {row.scenario}/{row.server}/{row.cores}: {row.why}" for row in results.missing]
    return "Without a number, or with fewer rounds:\n\n" + "\n".join(lines)


METHOD = """\
- Every server gets the same bytes: `bench/pixel.http`, a 15-parameter RudderStack pixel with a browser's
  headers, in which each request has its own number. Loopback only. `bench/tracardi.http` and
  `bench/rudder_batch.http` have 30 events each with their own numbers; nothing else here reads these, so their
  targets are numbers, not ratios. CPU and rates are always those of one event, p50 and p99 those of one request.
- On one core: {placement}
- {rounds} interleaved rounds in rotated order, each run with a fresh process and an empty directory:
  {warmup:g} s of warm-up, then a window of {seconds:g} s. What no target reads is measured in fewer rounds.
- CPU per event: user + system time of the server's whole process tree over the window (the kernel's process
  clocks, read by the loader at both ends), divided by the answers of the window. Kernel threads (disk
  write-back) belong to nobody's tree. "Events per CPU s" is its inverse.
- Cells are medians with (least..greatest); ratios are made within a round. In the tables of CPU per event p50
  and p99 are those of a closed loop at full load: as many requests as fit are always waiting, so they follow
  the rate.
- Latency at fixed rates is an open loop: requests become due on a timetable, and count from the time at which
  they were due, those that could not be sent included. Full load is what the same process answered just before.
- Memory: 64 connections are loaded alone, then beside the idle ones (each has made one request), then alone
  again; the ratios are to the mean of before and after.
- Every answer is read and must have status 200, the right length (of the GIF, or the JSON API's answer) and no
  `X-Fastpixel: dropped`. After each run everything answered
  is looked for: `fastpixel export`, or nginx's access log, must hold every number exactly once, or the run is
  void and named above.
- The loader costs about as much CPU as the floor, and more where connections are made: there the server waits
  for it, and events/s is the loader's limit. CPU per event is the measure.
- nginx: 1 worker, `bench/nginx.conf`. The floor: `bench/floor.c` counts CRLFCRLF and writes a ready answer. The
  Python servers: one process, no access log, no framework, `bench/constant.py`. fastpixel: one worker unless
  said, its defaults but for `max_connections`.
"""


def document(results: Results, facts: Mapping[str, str], plan: Mapping[str, object]) -> str:
    """RESULTS.md. `plan` has `command`, `placement`, `rounds`, `warmup`, `seconds`, `date`."""
    machine = "\n".join(f"- {name}: {text}" for name, text in facts.items())
    does = "\n".join(f"- {server.title}: {server.does}" for server in SERVERS.values())
    return f"""\
# Benchmark results

Written by `{plan["command"]}` on {plan["date"]}; run it again to measure this machine.

## Targets

{targets(results)}

{warning(results)}

![CPU per event](results.svg)

{does}

![CPU per event in every scenario](scenarios.svg)

![Latency at fixed rates](latency.svg)

{tables(results)}

## Machine and versions

{machine}
- quiet: {quiet(results.runs)}

{missing(results)}

## Method

{METHOD.format_map(plan)}""".replace("\n\n\n\n", "\n\n")
