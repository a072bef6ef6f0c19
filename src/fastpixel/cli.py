"""The command line. Data goes to standard output, everything else to standard error.

Exit codes: 0 done; 1 an error, said in one line; 2 wrong usage; 130 Ctrl-C. A reader that closes the pipe ends a
command quietly. Flags of `serve` are the rows of config.SETTINGS; nothing is declared here twice. A command's work is
done elsewhere: here is only how it is asked for and shown.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from fastpixel import __version__, config
from fastpixel._core import REASONS
from fastpixel.config import SETTINGS, Config, Setting
from fastpixel.errors import FastpixelError

if TYPE_CHECKING:
    from fastpixel.explain import Explanation
    from fastpixel.export import Query

Command = TypeVar("Command", bound=Callable[..., Any])


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    try:
        return int(group.main(arguments, "fastpixel", standalone_mode=False) or 0)
    except click.UsageError as error:
        error.show()
        return 2
    except (BrokenPipeError, SystemExit):  # the latter is what click makes of a closed pipe, and of nothing else here
        return _hush()
    except (FastpixelError, OSError) as error:
        return _fail(error)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        error.show()
        return 1


def _hush() -> int:
    """Nobody reads any more; the interpreter must not try to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(error: FastpixelError | OSError) -> int:
    click.echo(f"fastpixel: {error}", err=True)
    return 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="fastpixel %(version)s")
def group() -> None:
    """A drop-in edge collector for tracking pixels: every event is on disk before it is answered."""


def _common(command: Command) -> Command:
    """The options that every command has."""
    file = click.option("--config", "config_file", metavar="FILE", help="TOML file [env: FASTPIXEL_CONFIG].")
    directory = click.option("--data-dir", metavar="DIR", help="Where events are stored [default: ./fastpixel-data].")
    return file(directory(command))


def _load(config_file: str | None, **flags: Any) -> Config:
    return config.load(config_file, os.environ, flags, REASONS)


def _is_flag(setting: Setting) -> bool:
    return setting.row.kind.table is None and setting.name not in ("data_dir", "paths")


def _settings_flags(command: Command) -> Command:
    for setting in reversed([setting for setting in SETTINGS if _is_flag(setting)]):
        kind = setting.row.kind
        choices = click.Choice([str(choice) for choice in kind.choices]) if kind.choices and not kind.many else None
        command = click.option(
            setting.flag,
            setting.param,
            multiple=kind.many,
            type=choices,
            metavar=None if choices else kind.name.upper(),
            help=setting.help,
        )(command)
    return command


@group.command()
@_common
@_settings_flags
def serve(config_file: str | None, **flags: Any) -> int:
    """Run the collector. Without a configuration: 127.0.0.1:8080, data in ./fastpixel-data."""
    from fastpixel.supervisor import serve as run

    def read() -> Config:
        return _load(config_file, **flags)

    return run(read(), read)


@group.command()
@_common
@click.option("--format", "form", type=click.Choice(["ndjson"]), default="ndjson", help="One JSON object a line.")
@click.option("--output", metavar="PATH", default="-", help="A file, or - for standard output.")
@click.option("--since", metavar="TIME", help="From this receivedAt on: RFC 3339, or 2h for the last two hours.")
@click.option("--until", metavar="TIME", help="Before this receivedAt.")
@click.option("--protocol", "protocols", multiple=True, metavar="NAME", help="Only this protocol (repeatable).")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source (repeatable).")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type of event (repeatable).")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many; 0: all.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; from now on, unless --since is given.")
@click.option("--rejects", is_flag=True, help="What was refused, instead of events.")
def export(
    *,
    config_file: str | None,
    data_dir: str | None,
    form: str,
    output: str,
    since: str | None,
    until: str | None,
    protocols: tuple[str, ...],
    sources: tuple[str, ...],
    types: tuple[str, ...],
    limit: int,
    follow: bool,
    rejects: bool,
) -> None:
    """Write stored events as NDJSON.

    Merged by receivedAt; with --follow in order per slot.
    """
    from fastpixel import export as exporting

    query = exporting.Query(
        database="rejects" if rejects else "events",
        since_ns=exporting.moment(since) if since else None,
        until_ns=exporting.moment(until) if until else None,
        limit=limit,
        filters=(("protocol", protocols), ("source", sources), ("type", types)),
    )
    settings = _load(config_file, data_dir=data_dir)
    with _output(output, grows=follow) as out:
        exporting.run(settings.data_dir, query, out, follow=follow)


@contextlib.contextmanager
def _output(path: str, grows: bool) -> Iterator[BinaryIO]:
    """Standard output, or a file: one that grows, or one that appears under its name only when it is whole."""
    if path == "-":
        yield sys.stdout.buffer
        return
    target = Path(path)
    if grows or (target.exists() and not target.is_file()):  # a pipe or a device cannot be renamed over
        with target.open("wb") as out:
            yield out
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            yield out
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@group.command()
@_common
@click.option("--retry", is_flag=True, help="Send them through the configuration as it is now, and store its events.")
@click.option("--reason", "reasons", multiple=True, type=click.Choice(REASONS), metavar="REASON", help="Only these.")
@click.option("--protocol", "protocols", multiple=True, metavar="NAME", help="Only this protocol (repeatable).")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Only this write key (repeatable).")
@click.option("--since", metavar="TIME", help="From this receivedAt on: RFC 3339, or 2h for the last two hours.")
@click.option("--until", metavar="TIME", help="Before this receivedAt.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many, the oldest; 0: all.")
@click.option("--all", "everything", is_flag=True, help="List those too that a retry has stored.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line with everything that is kept.")
def rejects(
    *,
    config_file: str | None,
    data_dir: str | None,
    retry: bool,
    reasons: tuple[str, ...],
    protocols: tuple[str, ...],
    keys: tuple[str, ...],
    since: str | None,
    until: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """List refused events, or retry them.

    A retry stores what the configuration accepts now, with its old receivedAt: what had an unknown key, a disabled
    source, a wrong origin or came too fast. It may run beside serve, and never stores a reject twice.
    """
    from fastpixel import export as exporting

    query = exporting.Query(
        database="rejects",
        since_ns=exporting.moment(since) if since else None,
        until_ns=exporting.moment(until) if until else None,
        limit=limit,
        filters=(("reason", reasons), ("protocol", protocols), ("writeKey", keys)),
    )
    settings = _load(config_file, data_dir=data_dir)
    if retry:
        _retry(settings, query, as_json)
    else:
        _list_rejects(settings.data_dir, query, everything, as_json)


def _list_rejects(directory: Path, query: Query, everything: bool, as_json: bool) -> None:
    from fastpixel.rejects import Listing, listed

    found = Listing(directory, query, everything=everything)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for reject in found:
        sys.stdout.buffer.write(found.json(reject) if as_json else f"{reject.line()[:width]}\n".encode())
    sys.stdout.flush()  # so that a pipe which is closed is noticed here
    left_out = f"; {found.stored_since} stored by a retry are left out (--all)" if found.stored_since else ""
    by_reason = f" ({listed(found.reasons)})" if found.reasons else ""
    click.echo(f"{found.reasons.total()} rejects{by_reason}{left_out}", err=True)


def _retry(settings: Config, query: Query, as_json: bool) -> None:
    from fastpixel.rejects import Retry

    with _progress("retrying") as progress:
        done = Retry(settings, query, progress).run()
    if as_json:
        fields = {"tried": done.tried, "stored": done.stored, "refused": done.refused, "notRetryable": done.hopeless}
        click.echo(json.dumps(fields))
    else:
        click.echo(done)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A counter for whoever waits at a terminal for longer than a second."""
    shown = time.monotonic() + 1 if sys.stderr.isatty() else math.inf
    used = False

    def count(number: int) -> None:
        nonlocal shown, used
        if time.monotonic() >= shown:
            click.echo(f"\r{what}: {number:,}", nl=False, err=True)
            shown, used = time.monotonic() + 0.2, True

    try:
        yield count
    finally:
        if used:
            click.echo("\r\x1b[K", nl=False, err=True)


@group.command()
@_common
@click.argument("url")
@click.option("--method", "-X", default=None, help="GET, or POST with a body.")
@click.option("--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header (repeatable).")
@click.option("--body", "-d", default=None, metavar="TEXT", help="The body; @FILE reads a file.")
@click.option("--ip", default="127.0.0.1", show_default=True, help="The client's address.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def explain(
    *,
    config_file: str | None,
    data_dir: str | None,
    url: str,
    method: str | None,
    headers: tuple[str, ...],
    body: str | None,
    ip: str,
    as_json: bool,
) -> None:
    """Say what a request would be answered.

    And what would be stored, or why it would be refused. Nothing is stored.
    """
    from fastpixel.explain import explain as ask

    data = b"" if body is None else Path(body[1:]).read_bytes() if body.startswith("@") else os.fsencode(body)
    found = ask(
        _load(config_file, data_dir=data_dir),
        url,
        method=(method or ("POST" if body is not None else "GET")).upper(),
        headers=headers,
        body=data,
        ip=ip,
    )
    if as_json:
        records = [json.loads(line) for line in found.records.splitlines()]
        fields = {"status": found.status, "headers": found.headers, "reason": found.reason or None, "records": records}
        click.echo(json.dumps(fields, indent=2, ensure_ascii=False))
        return
    _show(found)


def _show(found: Explanation) -> None:
    from fastpixel.dialect import REASON_DOCS

    image = f"({len(found.body)} bytes GIF)"
    body = image if found.body.startswith(b"GIF89a") else found.body.decode("utf-8", "replace").strip()
    click.echo(f"answer: {found.status} {body}")
    if found.reason:
        click.echo(f"stored: nothing ({found.reason}: {REASON_DOCS[found.reason]})")
    elif not found.records:
        click.echo("stored: nothing (no protocol answers this method and path)")
    for line in found.records.splitlines():
        click.echo("stored: " + json.dumps(json.loads(line), indent=2, ensure_ascii=False))


@group.command()
@_common
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def dialects(config_file: str | None, data_dir: str | None, as_json: bool) -> None:
    """Print every dialect.

    Its requests, their parameters, and where each is stored.
    """
    from fastpixel import dialects as loading
    from fastpixel import tables

    found = loading.load(_load(config_file, data_dir=data_dir))
    click.echo(tables.as_json(found) if as_json else tables.as_text(found))


@group.command()
@_common
@click.option("--repair", is_flag=True, help="Seal, rename or salvage what can be.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def check(config_file: str | None, data_dir: str | None, repair: bool, as_json: bool) -> int:
    """Verify the stored segments. Exit code 1 if something is wrong and stays wrong."""
    from fastpixel.spool.check import check as run

    directory = _load(config_file, data_dir=data_dir).data_dir
    findings = run(directory, repair)
    if as_json:
        click.echo(json.dumps([{**finding._asdict(), "path": str(finding.path)} for finding in findings], indent=2))
    else:
        for finding in findings:
            mended = f" ({finding.repaired})" if finding.repaired else ""
            click.echo(f"{finding.path}: {finding.kind}: {finding.detail}{mended}")
        click.echo(f"{directory}: {len(findings)} findings", err=True)
    return int(any(not finding.repaired for finding in findings))


@group.command("config")
@_common
@click.option("--check", "only_check", is_flag=True, help="Print nothing; exit code 1 if it cannot be used.")
@_settings_flags
def show_config(config_file: str | None, only_check: bool, **flags: Any) -> None:
    """Print the settings in force.

    As TOML: defaults, file, environment and flags together.
    """
    from fastpixel import dialects as loading
    from fastpixel import sockets

    settings = _load(config_file, **flags)
    loading.plan(settings)
    sockets.tls(settings.tls_cert, settings.tls_key)
    for notice in loading.notices(settings):
        click.echo(f"fastpixel: warning: {notice}", err=True)
    if not only_check:
        click.echo(config.render(settings), nl=False)


@group.command()
@click.argument("path", default="fastpixel.toml")
def init(path: str) -> None:
    """Write a commented configuration file.

    It has every setting with its default; without PATH it is fastpixel.toml.
    """
    target = Path(path)
    try:
        with target.open("x") as out:
            out.write(config.template())
    except FileExistsError:
        raise FastpixelError(f"{target} exists and is left as it is; name another file") from None
    click.echo(f"wrote {target}; start with: fastpixel serve --config {target}", err=True)
