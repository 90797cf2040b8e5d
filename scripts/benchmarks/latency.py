"""How long a lone append takes, beside what a request and a commit take alone; and how soon followers have an event."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from scripts.benchmarks.frame import AtMost, Engine, Report
from scripts.benchmarks.support.payloads import EventIds, new_event, visit
from tests.support.server import ServedLedger

APPENDS: Final = 300
FULL_APPENDS: Final = 3_000
FOLLOWED: Final = 100
FULL_FOLLOWED: Final = 1_000
STREAMS: Final = 50
PAUSE_SECONDS: Final = 0.03
"""Between two appends that are followed: so that the follower waits again."""

FOLLOW_SECONDS: Final = 0.02
FOLLOW_BAR: Final = AtMost(1)
_WAIT: Final = 10
_SECONDS: Final = 60.0
_MESSAGE_ID: Final = re.compile(rb"^id: ?([0-9]+)\r?\n", re.MULTILINE)
_MILLISECOND: Final = 1e-3


def run(report: Report) -> None:
    """On each engine."""
    for engine in report.engines:
        report.heading(f"latency over HTTP on {engine}")
        settings = {"AUDIT_LEDGER_WORKERS": "2"} if engine == "postgresql" else {}
        with report.served(engine, settings) as server:
            path = server.make_ledger("latency")
            appender = _Connection(server, path)
            for stream in range(STREAMS):
                appender.append(stream)
            with _commits(report, engine) as commit:
                _measure_lone_appends(report, appender, commit)
            for name, follower in (("SSE", _follow_by_events), ("long polls", _follow_by_polls)):
                _measure_following(report, appender, name, follower, server)


class _Connection:
    """One client on one connection that is kept."""

    def __init__(self, server: ServedLedger, path: str) -> None:
        self.path = path
        self._ids = EventIds()
        self._headers = {"Authorization": f"Bearer {server.client.key}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)

    def append(self, stream: int) -> int:
        """Append one event; gives its position."""
        answer = self._post(json.dumps(new_event(stream, stream % STREAMS, self._ids.next())).encode(), 201)
        position: int = answer["events"][0]["position"]
        return position

    def nothing(self) -> None:
        """A request that does nothing: see ``payloads.nothing``."""
        self._post(b'{"events":[]}', 422)

    def _post(self, body: bytes, status: int) -> Any:
        self._connection.request("POST", f"{self.path}/events", body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != status:
            raise RuntimeError(f"the benchmark was answered {answer.status}: {text[:500]!r}")
        return json.loads(text)


@contextmanager
def _commits(report: Report, engine: Engine) -> Iterator[Callable[[int], object]]:
    """One row with the same data committed to the same kind of database, as durably, by nobody but a driver."""
    data = json.dumps(visit(1))
    if engine == "postgresql":
        name = report.postgres().create_database().rpartition("/")[2]
        with report.postgres().connect(name) as connection:
            connection.execute("CREATE TABLE bare (number bigint PRIMARY KEY, data text)")
            yield lambda number: connection.execute("INSERT INTO bare VALUES (%s, %s)", [number, data])
        return
    with (
        tempfile.TemporaryDirectory(prefix="audit-ledger-bench-") as folder,
        closing(sqlite3.connect(Path(folder, "bare.db"), isolation_level=None)) as file,
    ):
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.execute("CREATE TABLE bare (number INTEGER PRIMARY KEY, data TEXT)")
        yield lambda number: file.execute("INSERT INTO bare VALUES (?, ?)", [number, data])


def _measure_lone_appends(report: Report, appender: _Connection, commit: Callable[[int], object]) -> None:
    appends, nothings, bare = [], [], []
    for number in range(report.size(APPENDS, FULL_APPENDS)):
        appends.append(_seconds(appender.append, number))
        nothings.append(_seconds(lambda _: appender.nothing(), number))
        bare.append(_seconds(commit, number))
    together = [nothing + alone for nothing, alone in zip(nothings, bare, strict=True)]
    report.ratio_of("a lone append ÷ a request that does nothing and one bare commit", together, appends)
    report.ratio_of("    the same ÷ the request alone", nothings, appends)
    report.ratio_of("    the same ÷ the commit alone", bare, appends)
    report.ratio_of("    its 99th percentile ÷ its median", [statistics.median(appends)], [_percentile(appends, 99)])


Seen = dict[int, float]
"""By position: when a follower had the event."""


def _measure_following(
    report: Report,
    appender: _Connection,
    name: str,
    follow: Callable[[ServedLedger, str, int, Seen, threading.Event], None],
    server: ServedLedger,
) -> None:
    """Append one at a time, while somebody follows on another connection."""
    seen: Seen = {}
    after, stop = appender.append(0), threading.Event()
    thread = threading.Thread(target=follow, args=(server, appender.path, after, seen, stop), daemon=True)
    thread.start()
    sent, acknowledged = {}, {}
    for number in range(report.size(FOLLOWED, FULL_FOLLOWED)):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        position = appender.append(number)
        acknowledged[position], sent[position] = time.perf_counter(), began
    deadline = time.monotonic() + _WAIT
    while acknowledged.keys() - seen.keys() and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    stop.set()
    # What ends a follower that waits.
    appender.append(0)
    thread.join(_WAIT)
    missing = acknowledged.keys() - seen.keys()
    if missing:
        raise RuntimeError(f"{len(missing)} events never came to a follower ({name})")
    # The first ones come while the follower is still connecting.
    positions = sorted(acknowledged)[len(acknowledged) // 10 :]
    behind = [max(0.0, seen[position] - acknowledged[position]) for position in positions]
    whole = [seen[position] - sent[position] for position in positions]
    milliseconds = f"{FOLLOW_SECONDS / _MILLISECOND:.0f} ms"
    report.ratio_of(
        f"{name}: from the append's answer to the follower ÷ {milliseconds}", [FOLLOW_SECONDS], behind, FOLLOW_BAR
    )
    report.ratio_of("    its 99th percentile ÷ the same", [FOLLOW_SECONDS], [_percentile(behind, 99)])
    report.ratio_of("    from the sending of the append ÷ the same", [FOLLOW_SECONDS], whole)


def _follow_by_events(server: ServedLedger, path: str, after: int, seen: Seen, stop: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {server.client.key}", "Accept": "text/event-stream"}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)) as connection:
        connection.request("GET", f"{path}/events?after={after}", headers=headers)
        answer = connection.getresponse()
        text = b""
        while not stop.is_set():
            text += answer.read1(65_536)
            now = time.perf_counter()
            for found in _MESSAGE_ID.finditer(text):
                seen[int(found[1])] = now
            text = text[text.rfind(b"\n\n") + 2 :] if b"\n\n" in text else text


def _follow_by_polls(server: ServedLedger, path: str, after: int, seen: Seen, stop: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {server.client.key}"}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)) as connection:
        while not stop.is_set():
            connection.request("GET", f"{path}/events?after={after}&wait={_WAIT}", headers=headers)
            events = json.loads(connection.getresponse().read())["events"]
            now = time.perf_counter()
            for event in events:
                after = event["position"]
                seen[after] = now


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _seconds(work: Callable[[int], object], number: int) -> float:
    began = time.perf_counter()
    work(number)
    return time.perf_counter() - began
