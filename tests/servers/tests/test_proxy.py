"""The bad network of the tests: what each switch does to connections that are open and to new ones."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from wf_testservers.process import ServerError
from wf_testservers.proxy import Proxy


def echo(connection: socket.socket) -> None:
    """Sends back what comes, until the end."""
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)


def accept(listener: socket.socket, threads: list[threading.Thread]) -> None:
    """A thread for each client, until the listener is shut."""
    with contextlib.suppress(OSError):
        while True:
            thread = threading.Thread(target=echo, args=(listener.accept()[0],))
            threads.append(thread)
            thread.start()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that echoes."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener, threads))
        accepting.start()
        with Proxy(listener.getsockname()) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        for thread in (accepting, *threads):
            thread.join(10)
            assert not thread.is_alive()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    answer = b""
    while len(answer) < len(data) and (part := client.recv(65536)):
        answer += part
    return answer


def ask_for_ever(client: socket.socket) -> None:
    while True:
        ask(client)


def silent(client: socket.socket) -> bool:
    """Whether nothing comes, not even an end."""
    client.settimeout(0.2)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def test_a_healthy_network_passes_everything_on(proxy: Proxy):
    """More bytes than any buffer holds come back, and the end of a side is passed on as an end."""
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(b"x" * 5_000_000,))
        sender.start()
        count = 0
        while count < 5_000_000:
            count += len(client.recv(65536))
        sender.join(5)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_delay_is_latency_each_way(proxy: Proxy):
    """A round trip takes twice the delay; many messages on the way take no longer; healing delivers them at once."""
    with connect(proxy) as client:
        proxy.delay(0.2)
        begun = time.monotonic()
        for _ in range(10):
            client.sendall(b"12345")
        count = 0
        while count < 50:
            count += len(client.recv(50))
        assert 0.4 <= time.monotonic() - begun < 2
        proxy.delay(60)
        client.sendall(b"late")
        assert silent(client)
        proxy.heal()
        assert client.recv(4) == b"late"


def test_open_connections_are_reset_and_new_ones_work(proxy: Proxy):
    """The client sees RST, not an end."""
    with connect(proxy) as client, connect(proxy) as other:
        assert ask(client) == b"hello"
        assert ask(other) == b"hello"
        proxy.drop()
        for connection in (client, other):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_a_connection_is_reset_in_the_middle_of_an_answer(proxy: Proxy):
    """After so many bytes, both ways counted."""
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.drop(after=8)
        with pytest.raises(ConnectionResetError):
            ask_for_ever(client)


def test_loss_resets_connections_at_random(proxy: Proxy):
    """The same seed loses the same; without loss the next connection lives."""
    proxy.loss(0.2, seed=1)
    with connect(proxy) as client, pytest.raises(ConnectionError):
        ask_for_ever(client)
    proxy.heal()
    with connect(proxy) as client:
        assert all(ask(client) == b"hello" for _ in range(50))


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)])
def test_a_half_open_connection_is_silent_until_it_is_healed_by_a_reset(proxy: Proxy, up: bool, down: bool):
    """Bytes vanish one way or both, new clients connect and hear nothing; what lost bytes never goes on with a hole."""
    with connect(proxy) as quiet, connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.half_open(up=up, down=down)
        client.sendall(b"lost")
        assert silent(client)
        with connect(proxy) as late:
            late.sendall(b"lost")
            assert silent(late)
            proxy.heal()
            with pytest.raises(ConnectionResetError):
                late.recv(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert ask(quiet) == b"hello"


def test_the_end_of_a_half_open_connection_is_not_heard(proxy: Proxy):
    """The client closed; the server knows nothing of it until the network heals."""
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.half_open()
        client.shutdown(socket.SHUT_WR)
        assert silent(client)
        assert proxy.connections == 1


def test_refused_clients_are_let_in_again_at_the_same_port(proxy: Proxy):
    """What is open stays open."""
    with connect(proxy) as client:
        assert ask(client) == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(client) == b"hello"
        proxy.heal()
        with connect(proxy) as other:
            assert ask(other) == b"hello"


def test_a_client_of_a_server_that_is_not_there_is_reset():
    """The proxy connects at once and gives up when its server does not."""
    # The reset may come before `connect` returns.
    with Proxy(("127.0.0.1", 1)) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


def test_a_proxy_that_ended_says_so():
    """A switch after the end is a mistake of the test."""
    with Proxy(("127.0.0.1", 1)) as proxy:
        pass
    with pytest.raises(ServerError, match="does not run"):
        proxy.heal()
