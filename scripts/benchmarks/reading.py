"""Reading: from the rows that the database has given to the bytes of an answer, by CPU time of one process, and where
that time goes; then whole questions, with the database."""

from __future__ import annotations

import gc
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, Final, cast
from uuid import UUID

import orjson
import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.json_writing import json_bytes
from api.rendering import event_json, page_json, render_event
from api.timetravel_rendering import render_state, render_states
from ledger.domain.encoding import encode_aad, leaf_and_shared_aad
from ledger.domain.events import RecordedEvent
from ledger.domain.intake import parse_batch
from ledger.domain.merkle import hash_leaf
from ledger.domain.query import AsOf, EventFilter, EventQuery, NameOrRef, Place
from ledger.ports import DataKey, Store
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import each_current, open_current
from ledger.services.opening import members_of, open_each
from ledger.services.read import export_each, query_each
from ledger.services.timetravel.state import stream_state
from ledger.services.timetravel.states import stream_states
from ledger.storage import rows
from ledger.storage.selection import select_events
from scripts.benchmarks.frame import AtLeast, Engine, Report
from tests.support.service import Service, new_ledger

WRITER: Final = UUID(int=1)
BATCH: Final = 1000
PEOPLE: Final = 2_000
"""Streams, each of a person of its own, whose events stand mixed: so nearly each event of a page needs another key."""

FEW: Final = 50
"""The same of the ledger that is asked for states, whose streams are the longer for it."""

ROUNDS: Final = 7
STAGED: Final = 1000
AAD_BYTES: Final = 150
LEAF_BYTES: Final = 250
SEALING_BYTES: Final = 65
"""What a sealed part has beside its text, less the tag."""

EVENTS_A_SECOND: Final = 100_000
RATE_BAR: Final = AtLeast(1)

Row = sa.Row[Any]


def run(report: Report) -> None:
    """All of it, on each engine."""
    # As a worker of the server does.
    gc.freeze()
    for engine in report.engines:
        for name, make, bar in (("one part", _plain, RATE_BAR), ("four parts", _rich, None)):
            report.heading(f"reading on {engine}: events of {name}")
            with report.fresh_service(engine) as service:
                ledger_id, of_few = (new_ledger(service, name).ledger_id for name in ("many", "few"))
                count = report.size(5_000, 50_000)
                _fill(service.deps, ledger_id, partial(make, PEOPLE), count)
                _fill(service.deps, of_few, partial(make, FEW), count)
                _measure_rows(report, engine, service, ledger_id, bar)
                _measure_stages(report, service, ledger_id)
                _measure_questions(report, service, ledger_id, of_few, count)


def _plain(people: int, number: int) -> dict[str, Any]:
    """An event with about 250 bytes of data."""
    patient = number % people
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


def _rich(people: int, number: int) -> dict[str, Any]:
    """The same with an actor, somebody else, a part that concerns nobody, and all that an envelope can have."""
    return {
        **_plain(people, number),
        "actor": {"subject": f"group:{number % 7}", "data": {"station": "7b"}},
        "parts": [{"subject": f"patient:{(number + 1) % people}", "data": {"contact": True}}],
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
    """An export from rows to bytes; the keys are looked up in the vault page by page, as ever. In turns with it, what
    no reader could do without: hashes, AES-GCM and JSON of as many bytes."""
    given = _rows_of(service, ledger_id)
    deps = replace(service.deps, store=cast("Store", _Given(service.deps.store, given)))
    size = sum(len(text) for text in _exported(deps, ledger_id))
    least = _bare_minimum([rows.event_from(row) for row in given])
    rates, bare = [], []
    for _ in range(ROUNDS):
        rates.append(len(given) / _cpu(lambda: [len(text) for text in _exported(deps, ledger_id)]))
        bare.append(len(given) / _cpu(least))
    report.note(f"{len(given)} events, {size // len(given)} bytes of JSON each, {PEOPLE} people, keys remembered")
    name = f"events/s of CPU time from rows to NDJSON, {engine}"
    report.ratio_of(f"{name} ÷ {EVENTS_A_SECOND:,}", [EVENTS_A_SECOND], rates, bar, shown=_rate)
    report.ratio_of(f"{name} ÷ bare hashes, AES-GCM and JSON", bare, rates, shown=_rate)


def _rate(events: float) -> str:
    return f"{events:,.0f}/s"


def _exported(deps: Dependencies, ledger_id: UUID) -> Iterator[bytes]:
    for page in export_each(deps, ledger_id, EventQuery()):
        text = bytearray()
        for event in page:
            text += event_json(event)
            text += b"\n"
        yield bytes(text)


def _bare_minimum(events: Sequence[RecordedEvent]) -> Callable[[], None]:
    """For each part HMAC, commitment, AES-GCM, its hash, and JSON; for each event the hash of its leaf."""
    dek, salt, nonce = bytes(range(32)), bytes(16), bytes(12)
    said = orjson.dumps(_plain(1, 1)["data"])
    aad, leaf = bytes(AAD_BYTES), bytes(LEAF_BYTES)
    lengths = [[len(part.sealed) - SEALING_BYTES for part in event.parts] for event in events]
    sealed = {length: AESGCM(dek).encrypt(nonce, bytes(length), aad) for event in lengths for length in event}

    def work() -> None:
        for event in lengths:
            sha256(leaf).digest()
            for length in event:
                key = hmac.digest(dek, salt, "sha256")
                sha256(key).digest()
                sha256(sealed[length]).digest()
                AESGCM(dek).decrypt(nonce, sealed[length], aad)
                orjson.dumps(orjson.loads(said))

    return work


def _cpu(work: Callable[[], object]) -> float:
    """The seconds that this process has worked for it: what else the machine does meanwhile does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _measure_stages(report: Report, service: Service, ledger_id: UUID) -> None:
    """A thousand events, stage by stage; what is opened together stands in it once more as its pieces."""
    deps = service.deps
    given = _rows_of(service, ledger_id)[:STAGED]
    events = [rows.event_from(row) for row in given]
    key_ids = {part.key_id for event in events for part in event.parts}
    keys = {key_id: view.key for key_id, view in deps.vault.look_up_keys(ledger_id, key_ids).items() if view.key}
    texts = [text for event in events for text in _plaintexts(event, keys)]
    shown = open_current(deps, ledger_id, events)
    stages: dict[str, Callable[[], object]] = {
        "rows → events": lambda: [rows.event_from(row) for row in given],
        "keys and shreddings": lambda: _look(deps, ledger_id, events),
        "leaves and AAD": lambda: [hash_leaf(leaf_and_shared_aad(event)[0]) for event in events],
        "AAD, HMAC, AES-GCM": lambda: [_plaintexts(event, keys) for event in events],
        "JSON of the parts": lambda: [members_of(text) for text in texts],
        "opened, all of these": lambda: _drop(open_each(deps, ledger_id, events)),
        "in the newest shapes": lambda: _drop(each_current(deps, ledger_id, events)),
        "rendered": lambda: _drop(map(render_event, shown)),
        "rendered, as JSON": lambda: _drop(map(event_json, shown)),
    }
    report.curve_of(
        f"CPU time of {STAGED} events: ms, which is µs an event",
        {name: [_cpu(work) for _ in range(4 * ROUNDS)][ROUNDS:] for name, work in stages.items()},
    )


def _drop(items: Iterable[object]) -> None:
    """Take all of them, and keep none: as an export does."""
    for _ in items:
        pass


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


def _measure_questions(report: Report, service: Service, ledger_id: UUID, of_few: UUID, count: int) -> None:
    """What a question costs this process with all that belongs to it, the database's driver too."""
    deps = service.deps
    stream = NameOrRef("patient-1", None)
    questions: dict[str, tuple[int, Callable[[], object]]] = {
        "pages of 100, events": (count, partial(_all_pages, deps, ledger_id, 100)),
        "pages of 1,000, events": (count, partial(_all_pages, deps, ledger_id, 1000)),
        "NDJSON export, events": (count, lambda: [len(text) for text in _exported(deps, ledger_id)]),
        "state of a stream": (1, lambda: json_bytes(render_state(stream_state(deps, of_few, stream)))),
        "state halfway": (
            1,
            lambda: json_bytes(render_state(stream_state(deps, of_few, stream, AsOf(position=count // 2)))),
        ),
        f"states of {FEW} streams": (
            FEW,
            lambda: json_bytes(render_states(stream_states(deps, of_few, category="patient"))),
        ),
    }
    for name, (units, work) in questions.items():
        work()
        seconds = sorted(_cpu(work) for _ in range(ROUNDS))[ROUNDS // 2]
        report.note(f"{name:<32} {units / seconds:>10,.0f}/s of CPU time")


def _all_pages(deps: Dependencies, ledger_id: UUID, limit: int) -> None:
    cursor: str | None = None
    while True:
        page = query_each(deps, ledger_id, None, cursor=cursor, limit=limit)
        page_json(page)
        cursor = page.next
        if cursor is None:
            return
