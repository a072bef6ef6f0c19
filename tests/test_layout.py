"""Imports point one way, and what must stay apart stays apart.

A module belongs to the layer of its first name below the package. It may import from its own layer and from those
below, and nowhere may imports go round in a circle. A new module must be given a layer here.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/fastpixel"
LAYERS = [
    {"", "errors", "units", "schema", "event", "config"},
    {"_core", "dialect", "client", "personal"},
    {"dialects"},
    {"spool", "exporters", "sinks", "metrics", "identity", "logs", "sockets", "tables"},
    {"server", "admin", "explain", "export", "rejects", "ship"},
    {"supervisor", "generation"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def names_imported(tree, module):
    """Absolute names that a module's source imports; `from a import b` gives both a and a.b."""
    package = [*f"fastpixel.{module}".rstrip(".").split(".")]
    if MODULES[module].name != "__init__.py":
        package.pop()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imports_of(module):
    return set(names_imported(ast.parse(MODULES[module].read_text()), module))


def inner_imports_of(module):
    """The modules of this package that `module` imports, by their names below the package."""
    inner = {name.removeprefix("fastpixel.") for name in imports_of(module) if name.startswith("fastpixel.")}
    return {name for name in inner if name in MODULES or name == "_core"} - {module}


def layer(module):
    return LEVEL[module.partition(".")[0]]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    assert module.partition(".")[0] in LEVEL, f"give {module} a layer in {__file__}"
    upward = sorted(name for name in inner_imports_of(module) if layer(name) > layer(module))
    assert not upward, f"{module or 'the package'} imports {upward}, which are above it"


def test_imports_never_go_round():
    graph = {module: inner_imports_of(module) for module in MODULES}
    done = {"_core"}
    while ready := {module for module, below in graph.items() if module not in done and below <= done}:
        done |= ready
    assert not graph.keys() - done, "these import each other"


def test_the_core_imports_no_fastpixel_module():
    sources = [*PACKAGE.glob("_core.p*"), *PACKAGE.glob("core/*.pxi")]
    assert len(sources) > 3
    importing = re.compile(r"^\s*(from|c?import)\s+(fastpixel|\.)", re.MULTILINE)
    assert not [source.name for source in sources if importing.search(source.read_text())]


def test_only_the_spool_imports_lmdb():
    users = {module for module in MODULES if any(name.partition(".")[0] == "lmdb" for name in imports_of(module))}
    assert {user.partition(".")[0] for user in users} == {"spool"}


def test_a_worker_loads_nothing_of_the_command_line_and_the_admin_pages():
    program = "import sys, fastpixel.server; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "uvloop" in loaded
    assert not loaded & {"click", "rich", "starlette", "uvicorn", "prometheus_client"}


def tracked_texts():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():  # a deletion may not be committed yet
            yield name, (ROOT / name).read_text(errors="replace")


def test_the_project_speaks_of_itself_only():
    """No paths and helpers of the machine a change was made on. Written in pieces, as this file is read too."""
    words = ["/" + "work/", "../" + "shared", "bash_" + "jobs", "/tmp/" + "wt-", "previous " + "session"]
    found = {(name, word) for name, text in tracked_texts() for word in words if word in text}
    assert not found


@pytest.mark.parametrize(
    ("source", "module", "imported"),
    [
        ("import lmdb.x", "config", {"lmdb.x"}),
        ("from . import errors", "config", {"fastpixel", "fastpixel.errors"}),
        ("from .errors import ConfigError", "config", {"fastpixel.errors", "fastpixel.errors.ConfigError"}),
        ("from fastpixel.spool import writer", "", {"fastpixel.spool", "fastpixel.spool.writer"}),
        ("def f():\n    from ..errors import E", "dialects", {"fastpixel.errors", "fastpixel.errors.E"}),
        ("from ..errors import E", "dialects.kissmetrics", {"fastpixel.errors", "fastpixel.errors.E"}),
    ],
)
def test_this_file_reads_imports_rightly(source, module, imported):
    assert set(names_imported(ast.parse(source), module)) == imported
