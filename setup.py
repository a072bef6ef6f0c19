"""Builds the one compiled module, fastpixel._core.

Switches (environment variables):
  FASTPIXEL_DEBUG=1      -O0 -g, Cython line directives
  FASTPIXEL_SANITIZE=1   AddressSanitizer + UndefinedBehaviorSanitizer (run with their runtime preloaded: make sanitize)
  FASTPIXEL_ANNOTATE=1   writes build/cython/src/fastpixel/_core.html, which shows where C talks to Python

Cython's C goes to build/, a directory a kind of build, so that one never compiles what another generated.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTPIXEL_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPIXEL_SANITIZE") == "1"
ANNOTATE = os.environ.get("FASTPIXEL_ANNOTATE") == "1"

cflags = ["-O0", "-g"] if DEBUG else ["-O2", "-g1", "-fno-plt"]
ldflags: list[str] = []
if SANITIZE:
    cflags = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    ldflags = ["-fsanitize=address,undefined"]

core = Extension(
    "fastpixel._core",
    ["src/fastpixel/_core.pyx"],
    depends=[str(path) for path in sorted(Path("src/fastpixel").glob("core/*.pxi"))] + ["src/fastpixel/_core.pxd"],
    extra_compile_args=cflags,
    extra_link_args=ldflags,
)

setup(
    ext_modules=cythonize(
        [core],
        build_dir=f"build/{'sanitize' if SANITIZE else 'debug' if DEBUG else 'cython'}",
        annotate=ANNOTATE,
        emit_linenums=DEBUG,
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "binding": False,
            "autotestdict": False,
        },
    )
)
