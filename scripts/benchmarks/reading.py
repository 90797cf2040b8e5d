"""Reading: from the rows that the database has given to the bytes of an answer, by CPU time of one process, and where
that time goes; then whole questions, with the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

import orjson
import sqlalchemy as sa

from api.json_writing import json_bytes
from api.rendering import event_json, page_json, render_event
from api.timetravel_rendering import render_state, render_states
from ledger.domain.encoding import encode_aad, leaf_of
from ledger.domain.events import OpenedEvent, RecordedEvent
from ledger.domain.intake import parse_batch
from ledger.domain.merkle import hash_leaf
from ledger.domain.query import AsOf, EventFilter, EventQuery, NameOrRef, Place
from ledger.ports import DataKey, Store
from ledger.services.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.opening import open_events
from ledger.services.read import EXPORT_PAGE, export_each, query_events
from ledger.services.timetravel.state import stream_state
from ledger.services.timetravel.states import stream_states
from ledger.storage import rows
from ledger.storage.selection import select_events
from scripts.benchmarks.frame import AtLeast, Engine, Report
from tests.support.service import Service, new_ledger

WRITER: Final = UUID(int=1)
BATCH: Final = 1000
PATIENTS: Final = 50
"""Streams, each of a person of its own, whose events stand mixed."""

ROUNDS: Final = 7
EVENTS_A_SECOND: Final = 100_000
RATE_BAR: Final = AtLeast(1)

Row = sa.Row[Any]


def run(report: Report) -> None:
    """All of it, on each engine."""
    for engine in report.engines:
        for name, make, bar in (("one part", _plain, RATE_BAR), ("four parts", _rich, None)):
            report.heading(f"reading on {engine}: events of {name}")
            with report.fresh_service(engine) as service:
                ledger_id = new_ledger(service).ledger_id
                count = report.size(5_000, 50_000)
                _fill(service.deps, ledger_id, make, count)
                _measure_rows(report, engine, service, ledger_id, bar)
                _measure_stages(report, service, ledger_id)
                _measure_questions(report, service, ledger_id, count)


def _plain(number: int) -> dict[str, Any]:
    """An event with about 250 bytes of data."""
    patient = number % PATIENTS
    return {
        "stream": f"patient-{patient}",
        "type": ("CRP", "Leucocytes", "IVLiquid", "ERTriage")[number % 4],
        "subject": f"patient:{patient}",
        "data": {
            "value": number / 7,
            "unit": "mg/l",
            "sample": {"number": number, "tube": "serum", "fasting": number % 2 == 0},
            "note": "taken in the emergency room, " + "x" * 110,
            "codes": ["LA", "1988-5"],
        },
    }


def _rich(number: int) -> dict[str, Any]:
    """The same with an actor, somebody else, a part that concerns nobody, and all that an envelope can have."""
    return {
        **_plain(number),
        "actor": {"subject": f"group:{number % 7}", "data": {"station": "7b"}},
        "parts": [{"subject": f"patient:{(number + 1) % PATIENTS}", "data": {"contact": True}}],
        "nonpersonal": {"ward": "ER", "bed": number % 30},
        "occurred_at": "2014-10-22T11:15:41Z",
        "correlation_id": str(UUID(int=number // 10 | 7 << 76 | 2 << 62)),
    }


def _fill(deps: Dependencies, ledger_id: UUID, make: Callable[[int], dict[str, Any]], count: int) -> None:
    for start in range(0, count, BATCH):
        batch = parse_batch({"events": [make(number) for number in range(start, start + BATCH)]})
        append_events(deps, ledger_id, batch, WRITER)


@dataclass(frozen=True, slots=True)
class _Given:
    """A store whose rows were given before: what the statement and the driver take is not measured."""

    store: Store
    given: Sequence[Row]

    def select_events(
        self, _ledger_id: UUID, _which: EventFilter, after: Place | None, limit: int
    ) -> Sequence[RecordedEvent]:
        start = 0 if after is None else after.position + 1
        return [rows.event_from(row) for row in self.given[start : start + limit]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def _rows_of(service: Service, ledger_id: UUID) -> Sequence[Row]:
    which = EventFilter(0, service.deps.store.head(ledger_id).size - 1)
    with service.store._engine.connect() as connection:
        return connection.execute(select_events(ledger_id, which, None, which.last_position + 1)).all()


def _measure_rows(report: Report, engine: Engine, service: Service, ledger_id: UUID, bar: AtLeast | None) -> None:
    """An export from rows to bytes; the keys are looked up in the vault page by page, as ever."""
    given = _rows_of(service, ledger_id)
    deps = replace(service.deps, store=cast("Store", _Given(service.deps.store, given)))
    rates = []
    size = sum(len(text) for text in _exported(deps, ledger_id))
    for _ in range(ROUNDS):
        seconds = _cpu(lambda: [len(text) for text in _exported(deps, ledger_id)])
        rates.append(len(given) / seconds)
    report.note(f"{len(given)} events, {size // len(given)} bytes of JSON each, {PATIENTS} people, keys remembered")
    report.ratio_of(
        f"events/s of CPU time from rows to NDJSON ÷ {EVENTS_A_SECOND:,}; {engine}",
        [EVENTS_A_SECOND],
        rates,
        bar,
        shown=lambda rate: f"{rate:,.0f}/s",
    )


def _exported(deps: Dependencies, ledger_id: UUID) -> Iterator[bytes]:
    for page in export_each(deps, ledger_id, EventQuery()):
        text = bytearray()
        for event in page:
            text += event_json(event)
            text += b"\n"
        yield bytes(text)


def _cpu(work: Callable[[], object]) -> float:
    """The seconds that this process has worked for it: what else the machine does meanwhile does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _measure_stages(report: Report, service: Service, ledger_id: UUID) -> None:
    """One page of an export, stage by stage. What is opened together stands in it once more as its pieces."""
    deps = service.deps
    given = _rows_of(service, ledger_id)[:EXPORT_PAGE]
    events = [rows.event_from(row) for row in given]
    key_ids = {part.key_id for event in events for part in event.parts}
    keys = {key_id: view.key for key_id, view in deps.vault.look_up_keys(ledger_id, key_ids).items() if view.key}
    texts = [text for event in events for text in _plaintexts(event, keys)]
    opened = open_events(deps, ledger_id, events)
    shown = open_current(deps, ledger_id, events)
    stages: dict[str, Callable[[], object]] = {
        "rows → events": lambda: [rows.event_from(row) for row in given],
        "keys and shreddings": lambda: _look(deps, ledger_id, events),
        "leaves": lambda: [hash_leaf(leaf_of(event)) for event in events],
        "AAD, HMAC, AES-GCM": lambda: [_plaintexts(event, keys) for event in events],
        "JSON of the parts": lambda: [orjson.loads(text) for text in texts],
        "opened, all together": lambda: open_events(deps, ledger_id, events),
        "in the newest shapes": lambda: open_current(deps, ledger_id, events),
        "rendered": lambda: [render_event(event) for event in shown],
        "rendered, as JSON": lambda: [event_json(event) for event in shown],
    }
    del opened
    report.curve_of(
        f"CPU time of {len(given)} events (ms × 2 = µs an event)",
        {name: [_cpu(work) for _ in range(4 * ROUNDS)][ROUNDS:] for name, work in stages.items()},
    )


def _look(deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent]) -> None:
    key_ids = {part.key_id for event in events for part in event.parts}
    deps.vault.look_up_keys(ledger_id, key_ids)
    deps.store.shreddings(ledger_id, key_ids)


def _plaintexts(event: RecordedEvent, keys: dict[bytes, DataKey]) -> list[bytes]:
    roles = [(part.role, part.key_id) for part in event.parts]
    return [
        keys[part.key_id].open(part.sealed, encode_aad(event.envelope, roles, number))
        for number, part in enumerate(event.parts)
    ]


def _measure_questions(report: Report, service: Service, ledger_id: UUID, count: int) -> None:
    """What a question costs this process with all that belongs to it, the database's driver too."""
    deps = service.deps
    stream = NameOrRef("patient-1", None)
    questions: dict[str, tuple[int, Callable[[], object]]] = {
        "pages of 1,000, events": (count, partial(_all_pages, deps, ledger_id)),
        "NDJSON export, events": (count, lambda: [len(text) for text in _exported(deps, ledger_id)]),
        "state of a stream": (1, lambda: json_bytes(render_state(stream_state(deps, ledger_id, stream)))),
        "state halfway": (
            1,
            lambda: json_bytes(render_state(stream_state(deps, ledger_id, stream, AsOf(position=count // 2)))),
        ),
        f"states of {PATIENTS} streams": (
            PATIENTS,
            lambda: json_bytes(render_states(stream_states(deps, ledger_id, category="patient"))),
        ),
    }
    for name, (units, work) in questions.items():
        work()
        seconds = sorted(_cpu(work) for _ in range(ROUNDS))[ROUNDS // 2]
        report.note(f"{name:<32} {units / seconds:>10,.0f}/s of CPU time")


def _all_pages(deps: Dependencies, ledger_id: UUID) -> None:
    cursor: str | None = None
    while True:
        page = query_events(deps, ledger_id, None, cursor=cursor, limit=1000)
        page_json(page)
        cursor = page.next
        if cursor is None:
            return


def opened_types() -> type[OpenedEvent]:
    return OpenedEvent
