"""Serve a witness over HTTP/1.1, with nothing but the standard library.

Requests are few and small, and whoever can reach the port may send them: so what matters is that each has an end. Head,
body and answer have a size and a time, counted from their beginnings and not from the last byte; so has a connection
that waits; and of connections there are only so many. What is not plain HTTP/1.1 with a Content-Length is refused. Put
a proxy that speaks TLS before it when others than this machine shall reach it (docs/how-to/run-a-witness.md).
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from api.logs import LOGGER
from api.witness.answering import Answer, answer_to
from api.witness.state import WitnessState
from ledger.domain.witnessing import BODY_BYTES

HEAD_BYTES: Final = 16 * 1024
CONNECTIONS: Final = 256
THREADS: Final = 4
"""Requests that are worked on at the same time; one of them writes."""

IDLE_SECONDS: Final = 30.0
"""How long a connection may wait for its next request. The head of a request must be there by then."""

REQUEST_SECONDS: Final = 10.0
"""How long a body may take to come, and an answer to be taken."""

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 2**20
"""What is read and forgotten of a request that was refused, so that a client that sends everything before it reads
anything sees why."""

STOP_SECONDS: Final = 15.0
"""How long requests may go on that are under way when the process is told to stop."""

_HEADER_END: Final = b"\r\n\r\n"
_REQUEST_LINE: Final = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.([01])", re.ASCII)
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_ONCE: Final = frozenset({"content-length", "transfer-encoding", "connection", "expect"})
"""Headers that say where a request ends: of two a proxy may mean the other one."""
_LENGTH: Final = re.compile(r"[0-9]{1,9}", re.ASCII)

_log = logging.getLogger(LOGGER)


class _BadRequestError(Exception):
    """The connection cannot go on. ``status``: what the client is told first."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    path: str
    length: int
    keep_alive: bool
    expects: bool
    """The client waits to be asked for the body."""


def serve_witness(state: WitnessState, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, and finish the requests that are under way. Raises ``OSError``."""
    asyncio.run(_serve(WitnessServer(state), host, port))


async def _serve(server: WitnessServer, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    extra = {"witness": server.name, "host": host, "port": port}
    await server.run(host, port, lambda: _log.info("witness-serving", extra=extra))
    _log.info("witness-stopped")


class WitnessServer:
    """One process that serves. Any number may on one state."""

    def __init__(self, state: WitnessState) -> None:
        self._state = state
        self._open: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._told = asyncio.Event()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="audit-ledger-witness")

    @property
    def name(self) -> str:
        """Of the witness."""
        return self._state.key.name

    def stop(self) -> None:
        """Have ``run`` end. To be called in its loop."""
        self._told.set()

    async def run(self, host: str, port: int, ready: Callable[[], None]) -> None:
        """Serve until ``stop``; calls ``ready`` when it can be reached. Raises ``OSError``."""
        with self._pool:
            server = await asyncio.start_server(self._connected, host, port, limit=HEAD_BYTES)
            ready()
            await self._told.wait()
            server.close()
            await self._finish()

    async def _finish(self) -> None:
        for task in self._waiting:
            task.cancel()
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in one
        self._open.add(task)
        # ``drain`` then waits until everything was taken: a client that does not read is not left behind with a buffer.
        writer.transport.set_write_buffer_limits(0)
        try:
            if len(self._open) > CONNECTIONS:
                busy = Answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n", headers={"Retry-After": "5"})
                await self._send(writer, busy, keep_alive=False)
                return
            while await self._serve_one(reader, writer, task):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client is gone, too slow (a time limit is an OSError, too), or done; or the process stops. Nobody
            # waits for what may not have been sent yet.
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> bool:
        """Whether another request may follow on this connection."""
        try:
            self._waiting.add(task)
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    head = _parse_head(await _read_head(reader))
            finally:
                self._waiting.discard(task)
            async with asyncio.timeout(REQUEST_SECONDS):
                body = await _read_body(reader, writer, head)
        except _BadRequestError as error:
            await self._send(writer, Answer(error.status, f"{error.detail}\n"), keep_alive=False)
            await _linger(reader, writer)
            return False
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._pool, answer_to, self._state, head.method, head.path, body)
        keep_alive = head.keep_alive and not self._told.is_set()
        await self._send(writer, answer, keep_alive=keep_alive)
        return keep_alive

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, answer: Answer, *, keep_alive: bool) -> None:
        body = answer.text.encode()
        headers = {
            "Content-Type": answer.media_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Connection": "keep-alive" if keep_alive else "close",
            **answer.headers,
        }
        lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        writer.write("\r\n".join(lines).encode("latin-1") + _HEADER_END + body)
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(_HEADER_END)
    except asyncio.LimitOverrunError:
        raise _BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too long") from None


def _parse_head(raw: bytes) -> _Head:
    request, *lines = raw.removesuffix(_HEADER_END).decode("latin-1").split("\r\n")
    first = _REQUEST_LINE.fullmatch(request)
    if first is None:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        name = found[1].lower() if found is not None else ""
        if found is None or (name in _ONCE and name in headers):
            raise _BadRequestError(HTTPStatus.BAD_REQUEST, "a header cannot be read, or stands there twice")
        headers[name] = found[2]
    return _Head(
        method=first[1],
        path=first[2],
        length=_length(headers),
        keep_alive=_keep_alive(first[3] == "1", headers),
        expects=headers.get("expect", "").lower() == "100-continue",
    )


def _length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _BadRequestError(HTTPStatus.LENGTH_REQUIRED, "a body needs a Content-Length, and comes in one piece")
    text = headers.get("content-length", "0")
    if _LENGTH.fullmatch(text) is None:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST, "the Content-Length is not a number")
    if int(text) > BODY_BYTES:
        raise _BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is above {BODY_BYTES} bytes")
    return int(text)


def _keep_alive(is_newer: bool, headers: Mapping[str, str]) -> bool:
    words = {word.strip() for word in headers.get("connection", "").lower().split(",")}
    return "keep-alive" in words or (is_newer and "close" not in words)


async def _read_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: _Head) -> bytes:
    if head.length and head.expects:
        writer.write(b"HTTP/1.1 100 Continue" + _HEADER_END)
    return await reader.readexactly(head.length)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    async with asyncio.timeout(LINGER_SECONDS):
        left = LINGER_BYTES
        while left > 0 and (data := await reader.read(HEAD_BYTES)):
            left -= len(data)
