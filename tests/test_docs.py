"""README.md and docs/ tell the truth: their console blocks run, their links lead somewhere, and nothing is left out.

A block of the language `console` is run, a block of the language `sh` is only shown (make, installing, other machines):

    ```console
    $ fastpixel serve &
    listening on http://127.0.0.1:8080
    $ curl -si 'http://127.0.0.1:8080/e?_k=key&_p=jane&_n=signup'
    HTTP/1.1 200 OK
    ... image/gif
    $ fastpixel export | grep no-such-event
    [exit 1]
    ```

A line that starts with `$ ` is a command for bash, continued by a backslash. The lines below it must stand in its
output (both streams) in this order; `...` in one stands for anything. It must end with 0, or as `[exit N]` says; with
` &` it goes on, and its lines are waited for. All blocks of a file run in order in one empty directory, in which a
block of the language `toml` that starts with `# NAME.toml` is that file. PORTS are replaced by free ones, in what is
run and in what is expected. Tables between code and pages: see the end of this file.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from service import free_ports

from fastpixel import _core, dialect, event, metrics, tables
from fastpixel.config import BUILTIN_PROTOCOLS, SETTINGS, markdown
from fastpixel.dialects import BUILTIN
from fastpixel.spool import check

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
FENCED = re.compile(r"^```(console|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([a-z-]+\.toml)\n")
PORTS = ("8080", "8081", "9080")
PATIENCE = 30  # seconds, for what goes on in the background


class Step(NamedTuple):
    command: str
    expected: list[str]
    ends: int
    stays: bool


def steps_of(text):
    """The commands of a page's console blocks with what is expected of each."""
    for language, block in FENCED.findall(text):
        if language == "toml":
            continue
        before, *parts = re.split(r"^\$ ", block.replace("\\\n", "\\\0"), flags=re.MULTILINE)
        assert not before.strip(), f"a console block starts with a command, not with {before!r}"
        for part in parts:
            command, *lines = part.strip("\n").split("\n")
            ends = [int(line[6:-1]) for line in lines if re.fullmatch(r"\[exit \d+\]", line)]
            expected = [line for line in lines if line.strip() and not re.fullmatch(r"\[exit \d+\]", line)]
            stays = command.endswith(" &")
            yield Step(command.removesuffix(" &").replace("\\\0", "\\\n"), expected, (ends or [0])[0], stays)


def missing_line(output, expected):
    """The first expected line that does not stand in the output below the one before it; None if all do."""
    position = 0
    for line in expected:
        found = re.compile(".*?".join(map(re.escape, line.strip().split("...")))).search(output, position)
        if found is None:
            return line
        position = found.end()
    return None


@contextmanager
def background(command, output, **options):
    with output.open("wb") as file:
        process = subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=file, stderr=file, **options)
    try:
        yield process
    finally:
        end(process)


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()  # does nothing to one that ended


def wait_for(process, output, expected):
    until = time.monotonic() + PATIENCE
    while (line := missing_line(output.read_text(), expected)) is not None:
        assert process.poll() is None, f"it ended with {process.returncode}: {output.read_text()}"
        assert time.monotonic() < until, f"no {line!r} in: {output.read_text()}"
        time.sleep(0.02)


def run_page(text, directory):
    """Runs a page's blocks; returns how many commands there were."""
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    text = re.sub("|".join(PORTS), lambda found: ports[found[0]], text)
    write_files(text, directory)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FASTPIXEL_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FASTPIXEL_BIND": f"127.0.0.1:{ports['8080']}",
        "FASTPIXEL_ADMIN_BIND": f"127.0.0.1:{ports['8081']}",
        "COLUMNS": "120",
    }
    return run_steps(list(steps_of(text)), {"cwd": directory, "env": environment})


def write_files(text, directory):
    for language, block in FENCED.findall(text):
        if language == "toml":
            (directory / FILE.match(block)[1]).write_text(block)


def run_steps(steps, options):
    for number, step in enumerate(steps):
        if step.stays:
            output = options["cwd"] / f".output-{number}"
            with background(step.command, output, **options) as process:
                wait_for(process, output, step.expected)
                return number + 1 + run_steps(steps[number + 1 :], options)
        ran = subprocess.run(
            ["bash", "-c", step.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            **options,
        )
        assert ran.returncode == step.ends, f"{step.command} ended with {ran.returncode}: {ran.stdout}"
        line = missing_line(ran.stdout, step.expected)
        assert line is None, f"{step.command}: no {line!r} in: {ran.stdout}"
    return len(steps)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```console" in page.read_text()], ids=lambda page: page.name
)
def test_what_a_page_shows_happens(page, tmp_path):
    assert run_page(page.read_text(), tmp_path) > 0


def test_the_readme_is_among_them():
    assert "```console" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


# -- nothing is left out ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything_written():
    return "\n".join(page.read_text() for page in PAGES)


@pytest.mark.parametrize("reason", _core.REASONS)
def test_every_reason_is_explained(everything_written, reason):
    assert f"`{reason}`" in everything_written


@pytest.mark.parametrize("protocol", BUILTIN_PROTOCOLS)
def test_every_protocol_is_in_the_readme_and_in_a_page(everything_written, protocol):
    assert protocol in (ROOT / "README.md").read_text().lower()
    assert f"`{protocol}`" in everything_written


def test_every_command_is_shown(everything_written):
    program = Path(sys.executable).with_name("fastpixel")
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    commands = re.findall(r"^  ([a-z]+)(?:  |$)", shown.stdout.partition("Commands:")[2], re.MULTILINE)
    assert "serve" in commands
    assert not [name for name in commands if f"fastpixel {name}" not in everything_written]


def assert_rows(page, rows):
    """The table of a page that is written by hand has exactly these rows, one after the other."""
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    assert f"|\n{text}\n\n" in (ROOT / page).read_text() + "\n", f"{page} must have this table:\n{text}"


def test_the_tables_of_the_pages_are_those_of_the_code():
    fields = [(f"`{f.name}`", f.type, "server" if f.server_owned else "client", f.doc) for f in event.FIELDS]
    assert_rows("docs/protocols.md", fields)
    assert_rows("docs/protocols.md", [(f"`{name}`", doc) for name, doc in dialect.KINDS.items()])
    assert_rows("docs/protocols.md", [(f"`{name}`", doc) for name, doc in dialect.REASON_DOCS.items()])
    assert_rows("docs/durability.md", [(f"`{name}`", doc) for name, doc in check.KINDS.items()])


def test_every_metric_is_in_its_table():
    counts = metrics.Counts(metrics.Page.create(1))
    counts.begin([0], ["one"])
    counts.serve([0])
    families = metrics.Collector(counts).collect()
    rows = [(f"`{f.name}{'_total' if f.type == 'counter' else ''}`", f.type, f.documentation) for f in families]
    assert_rows("docs/operations.md", rows)


def test_generated_pages_are_fresh():
    assert (ROOT / "docs/dialects/README.md").read_text() == tables.as_index(BUILTIN), "run: make docs"
    assert (ROOT / "docs/configuration.md").read_text() == markdown(), "run: make docs"


@pytest.mark.parametrize("found", BUILTIN, ids=lambda found: found.name)
def test_every_dialect_has_its_page(found):
    """Generated from its rows, and below that the differences from the vendor, which a person has to write."""
    page = (ROOT / f"docs/dialects/{found.name}.md").read_text()
    assert page == tables.as_page(found, page), "run: make docs"
    by_hand = page.partition(tables.END)[2].removeprefix(f"\n\n{tables.BY_HAND}\n\n")
    assert len(by_hand.split()) > 50, f"write how docs/dialects/{found.name}.md differs from the vendor"


def test_no_page_is_left_of_a_dialect_that_is_gone():
    pages = {path.stem for path in (ROOT / "docs/dialects").iterdir()}
    assert pages == {"README", *(found.name for found in BUILTIN)}


def test_settings_of_a_page_exist():
    named = re.findall(r"`([a-z]+_[a-z_]+)`", (ROOT / "docs/operations.md").read_text())
    known = {setting.name for setting in SETTINGS} | {row.name.lower() for row in event.FIELDS}
    others = {name for name in named if name.startswith("fastpixel_")}
    assert not set(named) - known - others - set(_core.REASONS)


# -- the runner itself ------------------------------------------------------------------------------------------------


def page_of(*lines):
    return "\n".join(["text", "```console", *lines, "```", "```sh", "exit 9", "```", ""])


GOOD = [
    ["$ echo one; echo two", "one", "two"],
    ["$ echo a long line", "a ... line", "$ true"],
    ["$ printf '%s' \\", "  joined", "joined"],
    ["$ sh -c 'exit 3'", "[exit 3]"],
    ["$ touch file", "$ ls", "file"],
    ["$ echo to the other stream >&2", "other stream"],
    ["$ sh -c 'echo ready; sleep 60' &", "ready", "$ echo on", "on"],
    [f"$ {sys.executable} -m http.server --bind 127.0.0.1 8080 &", "$ echo $FASTPIXEL_BIND", "127.0.0.1:8080"],
]
BAD = [
    ["$ echo one", "two"],
    ["$ echo one; echo two", "two", "one"],
    ["$ false"],
    ["$ true", "[exit 1]"],
    ["$ sh -c 'echo no; exit 1' &", "ready"],
    ["output before any command", "$ true"],
]


@pytest.mark.parametrize("lines", GOOD, ids=str)
def test_the_runner_takes(lines, tmp_path):
    assert run_page(page_of(*lines), tmp_path) == sum(line.startswith("$ ") for line in lines)


@pytest.mark.parametrize("lines", BAD, ids=str)
def test_the_runner_refuses(lines, tmp_path):
    with pytest.raises(AssertionError):
        run_page(page_of(*lines), tmp_path)


def test_a_background_program_is_gone_afterwards(tmp_path):
    run_page(page_of("$ sh -c 'echo $$ > pid; echo up; exec sleep 60' &", "up"), tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
