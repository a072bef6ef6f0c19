"""The promise: an answer means stored. `kill -9` of a worker and of everything, under load, loses no answered event.

The verdict is in load.py. The moments are random; a failure prints the seed, and E2E_SEED=... repeats the choices
(not the scheduler's).
"""

import os
import random
import signal
import time

import pytest
from load import Load
from service import Service, await_true, export, is_alive

KILLED = r"worker \d ended with signal SIGKILL"
ROUNDS = 3


def seed():
    return int(os.environ.get("E2E_SEED") or random.SystemRandom().getrandbits(32))


def let_pass(chance, low, high):
    """The one thing here that is time itself: the moment of a kill."""
    time.sleep(chance.uniform(low, high))


def await_progress(load, more=200):
    before = len(load.stored)
    await_true(lambda: len(load.stored) >= before + more, f"{more} more events are answered, seed {load.seed}")


def kill_one(service, chance):
    victim = chance.choice(service.pids())
    os.kill(victim, signal.SIGKILL)
    await_true(lambda: not is_alive(victim), "the killed worker is gone")
    await_true(service.pids, "it runs again")


@pytest.mark.parametrize("durability", ["commit", "fsync"])
def test_no_answered_event_is_lost(durability, data_dir):
    number = seed()
    chance = random.Random(number)
    flags = ["--durability", durability, "--segment-bytes", "64KiB"]
    with Service(data_dir, *flags, workers=2, errors=[KILLED]) as service:
        with Load(number, ("127.0.0.1", service.port)) as load:
            await_progress(load)
            for _ in range(ROUNDS):
                let_pass(chance, 0, 0.3)
                kill_one(service, chance)
            await_progress(load)
            let_pass(chance, 0, 0.3)
            service.kill()
            service.assert_clean()

            with Service(data_dir, *flags, workers=2) as again:
                load.address = ("127.0.0.1", again.port)
                await_progress(load)
                assert again.get("/e?_k=load&_p=fresh&_n=fresh").is_stored
                assert again.stop() == 0
    records = export(data_dir)
    fresh = [record for record in records if record["event"] == "fresh"]
    assert len(fresh) == 1
    load.assert_conserved([record for record in records if record["event"] != "fresh"])
    assert len({record["seq"] for record in records}) == len(records)
    print(f"seed {number}: {len(load.sent)} sent, {len(load.stored)} answered, {len(records)} stored")
