"""A writing process for the tests: `flood` appends without end, `step` one batch for each line on stdin.

Each answer is a line `<first seq> <message ids>`, written after append returned.
"""

import sys
from pathlib import Path

import spool_twin

spool_twin.install()

from spool_data import MS, T0, event  # noqa: E402

from fastpixel.spool.writer import Writer  # noqa: E402


def append(writer, batch):
    names = [f"b{batch}-{index}" for index in range(1 + batch % 7)]
    time = T0 + batch * MS
    events = b"".join(event(time, messageId=name) for name in names)
    print(writer.append(events, len(names), b"", 0, time, time), *names, flush=True)


def main(command, data_dir, mode, segment_bytes):
    writer = Writer(Path(data_dir), mode, int(segment_bytes))
    print("slot", writer.slot, flush=True)
    batch = 0
    while command == "flood" or sys.stdin.readline():
        append(writer, batch)
        batch += 1
    writer.close()


main(*sys.argv[1:])
