"""Ask another server over HTTP: with a bound on the answer and on the time, and without following it anywhere else."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

_SCHEMES: Final = {"http": 80, "https": 443}


class BadAddressError(Exception):
    """An address that cannot be asked. The message says what is wrong with it."""


class UnreachableError(Exception):
    """There was no answer, or none that can be taken. The message holds nothing of the answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read to its end. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Remote:
    """A server, below a prefix. One request at a time; the connection is kept for the next one. Threads wait for each
    other.

    ``seconds``: how long a request may take, from the first byte to the last one. A redirection is an answer like any
    other: who follows it would ask somebody whom nobody has configured.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        self._url = _checked(url)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
    ) -> Reply:
        """Send a request; ``path`` comes behind the prefix. An answer of more than ``limit`` bytes is none.

        A request whose connection had died while it waited is sent again: so it must be one that can be repeated.
        Raises :class:`UnreachableError`.
        """
        target = f"{self._url.path.rstrip('/')}/{path}"
        with self._lock:
            if self._connection is not None:
                with suppress(UnreachableError):
                    return self._exchange(self._connection, method, target, body, headers, limit)
            self._connection = self._connect()
            return self._exchange(self._connection, method, target, body, headers, limit)

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._drop()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port or _SCHEMES[self._url.scheme]
        connection = http.client.HTTPConnection(host, port, timeout=self._seconds)
        # It would connect again without TLS.
        connection.auto_open = 0
        try:
            plain = socket.create_connection((host, port), self._seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._cut_off(plain):
                secure = self._url.scheme == "https"
                connection.sock = (
                    ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
                )
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"no connection ({type(error).__name__})") from error
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        limit: int,
    ) -> Reply:
        try:
            with self._cut_off(connection.sock):
                connection.request(method, target, body, {"Host": self._url.netloc, **(headers or {})})
                response = connection.getresponse()
                # Headers that break off look like headers that end: then nobody knows how long the answer is either.
                if response.length is None and not response.chunked:
                    raise UnreachableError("the answer does not say how long it is")
                content = response.read(limit + 1)
            if len(content) > limit:
                raise UnreachableError(f"the answer is above {limit} bytes")
            if response.length:
                raise UnreachableError("the answer breaks off")
            if connection.sock is None:  # the server does not keep it
                self._connection = None
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            raise UnreachableError(f"no answer ({type(error).__name__})") from error
        except UnreachableError:
            self._drop()
            raise

    @contextmanager
    def _cut_off(self, connected: socket.socket) -> Iterator[None]:
        """End the connection when the time is over: a limit for each read would let a server go on for ever."""
        # Of a copy: what is read from may be wrapped into TLS meanwhile.
        with socket.socket(fileno=os.dup(connected.fileno())) as copy:
            timer = threading.Timer(self._seconds, _shut, [copy])
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                # So that it does not come upon another connection's descriptor.
                timer.join()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _SCHEMES or not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise BadAddressError("an address begins with http://HOST or https://HOST")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadAddressError("an address has no user, no query and no fragment")
    return parts
