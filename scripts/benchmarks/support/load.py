"""Clients that cost next to nothing: processes of their own that send prepared bytes over connections that are kept."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from scripts.benchmarks.support.payloads import EventIds, Request, lines_of

CLIENT: Final = "client"
_CHUNK: Final = 65_536
_SECONDS: Final = 120.0
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a load: how many events or answers, in how many seconds, and the CPU seconds of the client."""

    count: int
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send to: a ledger of a served process."""

    port: int
    path: str
    key: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Prepare these events as NDJSON; the next ``GO`` sends them in one request."""

    target: Target
    first: int
    events: int
    first_stream: int
    streams: int


@dataclass(frozen=True, slots=True)
class Storm:
    """Prepare connections that each send one of these requests after another, and every answer must have this status;
    the next ``GO`` lets them, for so many seconds."""

    port: int
    requests: Sequence[Sequence[Request]]
    """For each connection those that it takes in turns."""
    status: int
    seconds: float


GO: Final = "go"


class LoadProcess:
    """A process that is told what to prepare and then when to go. Use it as a context manager."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def prepare(self, job: Upload | Storm) -> None:
        """Have it get ready; returns when it is."""
        self._pipe.send(job)
        self._answer()

    def go(self) -> None:
        """Have it begin what it has prepared; does not wait."""
        self._pipe.send(GO)

    def finish(self) -> Loaded:
        """Wait until it is done. Raises ``RuntimeError`` if an answer was not what it should have been."""
        loaded: Loaded = self._answer()
        return loaded

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _answer(self) -> Any:
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise RuntimeError("a client failed") from answer
        return answer


@contextmanager
def load_processes(number: int) -> Iterator[list[LoadProcess]]:
    """So many of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(LoadProcess())) for _ in range(number)]


def run_at_once(clients: Sequence[LoadProcess], jobs: Sequence[Upload | Storm]) -> Callable[[], Loaded]:
    """Prepare a job for each client; what is given back lets all of them go and adds up what they did."""
    for client, job in zip(clients, jobs, strict=True):
        client.prepare(job)

    def work() -> Loaded:
        began = time.perf_counter()
        for client in clients[: len(jobs)]:
            client.go()
        done = [client.finish() for client in clients[: len(jobs)]]
        seconds = max(time.perf_counter() - began if len(done) > 1 else done[0].seconds, 1e-9)
        return Loaded(sum(one.count for one in done), seconds, sum(one.cpu for one in done))

    return work


def _serve(pipe: Connection) -> None:
    ids = EventIds()
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            work = _prepared(job, ids)
            pipe.send(None)
            if pipe.recv() == GO:
                pipe.send(work())
        except (OSError, ValueError, http.client.HTTPException) as error:
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _prepared(job: Upload | Storm, ids: EventIds) -> Callable[[], Loaded]:
    if isinstance(job, Upload):
        numbers = range(job.first, job.first + job.events)
        body = lines_of(numbers, ids, job.first_stream, job.streams)
        return lambda: _upload(job, body)
    lines = [_Line(job.port, requests, job.status) for requests in job.requests]
    return lambda: _storm(lines, job.seconds, ids)


def _upload(job: Upload, body: bytes) -> Loaded:
    headers = {"Authorization": f"Bearer {job.target.key}", "Content-Type": "application/x-ndjson"}
    cpu, began = time.process_time(), time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", job.target.port, timeout=_SECONDS)) as connection:
        connection.request("POST", f"{job.target.path}/events", body, headers)
        answer = connection.getresponse()
        text = answer.read()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    end = json.loads(text.rstrip(b"\n").rpartition(b"\n")[2])
    if answer.status != 200 or end.get("recorded") != job.events:
        raise ValueError(f"an upload of {job.events} events was answered {answer.status} {end}")
    return Loaded(job.events, seconds, cpu)


@dataclass
class _Line:
    """One connection, on which a request is sent whenever the last one was answered."""

    port: int
    requests: Sequence[Request]
    status: int
    answered: int = 0
    _buffer: bytes = b""
    socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, ids: EventIds) -> None:
        """Send the next request."""
        self.socket.sendall(self.requests[self.answered % len(self.requests)].filled(ids))

    def receive(self) -> bool:
        """Take what has come; whether the answer is complete."""
        data = self.socket.recv(_CHUNK)
        if not data:
            raise ValueError("the server closed a connection")
        self._buffer += data
        head, end, body = self._buffer.partition(_HEAD_END)
        if not end:
            return False
        lower = head.lower()
        start = lower.index(_LENGTH) + len(_LENGTH)
        length = int(lower[start:].partition(b"\r\n")[0])
        if len(body) < length:
            return False
        if int(head[9:12]) != self.status:
            raise ValueError(f"answered {head[9:12]!r}: {body[:500]!r}")
        self._buffer = b""
        self.answered += 1
        return True


def _storm(lines: Sequence[_Line], seconds: float, ids: EventIds) -> Loaded:
    by_number = {line.socket.fileno(): line for line in lines}
    cpu, began = time.process_time(), time.perf_counter()
    with closing(select.epoll()) as poll:
        for number, line in by_number.items():
            poll.register(number, select.EPOLLIN)
            line.send(ids)
        open_lines = len(lines)
        while open_lines:
            ready = poll.poll(_SECONDS)
            if not ready:
                raise TimeoutError("the server has not answered")
            for number, _ in ready:
                line = by_number[number]
                if not line.receive():
                    continue
                if time.perf_counter() - began < seconds:
                    line.send(ids)
                else:
                    open_lines -= 1
    taken, cpu = time.perf_counter() - began, time.process_time() - cpu
    answers = sum(line.answered for line in lines)
    for line in lines:
        line.socket.close()
    return Loaded(answers, taken, cpu)
