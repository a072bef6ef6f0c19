"""Settings: what is accepted and refused, from file, variables and flags, and that every printed form loads again.

Tables at the top: a bad file is a row with the words its error must hold. Value forms are tested in test_units.py.
"""

import ipaddress
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import config as config_module
from fastpixel import dialects, event, schema
from fastpixel.config import BUILTIN_PROTOCOLS, MASK, SETTINGS, Config, load, markdown, render, template
from fastpixel.errors import ConfigError
from fastpixel.units import Bind

ROOT = Path(__file__).parents[1]
REASONS = ("missing_key", "missing_event", "bad_field")

DESIGN_FILE = """
bind = ["127.0.0.1:8080", "[::1]:8080", "unix:/run/fastpixel.sock"]
workers = 2
protocols = ["pitchtarget", "acme"]
data_dir = "/var/lib/fastpixel"
durability = "commit"
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
max_body_bytes = "1MiB"
header_timeout = "500ms"
retention = "30d"
admin_bind = "off"
tls_cert = "/etc/tls/cert.pem"
tls_key = "/etc/tls/key.pem"

[privacy]
ip = "truncate"
gpc = "anonymise"

[visitor]
domain = ".example.com"
max_age = "30d"

[rudderstack]
reply = "gif"

[[sources]]
key = "52fb5565a7b23ec66fad3988"
name = "shop"
protocols = ["pitchtarget"]
origins = ["https://shop.example.com"]
rate_limit = "1000/s"
token = "s3cret"
[sources.privacy]
gpc = "drop"

[[sources]]
key = "other"
enabled = false

[[redirects]]
id = "spring"
url = "https://shop.example.com/spring"
source = "shop"
event = "email-opened"
properties = { campaign = "spring", "odd name" = [1, 2.5, true, { a = "b" }], nothing = {} }

[paths]
"/c/" = "/pixel/v1/"

[[dialects]]
name = "acme"
[[dialects.routes]]
method = ["GET", "POST"]
path = "/px/{key}/hit.gif"
fields = [
    { from = "path.key", to = "writeKey", required = "missing_key" },
    { from = "n", to = "event", required = "missing_event" },
    { from = "ts", to = "timestamp", kind = "unix_ms" },
    { from = "*", to = "properties", kind = "dotpath" },
]
"""

SOURCE = '[[sources]]\nkey = "a"\n'
REDIRECT = '[[redirects]]\nid = "r"\nurl = "https://a.b/"\nsource = "a"\nevent = "e"\n'


def dialect(route='path = "/x"', name="acme"):
    return f'[[dialects]]\nname = "{name}"\n[[dialects.routes]]\n{route}\n'


def field(row):
    return dialect(f'path = "/px/{{key}}/hit.gif"\nfields = [{{ {row} }}]')


# file -> the words its error must hold, in this order
REFUSED = [
    # unknown names, everywhere, with the nearest one
    ("workesr = 1", 'unknown name "workesr"; did you mean "workers"?'),
    ('gpc = "drop"', 'did you mean "privacy.gpc"?'),
    ("[privacy]\nipp = 1", 'privacy: unknown name "ipp"; did you mean "ip"?'),
    ("[visitor]\ncokie = 1", 'visitor: unknown name "cokie"; did you mean "cookie"?'),
    ("[rudderstack]\nreplay = 1", 'rudderstack: unknown name "replay"; did you mean "reply"?'),
    (SOURCE + "orgins = []", 'sources[0]: unknown name "orgins"; did you mean "origins"?'),
    (SOURCE + SOURCE.replace("a", "b") + "privcy = {}", 'sources[1]: unknown name "privcy"; did you mean "privacy"?'),
    (SOURCE + "[sources.privacy]\ngcp = 1", 'sources[0].privacy: unknown name "gcp"; did you mean "gpc"?'),
    (REDIRECT + "uri = 1", 'redirects[0]: unknown name "uri"; did you mean "url"?'),
    ("[[dialects]]\nnam = 1", 'dialects[0]: unknown name "nam"; did you mean "name"?'),
    (dialect('path = "/x"\nmethods = []'), 'dialects[0].routes[0]: unknown name "methods"; did you mean "method"?'),
    (field('form = "k"'), 'routes[0].fields[0]: unknown name "form"; did you mean "from"?'),
    ("xyzzy = 1", "did you mean"),
    ('"a\\nb" = 1', r'unknown name "a\nb"; did you mean'),
    (REDIRECT + 'properties = { "a\\nb" = nan }', r"redirects[0].properties.a\nb: nan cannot"),
    # kinds
    ("workers = true", "workers: true is not an integer"),
    ('workers = "2"', 'workers: "2" is not an integer'),
    ("workers = 1.0", "workers: 1.0 is not an integer"),
    ("workers = -1", "workers: -1 is not between 0 and 1024"),
    ("max_connections = 0", "max_connections: 0 is not between 1"),
    ('segment_bytes = "1PB"', 'segment_bytes: "1PB" is not a size'),
    ('segment_bytes = "1KiB"', 'segment_bytes: "1KiB" is not between 64KiB and 1TiB'),
    ('retention = "7"', 'retention: "7" is not a duration'),
    ('header_timeout = "0s"', 'header_timeout: "0s" is not between 10ms'),
    ('durability = "fsnc"', 'durability: "fsnc" is not one of "fsync", "commit"; did you mean "fsync"?'),
    ("durability = []", "durability: [] is not one of"),
    ('on_full = "drop"', 'did you mean "drop_oldest"?'),
    ("bind = []", "bind: the list is empty"),
    ("bind = 8080", "bind: 8080 is not a list"),
    ('bind = ["127.0.0.1:1", "::1:80"]', 'bind[1]: "::1:80": an IPv6 address stands in brackets'),
    ('admin_bind = "none"', 'admin_bind: "none" has no port'),
    ('admin_bind = ""', 'admin_bind: "" has no port'),
    ('trusted_proxies = ["10.0.0.1/8"]', 'trusted_proxies[0]: "10.0.0.1/8"', 'did you mean "10.0.0.0/8"?'),
    ('data_dir = ""', "data_dir: "),
    ("data_dir = 1", "data_dir: 1 is not text"),
    ("privacy = 3", "privacy: 3 is not a table"),
    ("sources = 3", "sources: 3 is not a list of tables"),
    ("sources = [3]", "sources[0]: 3 is not a table"),
    ('[visitor]\nname = "a b"', 'visitor.name: "a b" is not a cookie name'),
    ('[visitor]\nname = ""', "visitor.name: "),
    ('[visitor]\ndomain = "a;b"', "visitor.domain: "),
    ('[visitor]\ndomain = "a\\nSet-Cookie: b"', "visitor.domain: "),
    ("[visitor]\ncookie = 1", "visitor.cookie: 1 is not true or false"),
    # sources
    ('[[sources]]\nname = "a"', 'sources[0]: "key" is missing'),
    ('[[sources]]\nkey = ""', "sources[0].key: "),
    ("[[sources]]\nkey = 7", "sources[0].key: 7 is not text; write it in quotes"),
    (SOURCE + SOURCE, 'sources[1].key: "a" is that of sources[0] already'),
    (SOURCE + 'protocols = ["segmnt"]', 'sources[0].protocols[0]: "segmnt" is not a protocol; did you mean "segment"?'),
    (SOURCE + "protocols = []", "sources[0].protocols: the list is empty"),
    (SOURCE + 'origins = ["shop.example.com"]', "sources[0].origins[0]: ", "is not an origin"),
    (SOURCE + 'rate_limit = "fast"', 'sources[0].rate_limit: "fast" is not a rate'),
    (SOURCE + f'token = "{MASK}"', "sources[0].token: this is the mask"),
    (SOURCE + "privacy = 1", "sources[0].privacy: 1 is not a table"),
    ('protocols = ["ksense", "acme"]', 'protocols[1]: "acme" is not a protocol'),
    # redirects
    (SOURCE + REDIRECT + REDIRECT, 'redirects[1].id: "r" is that of redirects[0] already'),
    (SOURCE + REDIRECT.replace('"a"', '"b"'), "redirects[0].source: ", "no source's name or key; did you mean \"a\"?"),
    (
        '[[sources]]\nkey = "x"\nname = "a"\n[[sources]]\nkey = "y"\nname = "a"\n' + REDIRECT,
        'redirects[0].source: "a" means several sources',
    ),
    (REDIRECT.replace("https://a.b/", "/spring"), 'redirects[0].url: "/spring" is not an absolute URL'),
    (REDIRECT.replace("https://a.b/", "javascript:alert(1)"), "redirects[0].url: "),
    (REDIRECT.replace("https://a.b/", "https://a.b/\\r\\nX: y"), "redirects[0].url: "),
    (REDIRECT.replace("https://a.b/", "https://a.b:99999/"), "redirects[0].url: "),
    (REDIRECT.replace("https://a.b/", "https:///x"), "redirects[0].url: "),
    (REDIRECT.replace('"r"', '"a/b"'), "redirects[0].id: "),
    (REDIRECT + "properties = { a = { b = [nan] } }", "redirects[0].properties.a.b[0]: nan cannot be a property"),
    (REDIRECT + "properties = { a = 2024-01-01 }", "redirects[0].properties.a: "),
    (REDIRECT + "properties = 1", "redirects[0].properties: 1 is not a table"),
    # paths
    ("paths = 1", "paths: 1 is not a table"),
    ('[paths]\n"c/" = "/x/"', 'paths."c/": "c/" is not a path prefix'),
    ('[paths]\n"/c/" = 1', 'paths."/c/": 1 is not a path prefix'),
    ('[paths]\n"/c/" = "/x"', 'paths."/c/": alias and target'),
    ('[paths]\n"/c/" = "/c/"', 'paths."/c/": alias and target'),
    ('[paths]\n"/c?/" = "/c/"', "is not a path prefix"),
    # dialects
    ("[[dialects]]", 'dialects[0]: "name" is missing'),
    ('[[dialects]]\nname = "acme"', 'dialects[0]: "routes" is missing'),
    ('[[dialects]]\nname = "acme"\nroutes = []', "dialects[0].routes: the list is empty"),
    (dialect(name="Acme"), "dialects[0].name: "),
    (dialect(name="a" * 33), "dialects[0].name: "),
    (dialect(name="segment"), 'dialects[0].name: "segment" is taken'),
    (dialect(name="all"), 'dialects[0].name: "all" is taken'),
    (dialect() + dialect(), 'dialects[1].name: "acme" is that of dialects[0] already'),
    (dialect('path = "x"'), 'dialects[0].routes[0].path: "x" is not a route path'),
    (dialect('path = "/x?y"'), "dialects[0].routes[0].path: "),
    (dialect('path = "/x/a{key}"'), "a variable is a whole segment"),
    (dialect('path = "/x/{key}/{key}"'), "names a variable twice"),
    (dialect('path = "/x"\nmethod = ["PUT"]'), 'dialects[0].routes[0].method[0]: "PUT" is not one of'),
    (dialect('path = "/x"\nmethod = []'), "dialects[0].routes[0].method: the list is empty"),
    (dialect('path = "/x"\nanswer = "png"'), 'dialects[0].routes[0].answer: "png" is not one of'),
    (dialect('path = "/x"\ntype = ""'), "dialects[0].routes[0].type: "),
    (field('from = "k"'), 'fields[0]: "to" is missing'),
    (field('from = "", to = "event"'), "fields[0].from: "),
    (field('from = "k", to = "event", kind = "txt"'), 'fields[0].kind: "txt" is not one of', 'did you mean "text"?'),
    (field('from = "k", to = "a..b"'), 'fields[0].to: "a..b" is not a record path'),
    (field('from = "k", to = "properties.__proto__"'), "fields[0].to: "),
    (field('from = "path.k", to = "event"'), 'fields[0].from: "path.k"', "path.key"),
    (field('from = "k", to = "event", required = "mising_key"'), '"mising_key" is not a reason', '"missing_key"?'),
    (field('from = "*", to = "properties" }, { from = "*", to = "context"'), 'routes[0].fields: "*" stands twice'),
    *[(field(f'from = "k", to = "{to}"'), "is set by the server") for to in ("seq", "type", "source.a", "writeKey.x")],
    # between settings
    ('tls_cert = "a"', "tls_cert: needs tls_key beside it"),
    ('tls_key = "a"', "tls_key: needs tls_cert beside it"),
    ('bind = "127.0.0.1:8081"', "admin_bind: 127.0.0.1:8081 is the public listener's"),
    ('max_inflight_bytes = "1MiB"', "max_inflight_bytes: is below max_body_bytes"),
    # the file itself
    ("bind = ", "is not valid TOML"),
    ("a = 1\na = 2", "is not valid TOML"),
]  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "fastpixel.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_defaults():
    config = load()
    assert config.bind == (Bind("127.0.0.1", 8080),)
    assert config.data_dir == Path("fastpixel-data")
    assert (config.workers, config.durability, config.on_full) == (0, "fsync", "refuse")
    assert (config.max_body_bytes, config.max_request_line, config.segment_bytes) == (4096000, 16384, 1 << 28)
    assert (config.header_timeout, config.retention, config.visitor.max_age) == (10.0, 604800.0, 34560000.0)
    assert config.admin_bind == Bind("127.0.0.1", 8081)
    assert config.protocols == BUILTIN_PROTOCOLS
    assert (config.tls_cert, config.sources, config.paths, config.warnings) == (None, (), {}, ())


def test_a_whole_file(written):
    config = load(written(DESIGN_FILE), reasons=REASONS)
    shop, other = config.sources
    assert config.bind == (Bind("127.0.0.1", 8080), Bind("::1", 8080), Bind(path="/run/fastpixel.sock"))
    assert config.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert config.admin_bind is None
    assert (config.header_timeout, config.tls_key) == (0.5, Path("/etc/tls/key.pem"))
    assert (shop.rate_limit, shop.protocols, shop.token) == (1000.0, ("pitchtarget",), "s3cret")
    assert (other.rate_limit, other.enabled, other.protocols) == (0.0, False, (*BUILTIN_PROTOCOLS, "acme"))
    assert config.redirects[0].properties["odd name"] == [1, 2.5, True, {"a": "b"}]
    route = config.dialects[0].routes[0]
    assert (route.method, route.type, route.answer, route.visitor) == (("GET", "POST"), "track", "gif", False)
    assert [(row.from_, row.to, row.kind, row.required) for row in route.fields][2:] == [
        ("ts", "timestamp", "unix_ms", ""),
        ("*", "properties", "dotpath", ""),
    ]


def test_a_source_starts_from_the_general_privacy(written):
    shop, other = load(written(DESIGN_FILE)).sources
    assert (shop.privacy.ip, shop.privacy.gpc) == ("truncate", "drop")
    assert (other.privacy.ip, other.privacy.gpc) == ("truncate", "anonymise")


@pytest.mark.parametrize(("text", "words"), [(row[0], row[1:]) for row in REFUSED])
def test_refused_in_one_line_that_says_where(written, text, words):
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        load(path, reasons=REASONS)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert re.search(".*".join(map(re.escape, words)), message), message


def test_every_name_of_every_table_is_checked_for_spelling(written):
    tables = [("", Config), *((name, table) for name, table in config_module._tables(Config, ""))]
    assert {name for name, _ in tables} == {
        "", "[privacy]", "[visitor]", "[rudderstack]", "[[sources]]", "[sources.privacy]", "[[redirects]]",
        "[[dialects]]", "[[dialects.routes]]", "[[dialects.routes.fields]]",
    }  # fmt: skip
    for _, table in tables:
        for name in schema.rows(table):
            with pytest.raises(ConfigError, match=f'unknown name "{name}z"; did you mean "{name}"'):
                schema.read(table, {f"{name}z": 1}, schema.At("file"))


def test_without_reasons_required_is_not_checked(written):
    config = load(written(field('from = "k", to = "event", required = "of_the_core"')))
    assert config.dialects[0].routes[0].fields[0].required == "of_the_core"


@pytest.mark.parametrize("content", [b"\xff\xfe", b'name = "\xff"'])
def test_a_file_that_is_not_utf8(written, content):
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(written(content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        ConfigError, match=r"gone\.toml: cannot be read \(No such file or directory\); `fastpixel init`"
    ):
        load(tmp_path / "gone.toml")


def test_the_lists_are_those_of_the_record_and_of_the_dialects():
    """config.py repeats them because nothing of fastpixel may stand below it."""
    from fastpixel import dialect

    assert set(event.SERVER_OWNED) == config_module.SERVER_OWNED
    assert (*get_args(config_module.FieldKind), "params") == tuple(dialect.KINDS)
    assert (*get_args(config_module.Method), "PUT") == dialect.METHODS
    assert set(config_module.BUILTIN_PROTOCOLS) == {one.name for one in dialects.BUILTIN}


# -- variables and flags ----------------------------------------------------------------------------------------------


def test_flags_win_over_variables_over_the_file(written):
    path = written('workers = 1\nmax_connections = 1\nidle_timeout = "1s"')
    env = {"FASTPIXEL_WORKERS": "2", "FASTPIXEL_MAX_CONNECTIONS": "2"}
    config = load(path, env, {"workers": 3})
    assert (config.workers, config.max_connections, config.idle_timeout) == (3, 2, 1.0)


def test_the_variable_names_the_file(written, tmp_path):
    path = written("workers = 5")
    assert load(env={"FASTPIXEL_CONFIG": str(path)}).workers == 5
    with pytest.raises(ConfigError, match="other"):
        load(tmp_path / "other", {"FASTPIXEL_CONFIG": str(path)})


VARIABLES = [
    ("BIND", "127.0.0.1:1, [::1]:2,unix:/s", "bind", (Bind("127.0.0.1", 1), Bind("::1", 2), Bind(path="/s"))),
    ("WORKERS", " 4 ", "workers", 4),
    ("SEGMENT_BYTES", "1048576", "segment_bytes", 1 << 20),
    ("SEGMENT_BYTES", "1MiB", "segment_bytes", 1 << 20),
    ("RETENTION", "2h", "retention", 7200.0),
    ("ADMIN_BIND", "off", "admin_bind", None),
    ("DATA_DIR", "/data", "data_dir", Path("/data")),
    ("TRUSTED_PROXIES", "10.0.0.0/8", "trusted_proxies", (ipaddress.ip_network("10.0.0.0/8"),)),
    ("PROTOCOLS", "ksense,segment", "protocols", ("ksense", "segment")),
    ("PRIVACY_IP", "drop", "privacy.ip", "drop"),
    ("VISITOR_COOKIE", "false", "visitor.cookie", False),
    ("VISITOR_COOKIE", "1", "visitor.cookie", True),
    ("VISITOR_MAX_AGE", "1d", "visitor.max_age", 86400.0),
    ("RUDDERSTACK_REPLY", "text", "rudderstack.reply", "text"),
    ("PATHS", '{"/c/": "/pixel/v1/"}', "paths", {"/c/": "/pixel/v1/"}),
    ("WORKERS", "", "workers", 0),
]


def value_of(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(("name", "text", "setting", "stored"), VARIABLES)
def test_variables_and_flags_are_read_alike(name, text, setting, stored):
    assert value_of(load(env={f"FASTPIXEL_{name}": text}), setting) == stored
    if text:
        assert value_of(load(flags={name.lower(): text}), setting) == stored


def test_sources_in_a_variable_are_json():
    config = load(
        env={"FASTPIXEL_SOURCES": '[{"key": "a", "privacy": {"ip": "drop"}}]', "FASTPIXEL_PRIVACY_GPC": "drop"}
    )
    assert (config.sources[0].privacy.ip, config.sources[0].privacy.gpc) == ("drop", "drop")


BAD_VARIABLES = [
    ("WORKERS", "four", 'FASTPIXEL_WORKERS: "four" is not an integer'),
    ("WORKERS", "٤", "FASTPIXEL_WORKERS: "),
    ("BIND", "127.0.0.1:1,x", 'FASTPIXEL_BIND: [1]: "x" has no port'),
    ("VISITOR_COOKIE", "maybe", 'FASTPIXEL_VISITOR_COOKIE: "maybe" is not true or false'),
    ("SOURCES", '[{"key":', "FASTPIXEL_SOURCES: ", "is not JSON"),
    ("SOURCES", '[{"key": 1}]', "FASTPIXEL_SOURCES: [0].key: 1 is not text"),
    ("REDIRECTS", '[{"id":"a","url":"http://a","source":"a","event":"a","properties":{"a":null}}]', "None cannot be"),
    ("DATA_DIR", "\udc80\0", "FASTPIXEL_DATA_DIR: "),
]


@pytest.mark.parametrize(("name", "text", "words"), [(row[0], row[1], row[2:]) for row in BAD_VARIABLES])
def test_a_bad_variable_is_named(written, name, text, words):
    with pytest.raises(ConfigError, match=".*".join(map(re.escape, words))):
        load(written("workers = 1"), {f"FASTPIXEL_{name}": text})


def test_a_bad_flag_is_named():
    with pytest.raises(ConfigError, match='--max-body-bytes: "much" is not a size'):
        load(flags={"max_body_bytes": "much"})


def test_flags_that_were_not_given_change_nothing():
    assert load(flags={"workers": None, "bind": ()}) == load()


def test_an_unknown_flag_is_an_error():
    with pytest.raises(ConfigError, match='"worker" is not a setting; did you mean "workers"'):
        load(flags={"worker": 1})


def test_an_unknown_variable_is_a_warning():
    env = {"FASTPIXEL_WORKRES": "1", "FASTPIXEL_SERVICE_HOST": "10.0.0.1", "PATH": "/bin", "FASTPIXEL_CONFIG": ""}
    first, second = load(env=env).warnings
    assert first.startswith("FASTPIXEL_SERVICE_HOST is not a setting and has no effect")
    assert second == 'FASTPIXEL_WORKRES is not a setting and has no effect; did you mean "FASTPIXEL_WORKERS"?'


def test_a_variable_does_not_hide_nonsense_in_the_file(written):
    with pytest.raises(ConfigError, match="privacy: 3 is not a table"):
        load(written("privacy = 3"), {"FASTPIXEL_PRIVACY_IP": "drop"})


def test_the_names_of_a_setting():
    by_name = {setting.name: setting for setting in SETTINGS}
    setting = by_name["visitor.max_age"]
    assert (setting.param, setting.env, setting.flag) == (
        "visitor_max_age",
        "FASTPIXEL_VISITOR_MAX_AGE",
        "--visitor-max-age",
    )
    assert by_name["durability"].help.endswith('[default: "fsync"]')
    assert len({setting.param for setting in SETTINGS}) == len(SETTINGS)


# -- printed forms ----------------------------------------------------------------------------------------------------


def uncommented(text):
    """The template as a user would have it who takes the # off every setting."""
    return re.sub(r"^#(?! )|^#(?=    )", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("text", ["", DESIGN_FILE, uncommented(template())], ids=["defaults", "whole", "template"])
def test_what_config_prints_loads_to_the_same(written, text):
    config = load(written(text))
    again = load(written(render(config).replace(MASK, "s3cret")))
    assert again == config


def test_config_prints_no_secret(written):
    printed = render(load(written(DESIGN_FILE)))
    assert "s3cret" not in printed
    assert f'token = "{MASK}"' in printed


def test_a_worker_gets_everything(written):
    config = load(written(DESIGN_FILE), {"FASTPIXEL_NEW": "1"})
    assert config.warnings
    assert Config.from_json(config.to_json()) == config


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PROPERTY = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, PROPERTY, max_size=4), TEXT)
def test_any_text_and_property_survives_both_printed_forms(tmp_path_factory, properties, name):
    redirect = {"id": "r", "url": "https://a.b/", "source": "a", "event": "e", "properties": properties}
    config = load(flags={"redirects": [redirect], "sources": [{"key": "a", "name": name}]})
    path = tmp_path_factory.mktemp("printed") / "c.toml"
    path.write_bytes(render(config).encode())
    assert load(path) == config
    assert Config.from_json(config.to_json()) == config


def test_the_template_changes_nothing_as_it_is(written):
    assert load(written(template())) == load()


def test_the_template_shows_every_setting_with_its_default(written):
    config = load(written(uncommented(template())))
    plain = msgspec.structs.replace(
        config, sources=(), redirects=(), dialects=(), paths={}, protocols=BUILTIN_PROTOCOLS
    )
    assert plain == load()
    assert len(config.sources) == len(config.redirects) == len(config.dialects) == len(config.paths) == 1
    for setting in SETTINGS:
        assert setting.row.doc in template()


def test_the_documentation_is_generated():
    committed = (ROOT / "docs/configuration.md").read_text()
    assert committed == markdown(), "run: python -m fastpixel.config > docs/configuration.md"


def test_the_module_prints_the_documentation():
    printed = subprocess.run([sys.executable, "-m", "fastpixel.config"], capture_output=True, text=True, check=True)
    assert printed.stdout == markdown()


# -- what takes effect later -----------------------------------------------------------------------------------------

LATER = """
retention = "1d"
on_full = "drop_oldest"
[privacy]
gpc = "drop"
[[sources]]
key = "k"
origins = ["https://a.example"]
[[dialects]]
name = "acme"
[[dialects.routes]]
path = "/hit"
visitor = true
"""


def test_settings_that_nothing_acts_on_yet_are_named(tmp_path):
    (tmp_path / "f.toml").write_text(LATER)
    found = set(schema.dormant(load(tmp_path / "f.toml")))
    assert found == {"retention", "on_full"}


def test_defaults_are_no_reason_for_a_notice():
    assert list(schema.dormant(load())) == []


def test_help_template_and_manual_say_it():
    marked = [row for row in schema.rows(Config).values() if row.later]
    assert marked
    for row in marked:
        assert row.meaning in markdown()
        assert row.meaning in template()
    helps = {setting.name: setting.help for setting in SETTINGS}
    assert schema.LATER in helps["retention"]
    assert schema.LATER not in helps["workers"]


def notices(**flags):
    return list(dialects.notices(load(env={"FASTPIXEL_WORKRES": "2"}, flags=flags)))


def test_a_service_that_starts_names_what_has_no_effect():
    assert notices()[1:] == []
    assert "FASTPIXEL_WORKRES" in notices()[0]
    assert notices(retention="1d", on_full="drop_oldest")[1:] == [
        "set, but without effect before a later release: on_full, retention"
    ]
