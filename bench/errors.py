"""The exceptions that run.py turns into one line: what is wrong and what to do next."""


class BenchError(Exception):
    """The benchmark cannot be run."""


class VoidRun(BenchError):
    """One run of one server counts for nothing; the others go on, and the report names it."""
