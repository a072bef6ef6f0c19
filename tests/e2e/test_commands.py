"""The command line as a shell sees it: exit codes, what is on which stream, closed pipes, Ctrl-C.

Every run goes through `run`, which holds for all commands: no traceback ever, and an error is one line.
"""

import json
import os
import signal
import subprocess

import pytest
from service import PATIENCE, PROGRAM, Log, Service, await_true, command, environment, export
from wire import request

from fastpixel.config import BUILTIN_PROTOCOLS

EVENT = "/e?_k=k&_p=p&_n=%s"
MANY = 3000
COMMANDS = ["serve", "export", "rejects", "explain", "dialects", "check", "config", "init"]


def run(*arguments, **options):
    code, out, err = command(*arguments, **options)
    assert "Traceback" not in err and "Traceback" not in out, err
    if code == 1 and arguments[0] != "check":
        assert out == "" and len(err.splitlines()) == 1 and err.startswith("fastpixel: "), err
    return code, out, err


def fails(*arguments, **options):
    """The one line of an error, without the program's name."""
    code, _, err = run(*arguments, **options)
    assert code == 1, (code, err)
    return err.removeprefix("fastpixel: ").rstrip("\n")


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    """A data directory with two protocols, four types and two rejects, and many events of another key."""
    directory = tmp_path_factory.mktemp("spool") / "data"
    with Service(directory) as service, service.connect() as client:
        for path in ("/e?_k=k&_p=p&_n=one", "/s?_k=k&_p=p&plan=pro", "/a?_k=k&_p=p&_n=q"):
            assert client.ask(path).is_stored
        assert client.ask("/pixel/v1/page?writeKey=k&anonymousId=a&name=Home", "Accept: image/*").is_stored
        assert client.ask("/e?_k=k&_n=nobody").reason == "missing_person"
        assert client.ask("/e?_p=p&_n=n").reason == "missing_key"
        service.await_metric("fastpixel_rejects_kept_total", 2)
    return directory


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """More than a pipe holds."""
    directory = tmp_path_factory.mktemp("large") / "data"
    with Service(directory, "--durability", "commit") as service, service.connect() as client:
        for start in range(0, MANY, 100):
            client.send(b"".join(_pipelined(start, 100)))
            assert all(client.answer().is_stored for _ in range(100))
    return directory


def _pipelined(start, count):
    return [request(EVENT % f"n{number}") for number in range(start, start + count)]


# -- what holds for every command


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: fastpixel {name}")


def test_help_and_version():
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in COMMANDS)
    assert run("--version")[1].startswith("fastpixel ")


@pytest.mark.parametrize(
    "arguments",
    [["--nothing"], ["nothing"], ["export", "--nothing"], ["export", "--limit", "x"], ["explain"], ["serve", "extra"]],
)
def test_wrong_usage_is_2(arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_serve_names_every_setting_in_its_help():
    from fastpixel.config import SETTINGS

    said = run("serve", "--help")[1]
    flags = [setting.flag for setting in SETTINGS if setting.row.kind.table is None and setting.name != "paths"]
    assert [flag for flag in flags if flag not in said] == []


@pytest.mark.parametrize("name", ["export", "rejects", "check", "config", "dialects", "serve"])
def test_a_wrong_setting_is_one_line_that_names_the_nearest_right_one(name, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('durabilty = "fsync"\n')
    said = fails(name, "--config", file)
    assert str(file) in said and "durabilty" in said and "durability" in said


@pytest.mark.parametrize("name", ["export", "rejects", "check", "config", "dialects", "serve"])
def test_a_missing_file_is_one_line(name, tmp_path):
    assert "none.toml" in fails(name, "--config", tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["export", "rejects", "check"])
def test_a_directory_that_is_no_spool_is_one_line(name, tmp_path):
    assert str(tmp_path) in fails(name, "--data-dir", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    code, out, _ = run(name, "--data-dir", tmp_path / "empty")
    assert code == 1 and (name == "check" or out == "")


# -- serve


def test_serve_in_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in fails("serve", "--bind", "127.0.0.1:0", "--data-dir", tmp_path / "file")


@pytest.mark.parametrize("bind", ["127.0.0.1:notaport", "nowhere.invalid:1", "203.0.113.1:1", "unix:/nowhere/s"])
def test_serve_on_an_address_that_cannot_be(bind, tmp_path):
    said = fails("serve", "--bind", bind, "--admin-bind", "off", "--data-dir", tmp_path / "data")
    assert bind in said


# -- export


def test_export_is_ndjson_in_order_of_receipt(spool):
    records = export(spool)
    assert [record["type"] for record in records] == ["track", "identify", "alias", "page"]
    times = [record["receivedAt"] for record in records]
    assert times == sorted(times)
    assert [record["seq"].split("-")[1:] for record in records] == [["0", str(n)] for n in range(1, 5)]


@pytest.mark.parametrize(
    ("flags", "types"),
    [
        (["--protocol", "kissmetrics"], ["track", "identify", "alias"]),
        (["--protocol", "rudderstack", "--protocol", "kissmetrics"], ["track", "identify", "alias", "page"]),
        (["--type", "page"], ["page"]),
        (["--type", "page", "--type", "alias"], ["alias", "page"]),
        (["--type", "page", "--protocol", "kissmetrics"], []),
        (["--source", "shop"], []),
        (["--limit", "2"], ["track", "identify"]),
        (["--limit", "1", "--type", "alias"], ["alias"]),
        (["--limit", "0"], ["track", "identify", "alias", "page"]),
        (["--since", "1h"], ["track", "identify", "alias", "page"]),
        (["--until", "1h"], []),
        (["--since", "2100-01-01T00:00:00Z"], []),
        (["--until", "2100-01-01"], ["track", "identify", "alias", "page"]),
        (["--since", "0001-01-01T00:00:00Z", "--until", "9999-12-31T23:59:59Z", "--limit", "1"], ["track"]),
    ],
)
def test_export_leaves_out_what_is_not_asked_for(flags, types, spool):
    assert [record["type"] for record in export(spool, *flags)] == types


def test_since_is_inclusive_and_until_is_not(spool):
    records = export(spool)
    moments = [record["receivedAt"] for record in records]
    since = export(spool, "--since", moments[2])
    until = export(spool, "--until", moments[2])
    assert len(since) + len(until) == 4
    assert {record["seq"] for record in since} & {record["seq"] for record in until} == set()
    assert records[2] in since or moments[2] == moments[1]


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1.2.3h", "..h", "-1h", "99999999999999999999w", ""])
def test_a_time_that_is_none_is_one_line(text, spool):
    code, _out, err = run("export", "--data-dir", spool, f"--since={text}")
    if text:
        assert code == 1 and text in err
    else:
        assert code in (0, 1, 2)


def test_export_to_a_file(spool, tmp_path):
    target = tmp_path / "out.ndjson"
    assert run("export", "--data-dir", spool, "--output", target) == (0, "", "")
    assert [json.loads(line) for line in target.read_text().splitlines()] == export(spool)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ndjson"]


def test_export_to_a_file_that_cannot_be(spool, tmp_path):
    assert "none" in fails("export", "--data-dir", spool, "--output", tmp_path / "none" / "out")


def test_export_to_a_full_device(large):
    assert "No space left" in fails("export", "--data-dir", large, "--output", "/dev/full")


def test_export_rejects(spool):
    first, second = export(spool, "--rejects")
    assert (first["reason"], first["target"], first["writeKey"]) == ("missing_person", "/e?_k=k&_n=nobody", "k")
    assert (second["reason"], second["method"], second["protocol"]) == ("missing_key", "GET", "kissmetrics")
    assert {"receivedAt", "seq", "headers"} <= first.keys()


def test_a_reader_that_has_enough_ends_it_quietly(large):
    for flags in ([], ["--follow", "--since", "1h"]):
        pipe = subprocess.Popen(
            [*PROGRAM, "export", "--data-dir", str(large), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert json.loads(pipe.stdout.readline())["event"] == "n0"
        pipe.stdout.close()
        said = pipe.stderr.read()
        pipe.stderr.close()
        assert (pipe.wait(PATIENCE), said) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [["dialects"], ["config"], ["--help"], *([name, "--data-dir", "{spool}"] for name in ("export", "rejects"))],
)
def test_a_reader_that_is_gone_ends_it_quietly(arguments, spool):
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [*PROGRAM, *[part.format(spool=spool) for part in arguments]],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=PATIENCE,
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, b"")


class Follower:
    """`fastpixel export --follow` in the background."""

    def __init__(self, data_dir, *flags):
        arguments = [*PROGRAM, "export", "--follow", "--data-dir", str(data_dir), *flags]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        self.out, self.err = Log(self.process.stdout), Log(self.process.stderr)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        self.out.join()
        self.err.join()
        return code

    @property
    def records(self):
        return [json.loads(line) for line in self.out.lines]


def test_follow_sees_what_comes_across_a_restarted_worker(data_dir):
    with Service(data_dir, errors=["SIGKILL"]) as service:
        assert service.get(EVENT % "before").is_stored
        follower = Follower(data_dir, "--since", "1h")
        follower.out.wait_for('"before"')
        assert service.get(EVENT % "during").is_stored
        follower.out.wait_for('"during"')
        (victim,) = service.pids()
        os.kill(victim, signal.SIGKILL)
        assert service.get(EVENT % "after").is_stored
        follower.out.wait_for('"after"')
    with Service(data_dir, workers=2) as service:
        assert service.get(EVENT % "restarted").is_stored
        follower.out.wait_for('"restarted"')
        assert follower.stop() == 130
    assert [record["event"] for record in follower.records] == ["before", "during", "after", "restarted"]
    assert "Traceback" not in follower.err.text


def test_follow_stops_at_its_limit_and_filters(data_dir):
    with Service(data_dir) as service:
        follower = Follower(data_dir, "--since", "1h", "--limit", "2", "--type", "identify")
        for path in ("/s?_k=k&_p=1", EVENT % "no", "/s?_k=k&_p=2", "/s?_k=k&_p=3"):
            assert service.get(path).is_stored
        assert follower.process.wait(PATIENCE) == 0
    follower.stop()
    assert [record["userId"] for record in follower.records] == ["1", "2"]


def test_follow_rejects(data_dir):
    with Service(data_dir) as service:
        follower = Follower(data_dir, "--rejects", "--since", "1h")
        assert service.get("/e?_k=k&_n=nobody").reason == "missing_person"
        follower.out.wait_for("missing_person")
        assert follower.stop() == 130


def test_follow_into_a_file_keeps_what_it_wrote(data_dir, tmp_path):
    target = tmp_path / "out.ndjson"
    with Service(data_dir) as service:
        follower = Follower(data_dir, "--since", "1h", "--output", str(target))
        assert service.get(EVENT % "kept").is_stored
        await_true(lambda: target.exists() and "kept" in target.read_text(), "the file grows under its own name")
        assert follower.stop() == 130
    assert json.loads(target.read_text())["event"] == "kept"


# -- explain


def explained(*arguments):
    code, out, err = run("explain", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_explain_what_is_stored(tmp_path):
    code, out, err = run("explain", "https://c.example/e?_k=k&_p=p&_n=n&a=1", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("answer: 200 OK (43 bytes GIF)\nstored: {") and '"event": "n"' in out
    assert list(tmp_path.iterdir()) == [], "nothing is stored, and no directory made"


def test_explain_says_what_a_running_server_does(service):
    path = "/pixel/v1/track?writeKey=k&anonymousId=a&event=e&messageId=m&properties.a=1"
    assert service.get(path, "User-Agent: UA", "Accept: image/*").is_stored
    (live,) = export(service.data_dir)
    found = explained(service.url + path, "-H", "User-Agent: UA", "-H", "Accept: image/*")
    (told,) = found["records"]
    changing = {"receivedAt", "timestamp", "originalTimestamp", "sentAt", "seq"}
    assert {k: v for k, v in live.items() if k not in changing} == {k: v for k, v in told.items() if k not in changing}


def test_explain_what_is_refused():
    _, out, _ = run("explain", "/e?_k=k&_n=n")
    assert out == "answer: 200 OK (43 bytes GIF)\nstored: nothing (missing_person: the request names no person)\n"
    assert explained("/pixel/v1/track?writeKey=k")["reason"] == "missing_identity"
    assert explained("/pixel/v1/track?writeKey=k")["status"] == "400 Bad Request"


def test_explain_a_path_that_nobody_answers():
    _, out, _ = run("explain", "/nowhere")
    assert out == "answer: 404 Not Found not found\nstored: nothing (no protocol answers this method and path)\n"
    assert explained("/pixel/v1/track", "-X", "POST")["status"] == "405 Method Not Allowed"


def test_explain_a_body(tmp_path):
    (tmp_path / "body").write_bytes(b"_p=p&_n=from+file")
    assert explained("/e?_k=k", "-d", "_p=p&_n=n")["records"][0]["event"] == "n"
    assert explained("/e?_k=k", "-d", f"@{tmp_path}/body")["records"][0]["event"] == "from file"
    assert explained("/e?_k=k&_p=p", "-X", "POST", "-d", "_n=é")["records"][0]["event"] == "é"


def test_explain_takes_the_configuration(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[[sources]]\nkey = "good"\nname = "shop"\n')
    assert explained("--config", file, "/e?_k=bad&_p=p&_n=n")["reason"] == "unknown_key"
    assert explained("--config", file, "/e?_k=good&_p=p&_n=n")["records"][0]["source"] == "shop"
    assert explained("/e?_k=k&_p=p&_n=n", "--ip", "203.0.113.5")["records"][0]["context"]["ip"] == "203.0.113.5"


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://[::1/e"],
        ["/e", "-H", "no header"],
        ["/e", "-H", "A: b\r\nC: d"],
        ["/e", "-d", "@/nowhere"],
        ["/e", "-X", "GE T"],
        ["/e", "-d", "a=b", "-H", "Content-Length: 999"],
        ["/e?a=\x01"],
        ["/e", "--ip", "no address"],
    ],
)
def test_explain_refuses_what_is_no_request(arguments):
    code, out, err = run("explain", *arguments)
    assert code == 1 or out.startswith("answer: 400"), (code, out, err)


# -- dialects, check, config, init


def test_dialects():
    code, out, err = run("dialects")
    assert (code, err) == (0, "")
    assert "GET POST /e -> track" in out and "/pixel/v1/page" in out
    rows = json.loads(run("dialects", "--json")[1])
    assert {row["name"] for row in rows} == set(BUILTIN_PROTOCOLS)


def test_dialects_of_ones_own(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(
        '[[dialects]]\nname = "acme"\n[[dialects.routes]]\npath = "/px/{key}"\n'
        'fields = [{from = "path.key", to = "writeKey", required = "missing_key"}]\n'
    )
    assert "acme" in run("dialects", "--config", file)[1]
    file.write_text('[[dialects]]\nname = "acme"\n[[dialects.routes]]\npath = "/e"\n')
    assert "acme" in fails("dialects", "--config", file)


def test_check_a_sound_spool(spool):
    assert run("check", "--data-dir", spool)[:2] == (0, "")
    assert json.loads(run("check", "--data-dir", spool, "--json")[1]) == []


def test_check_and_export_of_a_damaged_segment(data_dir):
    with Service(data_dir) as service:
        assert service.get(EVENT % "n").is_stored
    (segment,) = data_dir.glob("*/*.mdb")
    data = bytearray(segment.read_bytes())
    data[4096 * 2 :] = b"\xa5" * (len(data) - 4096 * 2)
    segment.write_bytes(data)
    code, out, err = run("check", "--data-dir", data_dir)
    assert code == 1 and f"{segment}: damaged" in out and err == f"{data_dir}: 1 findings\n"
    (finding,) = json.loads(run("check", "--data-dir", data_dir, "--json")[1])
    assert (finding["path"], finding["kind"], finding["repaired"]) == (str(segment), "damaged", "")
    assert "fastpixel check" in fails("export", "--data-dir", data_dir)
    run("check", "--repair", "--data-dir", data_dir)
    with Service(data_dir) as service:
        assert service.get(EVENT % "goes-on").is_stored
    assert [record["event"] for record in export(data_dir)] == ["goes-on"]


def test_check_while_it_runs(service):
    assert service.get(EVENT % "n").is_stored
    assert run("check", "--data-dir", service.data_dir)[0] == 0


def test_config(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('workers = 3\nretention = "1d"\n[[sources]]\nkey = "k"\ntoken = "secret"\n')
    code, out, err = run("config", "--config", file, "--durability", "commit", env={"FASTPIXEL_LOG_FORMAT": "json"})
    assert code == 0 and "secret" not in out
    assert "workers = 3" in out and 'durability = "commit"' in out and 'log_format = "json"' in out
    assert run("config", "--config", file, "--check")[:2] == (0, "")
    assert "FASTPIXEL_NONSENSE" in run("config", "--check", env={"FASTPIXEL_NONSENSE": "1"})[2]
    assert "retention" in err, "a setting of a later release is said to have no effect"


def test_config_check_finds_what_serve_would(tmp_path):
    file = tmp_path / "c.toml"
    for text, told in [
        ("workers = -1", "workers"),
        ("workers = ", "TOML"),
        ('bind = ["x"]', "bind"),
        ('[[sources]]\nkey = ""', "key"),
        ('[[dialects]]\nname = "kissmetrics"\n[[dialects.routes]]\npath = "/x"', "kissmetrics"),
        (f'tls_cert = "{file}"\ntls_key = "{file}"', "tls_cert"),
    ]:
        file.write_text(text)
        assert told in fails("config", "--check", "--config", file)


def test_init_writes_a_file_that_config_takes_and_never_overwrites(tmp_path):
    file = tmp_path / "fastpixel.toml"
    code, out, err = run("init", cwd=tmp_path)
    assert (code, out) == (0, "") and "fastpixel serve --config" in err
    before = file.read_text()
    assert run("config", "--check", "--config", file) == (0, "", "")
    assert "exists" in fails("init", cwd=tmp_path)
    assert file.read_text() == before
    assert run("init", tmp_path / "other.toml")[0] == 0
    assert "nowhere" in fails("init", tmp_path / "nowhere" / "x.toml")


def test_ctrl_c_while_a_command_works_is_130(large):
    """A reader that does not read holds the export in the middle of its work."""
    pipe = subprocess.Popen(
        [*PROGRAM, "export", "--data-dir", str(large)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert pipe.stdout.readline()
    pipe.send_signal(signal.SIGINT)
    out, err = pipe.communicate(timeout=PATIENCE)
    assert pipe.returncode == 130
    assert b"Traceback" not in err and len(out.splitlines()) < MANY
