"""Sealing: what an event costs in CPU time, from the bytes of its line until it has its place and its leaf.

What the databases cost is not in it.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, cast
from uuid import UUID

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import OPERATOR, Head, JsonObject, NewEvent
from ledger.domain.intake import parse_event
from ledger.domain.names import split_stream
from ledger.domain.sequence import place_events
from ledger.domain.strict_json import parse_json
from ledger.ports import CatalogueMark, Catalogues, EventType, KeyVault, Reservation
from ledger.services.appending.attempt import Attempt
from ledger.services.appending.ingest import BATCH_LINES
from ledger.services.appending.preparation import Candidate, seal_batch
from ledger.services.appending.reserving import reserve_all
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.types import register_type
from ledger.services.evolution.validation import admit_events
from scripts.benchmarks.frame import Report
from tests.support.service import Service, new_ledger

SEED: Final = 20261123
PEOPLE: Final = 100
_MICROSECOND: Final = 1e-6
_EVENT_ID: Final = UUID(int=1)
"""That all have the same changes nothing: nobody looks for repeats here."""

EVENT_TYPE: Final = "ObservationRecorded"
ONE_PART: Final = "one part"
TWO_PARTS: Final = "two parts"
BARS: Final = {ONE_PART: 30, TWO_PARTS: 45}
"""Microseconds for an event, all stages together."""

SCHEMA: Final[JsonObject] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "pattern": "^[0-9]{1,5}-[0-9]$"},
        "display": {"type": "string", "maxLength": 200},
        "value": {"type": "integer", "minimum": 0, "maximum": 1000},
        "unit": {"type": "string", "maxLength": 20},
        "status": {"enum": ["preliminary", "final", "amended"]},
        "note": {"type": "string"},
        "encounter": {"type": "string", "format": "uuid"},
    },
    "required": ["code", "value", "unit", "status"],
    "additionalProperties": False,
}


class _RememberedKeys:
    """Stands before a vault that is asked for the same names and keys again and again, and asks it once: what a look
    into its database takes is not measured here."""

    def __init__(self, vault: KeyVault) -> None:
        self._vault = vault
        self._reservation: Reservation | None = None

    def reserve(
        self, ledger_id: UUID, streams: Mapping[str, str | None], keys: Collection[tuple[str, str]], *, mint: bool
    ) -> Reservation:
        """The refs and keys that are there."""
        if self._reservation is None:
            self._reservation = self._vault.reserve(ledger_id, streams, keys, mint=True)
        return self._reservation


class _RememberedCatalogue:
    """The same before a catalogue that does not change meanwhile."""

    def __init__(self, catalogues: Catalogues) -> None:
        self._catalogues = catalogues
        self._mark: CatalogueMark | None = None

    def catalogue_mark(self, ledger_id: UUID) -> CatalogueMark:
        """Where the rules stand."""
        if self._mark is None:
            self._mark = self._catalogues.catalogue_mark(ledger_id)
        return self._mark

    def event_types(self, ledger_id: UUID) -> Sequence[EventType]:
        """What is registered: asked for once anyway."""
        return self._catalogues.event_types(ledger_id)


class _Stopwatch:
    """CPU time by stage, in seconds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a block once more."""
        began = time.process_time()
        yield
        self.times.setdefault(name, []).append(time.process_time() - began)


def run(report: Report) -> None:
    """Events with one part and with two, of types without a schema and with one."""
    rounds = report.size(15, 101)
    report.note(f"batches of {BATCH_LINES} lines; medians of {rounds} rounds, in microseconds of CPU an event")
    with report.fresh_service("sqlite") as service:
        for parts, limit in BARS.items():
            for schema in (None, SCHEMA):
                name = f"{parts}, {'no schema' if schema is None else 'a schema'}"
                _show(report, name, limit, _measured(service, parts, schema, rounds))


def _show(report: Report, name: str, limit: float, times: Mapping[str, Sequence[float]]) -> None:
    for stage, seconds in times.items():
        report.note(f"{name:<22} {stage:<20} {statistics.median(seconds) / BATCH_LINES / _MICROSECOND:>6.1f} µs")
    totals = [sum(batch) / BATCH_LINES for batch in zip(*times.values(), strict=True)]
    report.ratio_of(f"{name}, all together ÷ {limit} µs", [limit * _MICROSECOND], totals, shown=_shown)


def _shown(seconds: float) -> str:
    return f"{seconds / _MICROSECOND:.1f} µs"


def _measured(service: Service, parts: str, schema: JsonObject | None, rounds: int) -> Mapping[str, Sequence[float]]:
    """The seconds that a batch took in each round, by stage."""
    name = f"{parts.replace(' ', '-')}-{'free' if schema is None else 'checked'}"
    ledger_id = new_ledger(service, name).ledger_id
    if schema is not None:
        register_type(service.deps, ledger_id, TypeDraft(EVENT_TYPE, 1, schema=schema), OPERATOR)
    deps = replace(
        service.deps,
        vault=cast(KeyVault, _RememberedKeys(service.vault)),
        catalogues=cast(Catalogues, _RememberedCatalogue(service.deps.catalogues)),
    )
    lines = _lines(with_actor=parts == TWO_PARTS)
    _pass(deps, ledger_id, lines, _Stopwatch())
    stopwatch = _Stopwatch()
    for _ in range(rounds):
        _pass(deps, ledger_id, lines, stopwatch)
    return stopwatch.times


def _pass(deps: Dependencies, ledger_id: UUID, lines: Sequence[bytes], stopwatch: _Stopwatch) -> None:
    """One batch on its way, as an append leads it."""
    with stopwatch.stage("JSON"):
        found = [parse_json(line) for line in lines]
    with stopwatch.stage("event"):
        events = [parse_event(one) for one in found]
    with stopwatch.stage("catalogue"):
        admitted = admit_events(deps, ledger_id, deps.catalogues.catalogue_mark(ledger_id), events)
    with stopwatch.stage("candidate"):
        candidates = [_candidate(index, event) for index, event in enumerate(admitted)]
    with stopwatch.stage("parts and sealing"):
        attempt = Attempt(deps, events, [], OPERATOR, admit_events, None, frozenset())
        attempt.become(candidates)
        reservation = reserve_all(deps, ledger_id, [attempt])
        sealed = seal_batch(ledger_id, candidates, OPERATOR, reservation, frozenset())
    with stopwatch.stage("place and leaf"):
        place_events(sealed, Head(0, (), 0), {}, deps.clock())


def _candidate(index: int, event: NewEvent) -> Candidate:
    stream = event.stream or ""
    category, _ = split_stream(stream) or ("", "")
    return Candidate(index, event, _EVENT_ID, stream, category)


def _lines(*, with_actor: bool) -> list[bytes]:
    """A batch about some people, a little more than 400 bytes a line."""
    chance = random.Random(SEED)  # noqa: S311 - made-up measurements are no secret
    return [_line(chance, with_actor=with_actor) for _ in range(BATCH_LINES)]


def _line(chance: random.Random, *, with_actor: bool) -> bytes:
    person = chance.randrange(PEOPLE)
    return json.dumps(
        {
            "stream": f"patient-{person}",
            "type": EVENT_TYPE,
            "occurred_at": "2026-01-01T10:00:00Z",
            "subject": f"patient:{person}",
            **({"actor": f"staff:{person % 20}"} if with_actor else {}),
            "data": {
                "code": "8867-4",
                "display": "Heart rate",
                "value": chance.randrange(40, 180),
                "unit": "/min",
                "status": "final",
                "note": "x" * 120,
                "encounter": str(UUID(int=chance.getrandbits(128), version=4)),
            },
        }
    ).encode()
