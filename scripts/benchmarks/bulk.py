"""Bulk appends over HTTP: events a second as NDJSON, against ``eventsourcing`` in batches and against a bare COPY."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Final

from scripts.benchmarks.frame import AtLeast, Engine, Report, per_second
from scripts.benchmarks.support.copying import CopyCeiling
from scripts.benchmarks.support.load import Loaded, LoadProcess, Target, Upload, load_processes, run_at_once
from scripts.benchmarks.support.payloads import STREAMS
from scripts.benchmarks.support.peers import EventSourcing, PeerMissingError, eventsourcing_processes
from scripts.benchmarks.support.processors import of_cluster, of_server
from scripts.benchmarks.support.sides import Side, Turn, measure_sides, note_costs, rates
from tests.support.server import ServedLedger

EVENTS: Final = 8_000
FULL_EVENTS: Final = 50_000
CLIENTS: Final = (1, 2)
BATCHES: Final = (500, 100)
ROUNDS: Final = 5
EVENTS_OF_A_NEW_STREAM: Final = 10
SQLITE_EVENTS_A_SECOND: Final = 10_000

PEER_BAR: Final = AtLeast(2)
COPY_BAR: Final = AtLeast(0.55)
SQLITE_BAR: Final = AtLeast(1)


def run(report: Report) -> None:
    """On each engine; the peer and the ceiling on PostgreSQL."""
    for engine in report.engines:
        events = report.size(EVENTS, FULL_EVENTS)
        report.heading(f"bulk appends over HTTP on {engine}, {events:,} events a turn")
        settings = {"AUDIT_LEDGER_WORKERS": "2"} if engine == "postgresql" else {}
        with report.served(engine, settings) as server, load_processes(max(CLIENTS)) as clients:
            _measure(report, engine, _Uploads(server, clients, events))


class _Uploads:
    """One ledger that grows with every turn."""

    def __init__(self, server: ServedLedger, clients: list[LoadProcess], events: int) -> None:
        self.server = server
        self.events = events
        self._clients = clients
        self._key = server.client.key or ""
        self._path = server.make_ledger("bulk")
        self._numbers = itertools.count(step=events)
        self._new_streams = itertools.count(STREAMS, events)

    def upload(self, clients: int, *, new: bool = False) -> Callable[[], Loaded]:
        """Have so many clients ready to send the next events at once. ``new``: of streams and people that nobody has
        seen; otherwise of the same ones each time."""
        first, share = next(self._numbers), self.events // clients
        streams = share // EVENTS_OF_A_NEW_STREAM if new else STREAMS
        began = next(self._new_streams) if new else 0
        target = Target(self.server.port, self._path, self._key)
        jobs = [
            Upload(target, first + client * share, share, began + (client * streams if new else 0), streams)
            for client in range(clients)
        ]
        return run_at_once(self._clients[:clients], jobs)


def _measure(report: Report, engine: Engine, uploads: _Uploads) -> None:
    sides: dict[str, Side] = {_ledger(clients): partial(uploads.upload, clients) for clients in CLIENTS}
    sides["ledger, 2 clients, all streams new"] = partial(uploads.upload, 2, new=True)
    counts = {"server": of_server(uploads.server)}
    if engine == "sqlite":
        turns = measure_sides(sides, counts, ROUNDS)
        _compare_with_a_number(report, turns)
    else:
        counts["PostgreSQL"] = of_cluster(report.postgres())
        url = report.postgres().create_database()
        copies = _Copies(
            CopyCeiling(report.postgres(), uploads.server.environment["AUDIT_LEDGER_DATABASE_URL"]), uploads
        )
        sides |= {_copy(clients): partial(copies.ready, clients) for clients in CLIENTS}
        try:
            with eventsourcing_processes(url, max(CLIENTS)) as peers:
                batches = {
                    _peer(clients, batch): partial(_batches, peers[:clients], uploads.events, batch)
                    for clients, batch in itertools.product(CLIENTS, BATCHES)
                }
                turns = measure_sides({**sides, **batches}, counts, ROUNDS)
        except PeerMissingError as error:
            turns = measure_sides(sides, counts, ROUNDS)
            for clients in CLIENTS:
                report.not_measured(f"{_ledger(clients)} ÷ {_peer(clients, BATCHES[0])}", str(error))
        _compare(report, turns)
    name = "ledger, 2 clients, all streams new"
    report.ratio_of(f"{name} ÷ all known", rates(turns[_ledger(2)]), rates(turns[name]), shown=per_second)
    note_costs(report, turns)


def _ledger(clients: int) -> str:
    return f"ledger, {clients} client{'s' if clients > 1 else ''}"


def _peer(processes: int, batch: int) -> str:
    return f"eventsourcing, {processes} process{'es' if processes > 1 else ''}, batches of {batch}"


def _copy(connections: int) -> str:
    return f"COPY, {connections} connection{'s' if connections > 1 else ''}"


def _compare_with_a_number(report: Report, turns: dict[str, list[Turn]]) -> None:
    for clients in CLIENTS:
        name = f"{_ledger(clients)} ÷ {SQLITE_EVENTS_A_SECOND:,} durable events a second"
        report.ratio_of(name, [SQLITE_EVENTS_A_SECOND], rates(turns[_ledger(clients)]), SQLITE_BAR, shown=per_second)


def _compare(report: Report, turns: dict[str, list[Turn]]) -> None:
    for clients in CLIENTS:
        ours = rates(turns[_ledger(clients)])
        for batch in BATCHES:
            peer = _peer(clients, batch)
            if peer in turns:
                bar = PEER_BAR if batch == BATCHES[0] else None
                report.ratio_of(f"{_ledger(clients)} ÷ {peer}", rates(turns[peer]), ours, bar, shown=per_second)
        report.ratio_of(
            f"{_ledger(clients)} ÷ {_copy(clients)}", rates(turns[_copy(clients)]), ours, COPY_BAR, shown=per_second
        )


class _Copies:
    """What the ledger has recorded, to be copied: always the rows of a turn that is over."""

    def __init__(self, ceiling: CopyCeiling, uploads: _Uploads) -> None:
        self._ceiling = ceiling
        self._events = uploads.events
        self._copied = 0
        # So that there are rows whatever the order of the turns.
        for _ in CLIENTS:
            uploads.upload(1)()

    def ready(self, connections: int) -> Callable[[], Loaded]:
        """Have the rows of the next turn ready, a part for each connection."""
        first, end = self._copied, self._copied + self._events
        if end > self._ceiling.size():
            raise RuntimeError("there is nothing left to copy")
        share = self._events // connections
        parts = [self._ceiling.rows(start, start + share) for start in range(first, end, share)]
        self._copied = end
        return lambda: self._ceiling.load(parts, self._events)


def _batches(peers: list[EventSourcing], events: int, batch: int) -> Callable[[], Loaded]:
    for peer in peers:
        peer.prepare_batches(events // len(peers), batch)

    def work() -> Loaded:
        for peer in peers:
            peer.go()
        done = [peer.finish() for peer in peers]
        return Loaded(events, max(one.seconds for one in done), sum(one.cpu for one in done))

    return work
