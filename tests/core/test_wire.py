"""Plain sockets that the core reads and writes itself: the same bytes as without a socket, whatever the peer does.

What requests mean is in tests/vectors; here they go over loopback sockets, one after the other in one thread: the test
is both the client and the event loop.
"""

from __future__ import annotations

import os
import re
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vectors
from fastpixel._core import Intake, Plan, Wires
from fastpixel.event import FIELDS
from fastpixel.sockets import raise_descriptor_limit

PLAN = Plan(vectors.DIALECTS, fields=FIELDS)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GOOD = b"GET /e?_k=k&_p=p&_n=n HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
ROBOTS = b"GET /robots.txt HTTP/1.1\r\nHost: t\r\n\r\n"  # is answered at once
BAD = b"rubbish\r\n\r\n"
POST = b"POST /e HTTP/1.1\r\nHost: t\r\nContent-Length: 14\r\n\r\n_k=k&_p=p&_n=n"
LIMITS = (10.0, 30.0, 75.0, 2.0)
PATIENCE = 10.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset


class Port:
    """A listening socket with its Wires, and the event loop of both."""

    def __init__(self, door: Intake, listener: socket.socket) -> None:
        self.door = door
        self.listener = listener
        listener.setblocking(False)
        listener.listen(2000)
        self.wires = Wires(door)
        self.wires.listen(listener.fileno())
        self.clients: list[socket.socket] = []

    def client(self, receive_buffer: int = 0) -> socket.socket:
        client = socket.socket(self.listener.family)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self.listener.getsockname())
        client.settimeout(PATIENCE)
        self.clients.append(client)
        return client

    def until(self, done: Callable[[], object], why: str) -> None:
        """Turns until it is so; a turn is made only when the descriptor says that there is something to do."""
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, why
            if select.select([self.wires.fileno()], [], [], 0.05)[0]:
                self.wires.turn()

    def turn(self) -> None:
        """Does everything that is ready."""
        while select.select([self.wires.fileno()], [], [], 0)[0]:
            self.wires.turn()

    def store(self, stored: bool = True) -> int:
        batch = self.door.take()
        assert batch is not None
        self.door.done(batch, stored)
        return batch.event_count

    def pending(self, count: int) -> None:
        self.until(lambda: self.door.pending >= count, f"{count} events do not arrive")

    def close(self) -> None:
        """Gives back all descriptors, that of the wires too: a test may open more ports than a process may have."""
        if self.wires is None:
            return
        for client in self.clients:
            client.close()
        self.wires.abort()
        self.wires = None
        self.listener.close()


@pytest.fixture
def open_port() -> Iterator[Callable[..., Port]]:
    """port(listener=..., door=... or what makes one: on_pending=..., limits of the Intake)."""
    ports: list[Port] = []

    def make(listener: socket.socket | None = None, door: Intake | None = None, **limits: object) -> Port:
        if listener is None:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
        limits.setdefault("now", lambda: vectors.NOW)
        ports.append(Port(door or Intake(PLAN, **limits), listener))
        return ports[-1]

    yield make
    for port in ports:
        port.close()


@pytest.fixture
def port(open_port: Callable[..., Port]) -> Port:
    return open_port()


def statuses(data: bytes) -> list[int]:
    return [answer.status for answer in vectors.answers(data, [])]


def received(client: socket.socket, count: int) -> list[int]:
    """The statuses of that many answers, and nothing after them."""
    data = b""
    while len(found := statuses(data) if data.endswith((b";", b"\n")) else []) < count:
        data += client.recv(65536) or pytest.fail(f"the connection ended after {data!r}")
    return found


def ended(client: socket.socket) -> bool:
    """Whether the server has closed, in order."""
    return client.recv(1) == b""


# Order and edges ----------------------------------------------------------------------------------------------


def test_an_event_is_answered_after_its_commit(port: Port):
    client = port.client()
    client.sendall(GOOD)
    port.pending(1)
    assert select.select([client], [], [], 0)[0] == []
    port.store()
    assert received(client, 1) == [200]
    assert len(port.wires) == 1


def test_a_connection_goes_on(port: Port):
    client = port.client()
    for _ in range(3):
        client.sendall(GOOD)
        port.pending(1)
        port.store()
        assert received(client, 1) == [200]


def test_a_request_may_come_in_pieces(port: Port):
    client = port.client()
    for byte in GOOD[:-1]:
        client.sendall(bytes([byte]))
        port.turn()
        assert port.door.pending == 0
    client.sendall(GOOD[-1:])
    port.pending(1)
    port.store()
    assert received(client, 1) == [200]


def test_more_than_one_read_is_read(port: Port):
    """Sockets are reported on their edges: what a turn leaves must be asked for again."""
    client = port.client()
    client.setblocking(False)
    rest = memoryview(ROBOTS * 4000)
    answers = bytearray()
    while answers.count(b"HTTP/1.1 200 OK") < 4000 or not answers.endswith(b"Disallow: /\n"):
        waiting = [client, port.wires.fileno()]
        readable, writable, _ = select.select(waiting, [client] if rest else [], [], PATIENCE)
        assert readable or writable, f"{len(rest)} bytes are not read, or answers are missing"
        rest = rest[client.send(rest) :] if writable else rest
        answers += client.recv(1 << 20) if client in readable else b""
        port.turn()
    assert not rest


def test_neighbours_are_judged_together_and_one_by_one(port: Port):
    """Requests of several connections are one text for httptools; what it refuses costs none but its own."""
    clients = [port.client() for _ in range(5)]
    for client in clients:
        client.sendall(ROBOTS)
    port.until(lambda: len(port.wires) == 5, "not all are accepted")
    port.turn()
    assert [received(client, 1) for client in clients] == [[200]] * 5
    odd = GOOD.replace(b"Host", b"X(y: 1\r\nHost")  # no header name; only httptools looks at that
    sent = [GOOD, odd, GOOD * 3, GOOD[:-2], POST + GOOD]
    for client, data in zip(clients, sent, strict=True):
        client.sendall(data)
    port.turn()
    assert port.store() == 1 + 3 + 1 + 1
    assert received(clients[1], 1) == [400]
    clients[3].sendall(GOOD[-2:])
    port.pending(1)
    port.store()
    answers = [received(clients[i], count) for i, count in ((0, 1), (2, 3), (3, 1), (4, 2))]
    assert answers == [[200], [200] * 3, [200], [200] * 2]


def test_more_neighbours_than_are_read_at_once(port: Port):
    clients = [port.client() for _ in range(200)]
    for depth in (1, 1, 7):
        for client in clients:
            client.sendall(GOOD * depth)
        stored = 0
        while stored < 200 * depth:
            port.pending(1)
            stored += port.store()
        assert all(received(client, depth) == [200] * depth for client in clients)


def test_the_end_may_come_with_the_last_bytes(port: Port):
    """Both are one edge."""
    client = port.client()
    client.sendall(ROBOTS)
    port.until(lambda: select.select([client], [], [], 0)[0], "no answer")
    assert received(client, 1) == [200]
    client.sendall(GOOD)
    client.shutdown(socket.SHUT_WR)
    port.pending(1)
    port.turn()
    port.store()
    assert received(client, 1) == [200]
    assert ended(client)
    assert len(port.wires) == 0


def test_the_same_as_without_a_socket(open_port: Callable[..., Port]):
    """The plain twin of a wire is a Connection that is fed by hand."""
    for vector in vectors.load():
        twin = vectors.exchange(vectors.intake_of(vector), vectors.whole(vector), vector.heads, peer="127.0.0.1")
        port = open_port(door=vectors.intake_of(vector))
        client = port.client()
        client.sendall(vectors.wire(vector.request))
        client.shutdown(socket.SHUT_WR)
        client.setblocking(False)
        found, data = vectors.Exchange([], [], [], True), bytearray()
        port.until(lambda p=port, c=client, f=found, d=data: served(p, c, f, d), f"{vector.id} does not end")
        found.answers = list(vectors.answers(bytes(data), vector.heads))
        assert without_ids(found) == without_ids(twin), vector.id
        port.close()


def served(port: Port, client: socket.socket, found: vectors.Exchange, data: bytearray) -> bool:
    """Stores what has come and reads what was answered; whether that was all."""
    vectors.store(port.door, found)
    try:
        piece = client.recv(65536)
    except BlockingIOError:
        return False
    data += piece
    return not piece


def without_ids(found: vectors.Exchange) -> str:
    """All that came out; ids that are made anew each time are only said to be there."""
    return UUID.sub("an id", repr([found.answers, found.records, found.rejects]))


# Ends ---------------------------------------------------------------------------------------------------------


def test_the_last_answer_ends_the_connection(port: Port):
    client = port.client()
    client.sendall(LAST)
    port.pending(1)
    port.store()
    assert received(client, 1) == [200]
    assert ended(client)
    assert len(port.wires) == 0


def test_who_ends_his_side_is_still_answered(port: Port):
    client = port.client()
    client.sendall(GOOD)
    client.shutdown(socket.SHUT_WR)
    port.pending(1)
    port.turn()
    port.store()
    assert received(client, 1) == [200]
    assert ended(client)
    assert len(port.wires) == 0


def test_who_ends_between_requests_is_forgotten(port: Port):
    client = port.client()
    client.sendall(GOOD)
    port.pending(1)
    port.store()
    client.close()
    port.until(lambda: not len(port.wires), "the end is not noticed")


@pytest.mark.parametrize("sent", [b"", GOOD[:10], GOOD])
def test_a_reset_is_no_error(port: Port, sent: bytes):
    client = port.client()
    client.sendall(sent)
    port.turn()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    port.until(lambda: not len(port.wires), "the reset is not noticed")
    if port.door.pending:
        assert port.store() == 1


def test_an_answer_to_nobody_is_dropped(port: Port):
    client = port.client()
    client.sendall(LAST)
    port.pending(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    assert port.store() == 1
    port.until(lambda: not len(port.wires), "the connection stays")


def test_after_an_error_the_rest_is_read_and_dropped(port: Port):
    """Bytes that nobody reads would make the kernel reset the connection, and the answer would be lost."""
    client = port.client()
    client.sendall(BAD)
    port.turn()
    client.sendall(b"more" * 10_000)
    port.turn()
    assert received(client, 1) == [400]
    assert ended(client)
    assert len(port.wires) == 1
    client.close()
    port.until(lambda: not len(port.wires), "the lingering connection stays")


def test_lingering_ends_too(port: Port):
    port.door.sweep(0.0)
    client = port.client()
    client.sendall(BAD)
    port.turn()
    assert received(client, 1) == [400]
    port.door.sweep(1.9)
    port.wires.expire(*LIMITS)
    assert len(port.wires) == 1
    port.door.sweep(2.1)
    port.wires.expire(*LIMITS)
    assert len(port.wires) == 0


def test_what_lasts_too_long_ends(port: Port):
    port.door.sweep(0.0)
    silent, slow, idle = (port.client() for _ in range(3))
    slow.sendall(GOOD[:10])
    idle.sendall(GOOD)
    port.pending(1)
    port.store()
    port.turn()
    assert len(port.wires) == 3
    port.door.sweep(10.1)
    port.wires.expire(*LIMITS)
    assert received(slow, 1) == [408]
    assert ended(silent)
    assert received(idle, 1) == [200]
    port.door.sweep(75.1)
    port.wires.expire(*LIMITS)
    assert ended(idle)


def test_draining_closes_what_is_between_requests(port: Port):
    idle, busy, fresh = (port.client() for _ in range(3))
    for client in (idle, busy):
        client.sendall(GOOD)
    port.pending(2)
    port.store()
    assert received(idle, 1) == received(busy, 1) == [200]
    busy.sendall(GOOD)
    port.pending(1)
    port.until(lambda: len(port.wires) == 3, "the third connection is not accepted")
    port.door.drain()
    port.wires.drain(True)
    assert ended(idle)
    assert len(port.wires) == 2
    port.wires.drain(False)
    assert ended(fresh)
    port.store()
    assert received(busy, 1) == [200]
    busy.sendall(GOOD)
    port.pending(1)
    port.store()
    assert received(busy, 1) == [200]
    assert ended(busy)


# Back-pressure ------------------------------------------------------------------------------------------------


def test_who_does_not_read_is_not_read(port: Port):
    client = port.client(receive_buffer=4096)
    client.setblocking(False)
    sent = 0
    while select.select([], [client], [], 0.2)[1]:
        sent += client.send(ROBOTS * 1000)
        port.turn()
    assert sent < 64 << 20, "the server reads on and on"
    client.settimeout(PATIENCE)
    whole, rest = divmod(sent, len(ROBOTS))
    answers = 0
    tail = b""
    while answers < whole:
        port.turn()
        data = tail + client.recv(1 << 16)
        answers += data.count(b"HTTP/1.1 200 OK")
        tail = data[-14:] if not data.endswith(b"HTTP/1.1 200 OK") else b""
    client.sendall(ROBOTS[rest:] if rest else ROBOTS)
    port.until(lambda: select.select([client], [], [], 0)[0], "the last answer does not come")
    assert len(port.wires) == 1


def test_who_had_to_wait_goes_on(open_port: Callable[..., Port]):
    """Bytes that came while nothing was read are on no new edge."""
    port = open_port(max_inflight_bytes=100)
    first, second = port.client(), port.client()
    first.sendall(GOOD)
    port.pending(1)
    second.sendall(GOOD * 2)
    first.sendall(GOOD)
    port.turn()
    assert port.door.pending == 1
    counts = []
    while sum(counts) < 4:
        counts.append(port.store())
        port.until(lambda: port.door.pending or sum(counts) == 4, "a waiting request is forgotten")
    assert received(first, 2) == received(second, 2) == [200, 200]


def test_a_flood_of_what_is_not_stored_does_not_hold_a_turn(port: Port):
    """Commits, timeouts and signals wait for the end of a turn."""
    clients = [port.client() for _ in range(8)]
    for client in clients:
        client.sendall(ROBOTS * 5000)
    turns = 0
    while select.select([port.wires.fileno()], [], [], 0)[0]:
        port.wires.turn()
        turns += 1
    assert turns >= 3, "1.5 MB are too much for a turn"


def test_a_batch_that_waits_keeps_nobody_from_being_read(port: Port):
    """While a disk is slow, what needs no disk is answered, and no turn is one without work."""
    storing, asking = port.client(), port.client()
    storing.sendall(GOOD * 600)
    port.pending(600)
    port.turn()
    assert select.select([port.wires.fileno()], [], [], 0)[0] == []
    asking.sendall(ROBOTS)
    port.until(lambda: select.select([asking], [], [], 0)[0], "a large batch stops the reading")
    assert received(asking, 1) == [200]
    port.store()
    assert received(storing, 600) == [200] * 600


def test_what_follows_the_last_request_destroys_no_answer(port: Port):
    client = port.client()
    client.sendall(LAST)
    port.pending(1)
    client.sendall(GOOD * 10)
    port.store()
    assert received(client, 1) == [200]
    assert ended(client)


def test_a_socket_that_epoll_does_not_take_is_closed(port: Port):
    """As when the kernel is out of memory; the answers of others are given all the same."""
    clients = [port.client() for _ in range(3)]
    for client in clients[:2]:
        client.sendall(GOOD)
    port.pending(2)
    clients[0].sendall(BAD)  # is answered after the event, and then lingers, which asks epoll for it
    port.turn()
    poller = os.dup(port.wires.fileno())
    with Path(os.devnull).open("rb") as other:
        os.dup2(other.fileno(), port.wires.fileno())
    port.store()
    assert received(clients[1], 1) == [200]
    assert len(port.wires) == 2
    port.wires.expire(*LIMITS)
    os.dup2(poller, port.wires.fileno())
    os.close(poller)
    clients[2].sendall(GOOD)
    port.pending(1)
    port.store()
    assert received(clients[2], 1) == [200]


def test_a_full_worker_refuses(open_port: Callable[..., Port]):
    port = open_port(max_connections=1)
    first, second = port.client(), port.client()
    port.until(lambda: len(port.wires) == 1, "nobody is accepted")
    port.turn()
    assert ended(second)
    first.sendall(GOOD)
    port.pending(1)
    port.store()
    assert received(first, 1) == [200]


def test_without_descriptors_the_listener_rests(port: Port):
    client = port.client()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        port.wires.turn()
        assert port.wires.starved
        assert len(port.wires) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    port.turn()
    assert len(port.wires) == 0, "a starved listener must not be asked again at once"
    port.wires.expire(*LIMITS)
    assert not port.wires.starved
    client.sendall(GOOD)
    port.pending(1)
    port.store()
    assert received(client, 1) == [200]


def test_many_connections(port: Port):
    raise_descriptor_limit()
    clients = [port.client() for _ in range(1200)]
    for client in clients:
        client.sendall(GOOD)
    seen = 0
    while seen < len(clients):
        port.pending(1)
        seen += port.store()
    assert all(received(client, 1) == [200] for client in clients)
    assert len(port.wires) == 1200
    port.wires.abort()
    assert len(port.wires) == 0


def test_a_defect_costs_one_connection(open_port: Callable[..., Port]):
    """What is raised reaches the event loop; the sockets that were ready beside it miss nothing."""
    port = open_port(on_pending=lambda: next(steps))
    steps = iter(())  # the first call raises StopIteration
    bad, good = port.client(), port.client()
    port.until(lambda: len(port.wires) == 2, "nobody is accepted")
    bad.sendall(GOOD)
    good.sendall(ROBOTS)
    time_to_come = time.monotonic() + PATIENCE
    raised = False
    while not (raised and select.select([good], [], [], 0)[0]) and time.monotonic() < time_to_come:
        if select.select([port.wires.fileno()], [], [], 0.05)[0]:
            try:
                port.wires.turn()
            except StopIteration:
                raised = True
    assert raised
    assert received(good, 1) == [200]
    assert ended(bad)
    assert len(port.wires) == 1
    assert port.store() == 1, "the event was taken before the defect"


# Addresses ----------------------------------------------------------------------------------------------------


def record_of(port: Port) -> dict[str, object]:
    batch = port.door.take()
    assert batch is not None
    (record,) = vectors.unpacked(batch.events)
    port.door.done(batch, True)
    return record


def test_the_peer_is_recorded(port: Port):
    port.client().sendall(GOOD)
    port.pending(1)
    assert record_of(port)["context"]["ip"] == "127.0.0.1"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6")
def test_the_peer_is_recorded_in_ipv6(open_port: Callable[..., Port]):
    listener = socket.socket(socket.AF_INET6)
    listener.bind(("::1", 0))
    port = open_port(listener)
    port.client().sendall(GOOD)
    port.pending(1)
    assert record_of(port)["context"]["ip"] == "::1"


def test_a_unix_socket_has_no_address(open_port: Callable[..., Port], tmp_path: Path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    port = open_port(listener)
    client = port.client()
    client.sendall(GOOD * 2)
    port.pending(2)
    batch = port.door.take()
    assert batch is not None
    assert all("ip" not in record.get("context", {}) for record in vectors.unpacked(batch.events))
    port.door.done(batch, True)
    assert received(client, 2) == [200, 200]


def test_listening_can_end(port: Port):
    first = port.client()
    port.until(lambda: len(port.wires) == 1, "nobody is accepted")
    port.wires.ignore()
    second = port.client()
    first.sendall(GOOD)
    port.pending(1)
    port.store()
    assert received(first, 1) == [200]
    assert len(port.wires) == 1
    second.close()


def test_only_a_listening_socket_can_be_listened_to(port: Port):
    with pytest.raises(OSError, match="epoll_ctl on the listening socket -1"):
        port.wires.listen(-1)


def test_requests_wait_while_their_client_does_not_read(port):
    """Small requests with large answers: what is written for somebody who does not read is bounded."""
    short = b"GET /robots.txt HTTP/1.1\r\nHost:\r\n\r\n"
    client = port.client()
    left, data = memoryview(short * 20_000), bytearray()
    client.setblocking(False)
    end = time.monotonic() + PATIENCE
    while data.count(b"Disallow") < 20_000:
        assert time.monotonic() < end, len(data)
        for _ in range(4):
            port.turn()
            if left and select.select([], [client], [], 0)[1]:
                left = left[client.send(left) :]
        if select.select([client], [], [], 0.01)[0]:
            data += client.recv(1 << 20)
    assert not left
    assert len(port.wires) == 1
