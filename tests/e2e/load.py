"""Load with a memory: clients that send events with known ids and remember which of them were answered as stored.

Four ways of sending, because each has its own way to lose an answer: one request after another on a connection,
many at once (pipelined), a connection for each request, and forms by POST. A connection that breaks, or a refused
one, is no error here: the ids that were on their way stay unanswered, and may be stored once or not at all.
"""

import random
import threading
from urllib.parse import urlencode

from wire import Client, request

WRITE_KEY = "load"


def rudderstack(name, value):
    """(request, what of the record the client decides)."""
    query = urlencode(
        {"writeKey": WRITE_KEY, "anonymousId": name, "messageId": name, "event": name, "properties.a.b": value}
    )
    fields = {"anonymousId": name, "messageId": name, "event": name, "properties": {"a": {"b": value}}}
    return request(f"/pixel/v1/track?{query}", "Accept: image/gif"), {**fields, "protocol": "rudderstack"}


def kissmetrics(name, value):
    query = urlencode({"_k": WRITE_KEY, "_p": name, "_n": name, "value": value})
    return request(f"/e?{query}"), _kissmetrics_fields(name, value)


def form(name, value):
    body = urlencode({"_k": WRITE_KEY, "_p": name, "_n": name, "value": value}).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    return request("/e", kind, method="POST", body=body), _kissmetrics_fields(name, value)


def _kissmetrics_fields(name, value):
    return {"userId": name, "event": name, "properties": {"value": value}, "protocol": "kissmetrics"}


class Sender:
    """One client in its thread."""

    def __init__(self, load, number, kinds, burst, per_connection):
        self._load = load
        self._number = number
        self._kinds = kinds
        self._burst = burst
        self._per_connection = per_connection
        self._random = random.Random(f"{load.seed}/{number}")
        self._count = 0
        self.sent = {}
        self.stored = []
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self._load.ended.is_set():
                self._connection()
        except Exception as error:
            self.error = error

    def _connection(self):
        try:
            with Client(self._load.address) as client:
                for _ in range(self._per_connection):
                    if self._load.ended.is_set() or not self._exchange(client):
                        return
        except OSError:  # killed, or not there yet
            self._load.ended.wait(0.01)

    def _exchange(self, client):
        """A burst and its answers; False: the server closes the connection."""
        made = [self._event() for _ in range(self._random.randint(1, self._burst))]
        client.send(b"".join(data for _, data in made))
        for name, _ in made:
            answer = client.answer()
            if answer.is_stored:
                self.stored.append(name)
            elif answer.reason != "spool_full":
                raise AssertionError(f"{name}: {answer}")
            if answer.headers.get("connection") == "close":
                return False
        return True

    def _event(self):
        self._count += 1
        name = f"{self._number}-{self._count}"
        value = f"{self._random.getrandbits(64):x} é&=%" * self._random.randint(1, 6)
        data, self.sent[name] = self._random.choice(self._kinds)(name, value)
        return name, data


class Load:
    """`with Load(seed, address) as load:`; `address` may be set anew after a restart."""

    def __init__(self, seed, address):
        self.seed = seed
        self.address = address
        self.ended = threading.Event()
        gets, posts, both = [rudderstack, kissmetrics], [form], [rudderstack, kissmetrics, form]
        shapes = [(gets, 1, 10**9), (posts, 1, 10**9), (both, 16, 10**9), (both, 40, 5), (gets, 1, 1), (posts, 1, 1)]
        self.senders = [Sender(self, number, *shape) for number, shape in enumerate(shapes)]

    def __enter__(self):
        for sender in self.senders:
            sender.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.ended.set()
        for sender in self.senders:
            sender.thread.join(30)
            assert not sender.thread.is_alive(), f"sender {sender} hangs: seed {self.seed}"

    @property
    def sent(self):
        return {name: fields for sender in self.senders for name, fields in sender.sent.items()}

    @property
    def stored(self):
        return [name for sender in self.senders for name in sender.stored]

    def assert_conserved(self, records):
        """Every id that was answered is there once, as it was sent; nothing is there twice, or was never sent."""
        assert [sender.error for sender in self.senders if sender.error] == [], f"seed {self.seed}"
        sent, found = self.sent, {}
        for record in records:
            name = record["event"]
            assert name in sent, f"seed {self.seed}: nobody sent {record}"
            assert name not in found, f"seed {self.seed}: stored twice: {record} {found[name]}"
            found[name] = record
        lost = [name for name in self.stored if name not in found]
        assert not lost, (
            f"seed {self.seed}: answered as stored, and lost: {len(lost)} of {len(self.stored)}: {lost[:9]}"
        )
        for name, record in found.items():
            theirs = {field: record[field] for field in sent[name] if field in record}
            assert theirs == sent[name], f"seed {self.seed}: stored as {record}, sent as {sent[name]}"
            assert record["writeKey"] == WRITE_KEY
