"""The exceptions fastpixel raises at programmers and operators.

Input from the network never raises: it ends as a record or as a named reason (see `_core.REASONS`). What is raised
here is for the person who starts a command; the CLI prints it as one line and exits with 1.
"""

from __future__ import annotations


class FastpixelError(Exception):
    """Base of all; its text says what, where, and what to do next."""


class ConfigError(FastpixelError):
    """The configuration (file, environment or flags) cannot be used."""


class DialectError(ConfigError):
    """A dialect's rows contradict each other or name something that does not exist."""


class SpoolError(FastpixelError):
    """The data directory cannot be used: wrong filesystem, unknown format, held by another process, damaged."""


class SpoolFull(SpoolError):
    """A batch could not be stored now (disk full, I/O error); nothing of it was answered as stored."""
