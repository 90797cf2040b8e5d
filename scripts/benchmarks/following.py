"""Following: what a durable subscription costs on top of reading, how soon a follower is woken, what telling costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from unittest.mock import patch
from uuid import UUID, uuid4

from ledger.domain.events import OPERATOR, NewEvent
from ledger.domain.query import EventQuery
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.following.consumer import consume_batch
from ledger.services.following.subscriptions import create_subscription, remove_subscription
from ledger.services.read import export_events
from scripts.benchmarks.frame import AtMost, Report
from tests.support.service import Service, event, new_ledger

NAME: Final = "bench"
BATCH: Final = 500
STREAMS: Final = 200
LEDGERS: Final = 4
WAKINGS: Final = 20
SECOND: Final = 1.0

CONSUME_BAR: Final = AtMost(3)
RARE_BAR: Final = AtMost(1)
WAKE_BAR: Final = AtMost(0.5)
TELL_BAR: Final = AtMost(2)


def run(report: Report) -> None:
    """All of it, on each engine."""
    for engine in report.engines:
        report.heading(f"following on {engine}")
        with report.fresh_service(engine) as service:
            _measure_consuming(report, service)
            _measure_waking(report, service)
            if engine == "postgresql":
                _measure_telling(report, service)


def _measure_consuming(report: Report, service: Service) -> None:
    """Handle every event of a ledger, or the few of a type, against reading them all."""
    deps, ledger_id = service.deps, new_ledger(service, "consumed").ledger_id
    count = report.size(4_000, 100_000)
    for start in range(0, count, BATCH):
        _append(deps, ledger_id, [_an_event(number) for number in range(start, start + BATCH)])
    report.note(f"{count} events in {STREAMS} streams")

    def export() -> None:
        for _ in export_events(deps, ledger_id, EventQuery()):
            pass

    report.ratio(
        "a subscription to everything ÷ an export of everything", export, _consuming(deps, ledger_id), CONSUME_BAR
    )
    rare = _consuming(deps, ledger_id, "Unheard")
    report.ratio("a subscription to a type that nobody records ÷ the export", export, rare, RARE_BAR)


def _consuming(deps: Dependencies, ledger_id: UUID, *types: str) -> Callable[[], None]:
    """A subscription from its making until it has caught up."""

    def work() -> None:
        create_subscription(deps, ledger_id, NAME, created_by=OPERATOR, types=types)
        consumer = uuid4()
        while consume_batch(deps, ledger_id, NAME, lambda _: None, consumer=consumer, limit=BATCH):
            pass
        remove_subscription(deps, ledger_id, NAME)

    return work


def _measure_waking(report: Report, service: Service) -> None:
    """From the end of an append to the end of a wait for it, against the second between two looks at the head."""
    deps, ledger_id = service.deps, new_ledger(service, "woken").ledger_id
    delays = []
    with ThreadPoolExecutor(1) as pool:
        for size in range(WAKINGS):
            woken = pool.submit(_wait, deps, ledger_id, size)
            # So that the next look of its own is about as far away as it can be.
            time.sleep(SECOND / 10)
            _append(deps, ledger_id, [_an_event(size)])
            told = time.perf_counter()
            delays.append(max(0.0, woken.result() - told))
    report.ratio_of("from an append to a follower that waits ÷ a second", [SECOND], delays, WAKE_BAR)


def _wait(deps: Dependencies, ledger_id: UUID, size: int) -> float:
    deps.store.wait_for_growth(ledger_id, size, 10 * SECOND)
    return time.perf_counter()


def _measure_telling(report: Report, service: Service) -> None:
    """Commits that notify take turns in all of PostgreSQL: what that costs ledgers that are written to at once."""
    ledgers = [new_ledger(service, f"told-{number}").ledger_id for number in range(LEDGERS)]
    turns = report.size(20, 100)

    def write(ledger_id: UUID) -> None:
        for number in range(turns):
            _append(service.deps, ledger_id, [_an_event(number)])

    def write_all() -> None:
        with ThreadPoolExecutor(LEDGERS) as pool:
            list(pool.map(write, ledgers))

    def write_silently() -> None:
        with patch("ledger.storage.head_lock.notify", lambda *_: None):
            write_all()

    name = f"appends to {LEDGERS} ledgers at once, followers told ÷ not told"
    report.ratio(name, write_silently, write_all, TELL_BAR)


def _append(deps: Dependencies, ledger_id: UUID, events: list[NewEvent]) -> None:
    append_events(deps, ledger_id, events, OPERATOR)


def _an_event(number: int) -> NewEvent:
    person = f"person:{number % STREAMS}"
    return event(f"thing-{number % STREAMS}", subject=person, data={"number": number, "text": "x" * 80})
