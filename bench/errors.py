"""The one exception that run.py turns into one line: what is wrong and what to do next."""


class BenchError(Exception):
    """The benchmark cannot be run, or a run of it is void."""
