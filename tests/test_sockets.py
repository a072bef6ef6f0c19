"""Listening sockets: one address, several sockets, and nobody else there."""

import socket
from types import SimpleNamespace

import pytest

from fastpixel import sockets
from fastpixel.sockets import ListenError, listen
from fastpixel.units import Bind

ANY = Bind("127.0.0.1", 0)


@pytest.fixture
def opened():
    """Closes what a test has opened."""
    held = []
    yield held.extend
    for sock in held:
        sock.close()


def port_of(sock):
    return sock.getsockname()[1]


def accepted(socks):
    """The sockets that a connection waits on."""
    found = []
    for sock in socks:
        sock.settimeout(0.05)
        try:
            found.append(sock.accept()[0])
        except TimeoutError:
            continue
    for connection in found:
        connection.close()
    return len(found)


def test_all_sockets_of_an_address_have_its_port(opened):
    socks = listen(ANY, 3)
    opened(socks)
    assert len({port_of(sock) for sock in socks}) == 1
    assert len({sock.fileno() for sock in socks}) == 3
    with socket.create_connection(socks[0].getsockname()):
        assert accepted(socks) == 1


def test_an_address_in_use_is_an_error_that_says_what_to_do(opened):
    socks = listen(ANY, 2)
    opened(socks)
    with pytest.raises(ListenError, match=rf"cannot listen on 127.0.0.1:{port_of(socks[0])}: .*--bind"):
        listen(Bind("127.0.0.1", port_of(socks[0])), 2)


def test_an_address_is_free_once_its_sockets_are_closed():
    for sock in (first := listen(ANY, 2)):
        sock.close()
    assert first
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = port_of(holder)
    for sock in listen(Bind("127.0.0.1", port), 2):
        assert port_of(sock) == port
        sock.close()


def test_a_host_that_does_not_exist():
    with pytest.raises(ListenError, match=r"cannot listen on no-such-host\.invalid:80"):
        listen(Bind("no-such-host.invalid", 80), 1)


def test_a_unix_socket_is_one_for_all(opened, tmp_path):
    path = tmp_path / "s"
    socks = listen(Bind(path=str(path)), 3)
    opened(socks)
    assert socks[0] is socks[1] is socks[2]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert accepted(socks[:1]) == 1


def test_a_socket_left_by_a_killed_service_is_replaced(opened, tmp_path):
    path = tmp_path / "s"
    listen(Bind(path=str(path)), 1)[0].close()
    assert path.is_socket()
    opened(listen(Bind(path=str(path)), 1))


def test_a_unix_socket_in_use_is_left_alone(opened, tmp_path):
    path = tmp_path / "s"
    opened(listen(Bind(path=str(path)), 1))
    with pytest.raises(ListenError, match="another service"):
        listen(Bind(path=str(path)), 1)
    assert path.is_socket()


def test_a_file_is_never_removed(tmp_path):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ListenError, match="cannot listen on unix:"):
        listen(Bind(path=str(tmp_path / "s")), 1)
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize(
    ("family", "name", "url"),
    [
        (socket.AF_INET, ("127.0.0.1", 8080), "http://127.0.0.1:8080"),
        (socket.AF_INET6, ("::1", 8080, 0, 0), "http://[::1]:8080"),
        (socket.AF_UNIX, "/run/s", "unix:/run/s"),
    ],
)
def test_what_a_person_would_type(family, name, url):
    sock = SimpleNamespace(family=family, getsockname=lambda: name)
    assert sockets.url(sock) == url
    assert sockets.url(sock, "https") == url.replace("http:", "https:")
