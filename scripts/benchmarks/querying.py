"""What a reader meets over HTTP: pages, beside a request that does nothing; exports, beside the driver alone."""

from __future__ import annotations

import http.client
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, Final
from uuid import UUID

from api.config import Settings
from api.wiring import open_service
from ledger.services.proving.publishing import publish
from scripts.benchmarks.frame import AtMost, Engine, Report, in_turns, per_second
from scripts.benchmarks.support.planting import LONG, Planter
from scripts.benchmarks.support.processors import Accounts, of_cluster, of_server
from tests.support.server import NDJSON, ServedLedger

EVENTS: Final = 20_000
FULL_EVENTS: Final = 200_000
PAGE: Final = 100
LARGE_PAGE: Final = 1_000
ROUNDS: Final = 21
"""Of what is quick and has to be equal."""

EXPORT_ROUNDS: Final = 3
COSTED: Final = 50
"""Pages whose CPU time is taken together: the kernel counts it by the hundredth of a second."""

DEEP_BAR: Final = AtMost(1.5)
LARGE_BAR: Final = AtMost(10)
PAST_BAR: Final = AtMost(1.5)
_DRIVER_PAGE: Final = 500
_MICROSECONDS: Final = 1_000_000


def run(report: Report) -> None:
    """On each engine."""
    events = report.size(EVENTS, FULL_EVENTS)
    for engine in report.engines:
        report.heading(f"querying over HTTP on {engine}: a ledger of {events:,} events")
        with report.served(engine, {"AUDIT_LEDGER_WORKERS": "1"}) as server:
            path = server.make_ledger("planted")
            ledger_id = UUID(server.client.get(path).json()["id"])
            with closing(open_service(Settings.from_environment(server.environment))) as service:
                Planter(service.deps, service.engine, ledger_id).plant(events)
                publish(service.deps, ledger_id)
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)) as connection:
                reader = _Reader(connection, path, server.client.key or "")
                _measure_pages(report, reader, events)
                _measure_export(report, engine, server, reader, events)


class _Reader:
    """One client on one connection that is kept."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, key: str) -> None:
        self._connection = connection
        self._path = path
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, question: dict[str, Any], where: str = "query", status: int = 200) -> Any:
        """The answer to a question, as JSON."""
        self._connection.request("POST", f"{self._path}/{where}", json.dumps(question), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != status:
            raise RuntimeError(f"the benchmark was answered {answer.status}: {text[:500]!r}")
        return json.loads(text)

    def nothing(self) -> None:
        """A request that does nothing: an empty batch, which is refused."""
        self.ask({"events": []}, "events", 422)

    def page(self, expected: int = PAGE, **question: Any) -> Any:
        """A page of so many events."""
        answer = self.ask({"limit": expected, **question})
        if len(answer["events"]) != expected:
            raise RuntimeError(f"a page has {len(answer['events'])} events and not {expected}")
        return answer

    def export(self, events: int) -> None:
        """Everything, line by line, holding nothing."""
        headers = {**self._headers, "Accept": NDJSON}
        self._connection.request("POST", f"{self._path}/query", b"{}", headers)
        answer = self._connection.getresponse()
        lines = 0
        while data := answer.read1(1 << 20):
            lines += data.count(b"\n")
        # The last one only says that it is the last.
        if answer.status != 200 or lines != events + 1:
            raise RuntimeError(f"an export of {events} events was answered {answer.status} with {lines} lines")


def _measure_pages(report: Report, reader: _Reader, events: int) -> None:
    deep = reader.page(LARGE_PAGE)["next"]
    for _ in range((events - 2 * LARGE_PAGE) // LARGE_PAGE - 1):
        deep = reader.page(LARGE_PAGE, cursor=deep)["next"]
    first = reader.page
    late = {"position": events - 1}
    report.ratio(f"the first {PAGE} events ÷ a request that does nothing", reader.nothing, first)
    report.ratio(f"{LARGE_PAGE:,} events ÷ {PAGE}", first, partial(reader.page, LARGE_PAGE), LARGE_BAR)
    report.ratio(
        "the last but one page, by its cursor ÷ the first", first, partial(first, cursor=deep), DEEP_BAR, rounds=ROUNDS
    )
    past = partial(first, as_of={"position": events // 2}, order="desc")
    report.ratio(
        "the newest events as of the middle of the past ÷ of now", partial(first, order="desc"), past, PAST_BAR
    )
    report.ratio("with an inclusion proof of each event ÷ without", first, partial(first, proof=True))
    report.ratio(f"{PAGE} events of one stream ÷ of all", first, partial(first, stream="patient-long-0"))
    state = partial(reader.ask, {"stream": "patient-long-0", "as_of": late}, "state")
    then = partial(reader.ask, {"stream": "patient-long-0", "as_of": {"position": events // 2}}, "state")
    report.ratio(f"a state, of {LONG // 2:,} events of the past ÷ of the newest moment", state, then, AtMost(2))
    report.ratio("the newest state ÷ a request that does nothing", reader.nothing, state)


def _measure_export(report: Report, engine: Engine, server: ServedLedger, reader: _Reader, events: int) -> None:
    """Events a second, beside a driver that reads the same rows in pages and makes nothing of them."""
    rows = _driver(report, engine, server, events)
    bare, export = in_turns([rows, partial(reader.export, events)], EXPORT_ROUNDS)
    name = "an export as NDJSON, events a second ÷ the rows read by the driver"
    rates = [[events / seconds for seconds in times] for times in (bare, export)]
    report.ratio_of(name, rates[0], rates[1], shown=per_second)
    _note_cost(report, engine, server, "export", events, partial(reader.export, events))
    _note_cost(
        report, engine, server, f"pages of {PAGE}", COSTED * PAGE, lambda: [reader.page() for _ in range(COSTED)]
    )


def _note_cost(
    report: Report, engine: Engine, server: ServedLedger, name: str, events: int, work: Callable[[], object]
) -> None:
    """The CPU time of each event, by process: it says the same on a machine that others use too."""
    counts = {"server": of_server(server)}
    if engine == "postgresql":
        counts["PostgreSQL"] = of_cluster(report.postgres())
    accounts = Accounts(counts)
    accounts.begin()
    work()
    used = accounts.end({})
    shares = ", ".join(f"{who} {_MICROSECONDS * used[who] / events:.1f}" for who in counts)
    report.note(f"{name}: CPU µs of each event: {shares}")


def _driver(report: Report, engine: Engine, server: ServedLedger, events: int) -> Callable[[], None]:
    statement = "SELECT * FROM events WHERE position >= {0} AND position < {0} + {1} ORDER BY position"

    def read(execute: Callable[[str], list[Any]]) -> None:
        found = sum(len(execute(statement.format(start, _DRIVER_PAGE))) for start in range(0, events, _DRIVER_PAGE))
        if found != events:
            raise RuntimeError(f"the driver has read {found} rows and not {events}")

    if engine == "sqlite":
        file = server.home / "ledger.db"

        def from_file() -> None:
            with closing(sqlite3.connect(file)) as connection:
                read(lambda text: connection.execute(text).fetchall())

        return from_file
    database = server.environment["AUDIT_LEDGER_DATABASE_URL"].rpartition("/")[2]

    def from_server() -> None:
        with report.postgres().connect(database) as connection:
            read(lambda text: connection.execute(text.encode(), binary=True).fetchall())

    return from_server
