"""Append a long sequence of events, one a line (NDJSON): in order, in atomic batches, a bad line losing no good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import Appended, NewEvent, RecordedEvent
from ledger.domain.ids import uuid7
from ledger.domain.intake import EVENT_BYTES, parse_event
from ledger.domain.strict_json import parse_json
from ledger.domain.values import value
from ledger.errors import (
    CallerError,
    Fault,
    IdConflictError,
    LedgerError,
    PartlyRecordedError,
    StateError,
    TooLargeError,
)
from ledger.services.appending.append import append_events, conflicting
from ledger.services.appending.recording import appended
from ledger.services.dependencies import Dependencies

BATCH_LINES: Final = 500
BATCH_BYTES: Final = 4 * 2**20
_ID_RANDOM: Final = 10
"""Random bytes of an id."""


@value(frozen=True, slots=True)
class LineResult:
    """What became of one line: recorded (now, or before: ``duplicate``) or refused (``error``)."""

    line: int
    appended: Appended | None
    duplicate: bool
    error: LedgerError | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where lines come from: who records them, and what gives ids to lines that have none.

    ``id_label``: with it the ids are derived from the label and the line number, so that sending the lines again
    records nothing twice (I4); None: ids are minted.
    """

    recorded_by: UUID
    id_label: str | None
    default_correlation: UUID | None = None


@value(frozen=True, slots=True)
class _Line:
    number: int
    event: NewEvent


LineReader = Callable[[bytes], object]
"""From the bytes of a line to the JSON of an event. Raises ``CallerError``."""


def ingest_lines(
    deps: Dependencies,
    ledger_id: UUID,
    lines: Iterable[bytes],
    source: Source,
    read_line: LineReader = parse_json,
) -> Iterator[LineResult]:
    """Append events line by line; gives one result for each line that is not blank, in their order.

    Holds one batch in memory. An error of a dependency is raised, and ends the sequence; everything that was given
    before it stands, and sending all lines again is safe where ids are given or derived.
    """
    for batch in _batches(lines):
        refused: dict[int, LineResult] = {}
        parsed: list[_Line] = []
        ids = _derived_ids(deps, ledger_id, source, [number for number, _ in batch])
        for (number, text), derived in zip(batch, ids, strict=True):
            try:
                parsed.append(_Line(number, _read(text, read_line, derived, source.default_correlation)))
            except CallerError as error:
                refused[number] = LineResult(number, None, duplicate=False, error=error)
        results = refused
        for part in _without_repeated_ids(parsed):
            for result in _append(deps, ledger_id, part, source.recorded_by):
                results[result.line] = result
        yield from [results[number] for number, _ in batch]


def _batches(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(lines, 1):
        text = line.strip(b" \t\r\n")
        if not text:
            continue
        batch.append((number, text))
        size += len(text)
        if len(batch) >= BATCH_LINES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(text: bytes, read_line: LineReader, derived: UUID, default_correlation: UUID | None) -> NewEvent:
    if len(text) > EVENT_BYTES:
        raise TooLargeError("an event is above 1 MiB", [Fault("", "must be at most 1 MiB")])
    return parse_event(read_line(text), default_id=derived, default_correlation=default_correlation)


def _derived_ids(deps: Dependencies, ledger_id: UUID, source: Source, numbers: Sequence[int]) -> Sequence[UUID]:
    if source.id_label is None:
        now, random = deps.clock(), deps.entropy(_ID_RANDOM * len(numbers))
        return [uuid7(now, random[start : start + _ID_RANDOM]) for start in range(0, len(random), _ID_RANDOM)]
    return deps.vault.derive_ids(ledger_id, source.id_label, numbers)


def _without_repeated_ids(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Cut where an id comes again, so that the second is seen as a repeat of the first."""
    part: list[_Line] = []
    seen: set[UUID | None] = set()
    for line in lines:
        if line.event.event_id in seen:
            yield part
            part, seen = [], set()
        part.append(line)
        seen.add(line.event.event_id)
    if part:
        yield part


def _append(deps: Dependencies, ledger_id: UUID, lines: Sequence[_Line], recorded_by: UUID) -> Iterator[LineResult]:
    """Append what is new in one batch; take out what is refused or recorded, and try the others again."""
    fresh = list(lines)
    while fresh:
        try:
            result = append_events(deps, ledger_id, [line.event for line in fresh], recorded_by)
        except (PartlyRecordedError, IdConflictError):
            known = deps.store.find_events(ledger_id, [line.event.event_id for line in fresh if line.event.event_id])
            yield from _repeated(deps, ledger_id, [line for line in fresh if line.event.event_id in known], known)
            fresh = [line for line in fresh if line.event.event_id not in known]
            continue
        except (CallerError, StateError) as error:
            bad = sorted({fault.index for fault in error.faults}) or list(range(len(fresh)))
            yield from (_refused(fresh[index], index, error) for index in bad)
            fresh = [line for index, line in enumerate(fresh) if index not in set(bad)]
            continue
        for line, place in zip(fresh, result.events, strict=True):
            yield LineResult(line.number, place, duplicate=result.duplicate, error=None)
        return


def _repeated(
    deps: Dependencies, ledger_id: UUID, lines: Sequence[_Line], known: Mapping[UUID, RecordedEvent]
) -> Iterator[LineResult]:
    """The answers for lines whose ids are recorded."""
    rows = [known[line.event.event_id] for line in lines if line.event.event_id]
    clashes = set(conflicting(deps, ledger_id, [line.event for line in lines], rows))
    for index, (line, row) in enumerate(zip(lines, rows, strict=True)):
        if index in clashes:
            fault = Fault("/id", "is recorded with other content")
            error = IdConflictError("the event id is recorded with other content", [fault])
            yield LineResult(line.number, None, duplicate=False, error=error)
        else:
            yield LineResult(line.number, appended(row), duplicate=True, error=None)


def _refused(line: _Line, index: int, error: LedgerError) -> LineResult:
    own = tuple(fault for fault in error.faults if fault.index == index)
    return LineResult(line.number, None, duplicate=False, error=type(error)(error.detail, own))
