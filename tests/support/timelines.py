"""A ledger of many streams with late events, and the answers of time travel worked out from its events by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ledger.domain.events import JsonObject, RecordedEvent
from ledger.domain.fold import MERGE_PATCH, Folded, Folding
from ledger.domain.query import AsOf
from ledger.services.evolution.current import open_current
from tests.support.ledgers import Backend, Ledger


def an_occurrence(number: int) -> str:
    """A time of 2014, the later the larger the number."""
    return f"2014-10-22T11:15:{number:02}Z"


def mixed_ledger(backend: Backend) -> Ledger:
    """A ledger with 120 events in twelve streams, some recorded late, one subject erased and one restricted."""
    ledger = backend.new_ledger()
    dice = random.Random(11)
    while ledger.size() < 120:
        ledger.append(*[_some_event(dice) for _ in range(dice.randint(1, 4))])
    ledger.erase("patient:3")
    ledger.deps.vault.restrict(ledger.ledger_id, ledger.subject_ref("patient:4"), ledger.deps.clock())
    return ledger


def _some_event(dice: random.Random) -> JsonObject:
    patient = dice.randint(0, 9)
    stream = f"patient-{patient}" if dice.random() < 0.85 else f"ward-{dice.randint(0, 1)}"
    event: JsonObject = {
        "stream": stream,
        "type": dice.choice(["Visit", "Moved"]),
        "subject": f"patient:{patient}",
        "data": {dice.choice("abc"): dice.choice([1, 2, None, True, [1], {"x": dice.randint(0, 2)}, {}])},
        "nonpersonal": {dice.choice("cd"): dice.choice([1, None, {"y": 1}])},
    }
    if dice.random() < 0.5:
        event["actor"] = dice.choice(["group:L", "group:M"])
    if dice.random() < 0.6:
        event["occurred_at"] = an_occurrence(dice.randint(0, 9))
    return event


def occurred(row: RecordedEvent) -> int:
    """An event without occurred-at occurred when it was recorded."""
    return row.recorded_at if row.envelope.occurred_at is None else row.envelope.occurred_at


def naive(ledger: Ledger, ref: bytes, position: int, occurred_as_of: int | None = None) -> Folded:
    """The fold of the stream's events by the rules, all read and sorted here."""
    rows = [row for row in ledger.recorded() if row.envelope.stream_ref == ref and row.position <= position]
    if occurred_as_of is not None:
        rows = sorted((row for row in rows if occurred(row) <= occurred_as_of), key=occurred)
    folding = Folding(MERGE_PATCH)
    folding.extend(open_current(ledger.deps, ledger.ledger_id, rows, MERGE_PATCH.roles))
    return folding.result()


def some_occurred(ledger: Ledger) -> list[int]:
    """Times on the occurred axis: before all, in between, now."""
    times = sorted({occurred(row) for row in ledger.recorded()})
    return [times[0] - 1, times[2], times[5], times[len(times) // 2], times[-1]]


def streams(ledger: Ledger, category: str, position: int = 2**62) -> list[bytes]:
    """The refs of the streams of a category that had begun at a position, in order."""
    return sorted(
        {
            row.envelope.stream_ref
            for row in ledger.recorded()
            if row.envelope.category == category and row.position <= position
        }
    )


def positions(ledger: Ledger) -> list[int]:
    """Some moments of a ledger."""
    return [-1, 0, 1, 17, ledger.size() // 2, ledger.size() - 1]


def at(position: int) -> AsOf:
    """A position as a moment."""
    return AsOf(position=position)


def every_page(ask: Callable[[str | None], Any], most: int = 50) -> list[Any]:
    """All pages of an answer."""
    pages = [ask(None)]
    while pages[-1].next is not None:
        assert len(pages) < most
        pages.append(ask(pages[-1].next))
    return pages
