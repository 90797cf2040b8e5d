"""Proving: what a proof costs as a ledger grows, and what publishing checkpoints costs those who append."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Final
from uuid import UUID

from ledger.domain.events import OPERATOR, NewEvent
from ledger.domain.query import EventFilter
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.proving import publishing
from ledger.services.proving.proofs import prove_event, prove_growth
from ledger.services.proving.publishing import publish
from ledger.storage.database import open_engine
from scripts.benchmarks.frame import AtMost, Report
from tests.support.service import Place, Service, event, new_ledger, open_service
from tests.support.trees import plant_events

SEED: Final = 20261123
PROOFS: Final = 200
BATCH: Final = 100
STREAMS: Final = 200
ROUNDS: Final = 31
TURN_SECONDS: Final = 3
"""One checkpoint in each: one is due at the start, and the next three seconds later."""
LOOK_SECONDS: Final = 1.0
"""How often a worker looks whether a checkpoint is due."""
START_SECONDS: Final = 2.0
"""Until a process is there."""

PROOF_BAR: Final = AtMost(2)
"""Milliseconds, as a multiple of one."""
APPEND_BAR: Final = AtMost(1.03)


def run(report: Report) -> None:
    """All of it, on each engine."""
    for engine in report.engines:
        report.heading(f"proving on {engine}")
        with report.fresh_service(engine) as service:
            _measure_proofs(report, service)
        with report.fresh_service(engine) as service:
            _measure_publishing(report, service)


def _measure_proofs(report: Report, service: Service) -> None:
    """The proof of one event, and of the growth from one size to another, in a small and a large ledger."""
    small, large = 1_000, report.size(100_000, 1_000_000)
    chance = random.Random(SEED)  # noqa: S311 - which events are looked at is no secret
    ledgers = {size: _grown(report, service, size) for size in (small, large)}
    deps = service.deps
    inclusion: dict[int, list[float]] = {size: [] for size in ledgers}
    growth: dict[int, list[float]] = {size: [] for size in ledgers}
    for _ in range(PROOFS):
        for size, ledger_id in ledgers.items():
            position, old = chance.randrange(size), chance.randrange(1, size)
            (recorded,) = deps.store.events_at(ledger_id, [position])
            inclusion[size].append(_seconds(prove_event, deps, ledger_id, recorded.envelope.event_id))
            growth[size].append(_seconds(prove_growth, deps, ledger_id, old, size))
    millisecond = [1e-3]
    report.ratio_of(f"the proof of an event among {large} ÷ a millisecond", millisecond, inclusion[large], PROOF_BAR)
    report.ratio_of(f"the same ÷ the proof of an event among {small}", inclusion[small], inclusion[large])
    report.ratio_of(f"a proof of growth to {large} ÷ a millisecond", millisecond, growth[large])


def _grown(report: Report, service: Service, size: int) -> UUID:
    """A ledger of so many events, published."""
    ledger_id = new_ledger(service, f"grown-{size}").ledger_id
    _append(service.deps, ledger_id, [_an_event(0)])
    (first,) = service.deps.store.select_events(ledger_id, EventFilter(0, 0), None, 1)
    engine = open_engine(service.place.ledger_url)
    for _ in plant_events(engine, first, size):
        pass
    engine.dispose()
    seconds = _seconds(publish, service.deps, ledger_id)
    report.note(f"the first checkpoint of {size} events took {seconds:.2f} s: {size / seconds:,.0f} leaves a second")
    return ledger_id


def _measure_publishing(report: Report, service: Service) -> None:
    """Appends one batch after another, while a worker publishes the ledger and while it rests."""
    deps = service.deps
    published, silent = (new_ledger(service, name).ledger_id for name in ("published", "silent"))
    seconds = report.size(1, TURN_SECONDS)
    report.note(f"{ROUNDS} turns of {seconds} s each, in batches of {BATCH} events")
    times: dict[UUID, list[float]] = {published: [], silent: []}
    with _publishing(service, published) as may_publish:
        for number in range(ROUNDS):
            # They take turns, so that what else the machine does falls on both.
            for ledger_id in (published, silent) if number % 2 else (silent, published):
                if ledger_id == published:
                    may_publish.set()
                times[ledger_id].append(_seconds_a_batch(deps, ledger_id, seconds))
                may_publish.clear()
    name = "an append to a ledger that a worker publishes ÷ to one that nobody publishes"
    report.ratio_of(name, times[silent], times[published], APPEND_BAR)


@contextmanager
def _publishing(service: Service, ledger_id: UUID) -> Iterator[Event]:
    """What a worker does beside, in a process of its own, whenever the flag is set."""
    spawning = multiprocessing.get_context("spawn")
    may_publish = spawning.Event()
    process = spawning.Process(target=publish_for_ever, args=(service.place, ledger_id, may_publish), daemon=True)
    process.start()
    try:
        time.sleep(START_SECONDS)
        yield may_publish
    finally:
        process.kill()
        process.join()


def publish_for_ever(place: Place, ledger_id: UUID, may_publish: Event) -> None:
    """Publish whenever it is due."""
    deps = open_service(place).deps
    while True:
        may_publish.wait()
        publishing.step(deps, ledger_id)
        time.sleep(LOOK_SECONDS)


def _seconds_a_batch(deps: Dependencies, ledger_id: UUID, seconds: int) -> float:
    began = time.perf_counter()
    batches = 0
    while (passed := time.perf_counter() - began) < seconds:
        _append(deps, ledger_id, [_an_event(BATCH * batches + at) for at in range(BATCH)])
        batches += 1
    return passed / batches


def _append(deps: Dependencies, ledger_id: UUID, events: list[NewEvent]) -> None:
    append_events(deps, ledger_id, events, OPERATOR)


def _an_event(number: int) -> NewEvent:
    person = f"person:{number % STREAMS}"
    return event(f"thing-{number % STREAMS}", subject=person, data={"number": number, "text": "x" * 80})


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began
