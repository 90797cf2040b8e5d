"""Single durable appends over HTTP, from few and many clients to one ledger and to several, against other event stores
and against what a request costs that does nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from scripts.benchmarks.frame import AtLeast, Engine, Report, per_second
from scripts.benchmarks.support.load import Loaded, LoadProcess, Storm, load_processes, run_at_once
from scripts.benchmarks.support.payloads import EventIds, Request, lines_of, nothing, single_appends
from scripts.benchmarks.support.peers import (
    MESSAGE_DB_CLIENTS,
    EventSourcing,
    MessageDb,
    PeerMissingError,
)
from scripts.benchmarks.support.processors import of_cluster, of_server
from scripts.benchmarks.support.sides import Side, Turn, measure_sides, note_costs, rates
from tests.support.server import NDJSON, ServedLedger

CLIENTS: Final = (1, 8, 32)
MANY: Final = 32
LEDGERS: Final = 8
STREAMS: Final = 200
SECONDS: Final = 2
FULL_SECONDS: Final = 10
ROUNDS: Final = 5
PEER_THREADS: Final = 16

EVENTSOURCING_BAR: Final = AtLeast(3)
MESSAGE_DB_BAR: Final = AtLeast(1.5)
LEDGERS_BAR: Final = AtLeast(1)

NOTHING: Final = f"nothing, {MANY} clients"
EVENTSOURCING: Final = f"eventsourcing, {PEER_THREADS} threads"
WITH_FUNCTIONS: Final = f"{EVENTSOURCING}, database functions"


def run(report: Report) -> None:
    """On each engine; the peers on PostgreSQL."""
    seconds = report.size(SECONDS, FULL_SECONDS)
    for engine in report.engines:
        report.heading(f"single durable appends over HTTP on {engine}, {seconds} s a turn")
        settings = {"AUDIT_LEDGER_WORKERS": "2"} if engine == "postgresql" else {}
        with report.served(engine, settings) as server, load_processes(1) as clients:
            _measure(report, engine, server, _Appends(server, clients[0], seconds), seconds)


class _Appends:
    """Ledgers whose streams and people are all known, and clients that append to them."""

    def __init__(self, server: ServedLedger, client: LoadProcess, seconds: float) -> None:
        self._port = server.port
        self._client = client
        self._seconds = seconds
        key = server.client.key or ""
        self._requests: list[list[Request]] = []
        for number in range(LEDGERS):
            path = server.make_ledger(f"single-{number}")
            lines = lines_of(range(STREAMS), EventIds(), streams=STREAMS)
            answer = server.client.send("POST", f"{path}/events", lines, {"Content-Type": NDJSON})
            if answer.lines()[-1].get("recorded") != STREAMS:
                raise RuntimeError("the benchmark could not append")
            self._requests.append(list(single_appends(path, key, STREAMS)))
        self._nothing = nothing("/v1/ledgers/single-0", key)

    def storm(self, clients: int, ledgers: int) -> Callable[[], Loaded]:
        """So many clients append to so many ledgers: each to one, or to several in turns if they are fewer."""
        each = []
        for client in range(clients):
            of_client = range(client, ledgers, clients) if clients < ledgers else [client % ledgers]
            mixed = zip(*(self._requests[ledger] for ledger in of_client), strict=True)
            # Clients of one ledger go round its streams apart, as people who do not know of each other.
            requests = list(itertools.chain.from_iterable(mixed))
            begin = client * len(requests) // clients
            each.append(requests[begin:] + requests[:begin])
        return run_at_once([self._client], [Storm(self._port, each, 201, self._seconds)])

    def nothing(self) -> Callable[[], Loaded]:
        """The same with requests that do nothing."""
        return run_at_once([self._client], [Storm(self._port, [[self._nothing]] * MANY, 422, self._seconds)])


def _measure(report: Report, engine: Engine, server: ServedLedger, appends: _Appends, seconds: int) -> None:
    sides: dict[str, Side] = {
        _name(clients, ledgers): partial(appends.storm, clients, ledgers)
        for ledgers, clients in itertools.product((1, LEDGERS), CLIENTS)
    }
    sides[NOTHING] = appends.nothing
    counts = {"server": of_server(server)}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        if engine == "postgresql":
            counts["PostgreSQL"] = of_cluster(report.postgres())
            try:
                for name in (EVENTSOURCING, WITH_FUNCTIONS):
                    peer = EventSourcing(
                        report.postgres().create_database(), PEER_THREADS, functions=name == WITH_FUNCTIONS
                    )
                    sides[name] = partial(_peer_singles, stack.enter_context(peer), seconds)
            except PeerMissingError as error:
                missing |= dict.fromkeys((EVENTSOURCING, WITH_FUNCTIONS), str(error))
            try:
                message_db = MessageDb(report.postgres())
                for number in (1, LEDGERS):
                    sides[_message_db(number)] = partial(_writes, message_db, number, seconds)
            except PeerMissingError as error:
                missing |= {_message_db(number): str(error) for number in (1, LEDGERS)}
        turns = measure_sides(sides, counts, ROUNDS)
    _compare(report, turns, engine, missing)
    note_costs(report, turns)


def _name(clients: int, ledgers: int) -> str:
    to = "one ledger" if ledgers == 1 else f"{ledgers} ledgers"
    return f"{clients} client{'s' if clients > 1 else ''} to {to}"


def _message_db(categories: int) -> str:
    into = "one category" if categories == 1 else f"{categories} categories"
    return f"message-db, {MESSAGE_DB_CLIENTS} clients, {into}"


def _compare(report: Report, turns: dict[str, list[Turn]], engine: Engine, missing: dict[str, str]) -> None:
    many = _name(MANY, 1)

    def compare(name: str, peer: str, bar: AtLeast | None) -> None:
        if peer in missing:
            report.not_measured(f"{name} ÷ {peer}", missing[peer])
        else:
            report.ratio_of(f"{name} ÷ {peer}", rates(turns[peer]), rates(turns[name]), bar, shown=per_second)

    if engine == "postgresql":
        compare(many, EVENTSOURCING, EVENTSOURCING_BAR)
        compare(many, WITH_FUNCTIONS, None)
        compare(many, _message_db(1), MESSAGE_DB_BAR)
        compare(_name(MANY, LEDGERS), _message_db(LEDGERS), MESSAGE_DB_BAR)
    compare(_name(MANY, LEDGERS), many, LEDGERS_BAR if engine == "postgresql" else None)
    compare(_name(8, LEDGERS), _name(8, 1), None)
    compare(many, _name(1, 1), None)
    compare(many, NOTHING, None)


def _peer_singles(peer: EventSourcing, seconds: int) -> Callable[[], Loaded]:
    peer.prepare_singles(PEER_THREADS, seconds)

    def work() -> Loaded:
        peer.go()
        return peer.finish()

    return work


def _writes(message_db: MessageDb, categories: int, seconds: int) -> Callable[[], Loaded]:
    return partial(message_db.write, categories, seconds)
