"""Asking others over HTTP ends, whatever they do, and leads nowhere else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from api.outgoing import BadAddressError, Remote, UnreachableError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def answering(*serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does this with each connection in turn. Gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for one in serve:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    one(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def says(*answers: bytes) -> Callable[[socket.socket], None]:
    """Gives these answers on one connection, then ends it."""

    def serve(connection: socket.socket) -> None:
        for answer in answers:
            connection.recv(65536)
            connection.sendall(answer)

    return serve


def trickle(connection: socket.socket) -> None:
    """Sends a byte now and then, for as long as it is let."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def remote(port: int, seconds: float = 10.0) -> contextlib.closing[Remote]:
    """Below a prefix."""
    return contextlib.closing(Remote(f"http://127.0.0.1:{port}/log/", seconds=seconds))


def test_a_connection_is_kept_and_made_anew_when_it_has_died() -> None:
    """Two requests on the first, and the third on another; the prefix stands before each path."""
    asked = []

    def first(connection: socket.socket) -> None:
        for _ in range(2):
            asked.append(connection.recv(65536).split(b"\r\n")[0])
            connection.sendall(OK)

    with answering(first, says(OK)) as port, remote(port) as server:
        assert [server.ask("GET", path, limit=10).body for path in ("a", "b/c", "d")] == [b"ok"] * 3
    assert asked == [b"GET /log/a HTTP/1.1", b"GET /log/b/c HTTP/1.1"]


def test_a_server_that_takes_its_time_is_given_up() -> None:
    """The time counts for the whole answer, however many bytes come in between."""
    began = time.monotonic()
    with answering(trickle) as port, remote(port, 0.4) as server, pytest.raises(UnreachableError):
        server.ask("GET", "a", limit=10)
    assert 0.3 < time.monotonic() - began < 8


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890",
        b"HTTP/1.1 200 OK\r\n\r\n01234567890",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n01234",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n012",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: y",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_what_is_too_long_or_breaks_off_is_no_answer(answer: bytes) -> None:
    """Half of an answer could be taken for a whole one."""
    with answering(says(answer)) as port, remote(port) as server, pytest.raises(UnreachableError):
        server.ask("GET", "a", limit=10)


def test_a_redirection_is_not_followed() -> None:
    """Nobody is asked who is not configured."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with answering(says(answer)) as port, remote(port) as server:
        assert server.ask("POST", "a", b"body", limit=10).status == 302


def test_nobody_there_is_said_so() -> None:
    """As is a server that speaks no TLS where TLS is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with remote(port) as server, pytest.raises(UnreachableError):
        server.ask("GET", "a", limit=10)
    with answering(says(OK)) as other:
        secure = Remote(f"https://127.0.0.1:{other}/", seconds=5)
        with pytest.raises(UnreachableError):
            secure.ask("GET", "a", limit=10)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/",
        "host/path",
        "http://",
        "http:///path",
        "http://host:x/",
        "http://user:password@host/",
        "http://host/?query",
        "http://host/#fragment",
        "http://host/a b",
        "http://host/\n",
        "http://h\u00f6st/",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    """Before anything is sent anywhere; the message repeats nothing of it."""
    with pytest.raises(BadAddressError) as caught:
        Remote(url, seconds=1)
    assert "password" not in str(caught.value)
