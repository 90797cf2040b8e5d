"""Answers with proofs: each event with the proof of its place and, on demand, with what shows somebody without a vault
that the text is the recorded one.

All events of an answer are proven under one checkpoint, which reaches as far as the answer looks. Which parts come
along is decided where events are opened (``ledger.services.opening``), in the same look: those that the reader gets to
see now, and no others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ledger.domain.encoding import leaf_of
from ledger.domain.events import OpenedEvent, RecordedEvent
from ledger.domain.query import EventQuery, Moment
from ledger.ports import PublishedCheckpoint
from ledger.services.dependencies import Dependencies
from ledger.services.proving.proofs import prove_under
from ledger.services.proving.publishing import log_name, note_of, publish
from ledger.services.read import export_pinned, get_event, pin_query, query_events

ProofKind = Literal["placed", "opened"]
"""``placed``: that the event stands in the log. ``opened``: also that its shown text is what was recorded there."""


@dataclass(frozen=True, slots=True)
class ProvenEvent:
    """An event with the inclusion proof of its position. ``leaf`` only where it was asked for what is ``opened``; None
    then, too, for a row that was altered so that no leaf can be made of it."""

    event: OpenedEvent
    hashes: Sequence[bytes]
    kind: ProofKind
    leaf: bytes | None


@dataclass(frozen=True, slots=True)
class ProvenPage:
    """One page of a query, under one checkpoint (the whole note)."""

    as_of: Moment
    next: str | None
    checkpoint: str
    events: Sequence[ProvenEvent]


def query_proven(
    deps: Dependencies,
    ledger_id: UUID,
    query: EventQuery | None,
    kind: ProofKind,
    *,
    cursor: str | None,
    limit: int,
    as_recorded: bool = False,
) -> ProvenPage:
    """One page as ``query_events`` gives it, with proofs; what is ``opened`` is shown as it was recorded."""
    page = query_events(
        deps,
        ledger_id,
        query,
        cursor=cursor,
        limit=limit,
        as_recorded=as_recorded,
        disclosing=kind == "opened",
    )
    checkpoint = _checkpoint(deps, ledger_id, page.as_of.position + 1)
    events = _proven(deps, checkpoint, page.events, kind)
    return ProvenPage(page.as_of, page.next, note_of(deps, checkpoint), events)


def export_proven(
    deps: Dependencies, ledger_id: UUID, query: EventQuery, kind: ProofKind, *, as_recorded: bool = False
) -> tuple[str, Iterator[Sequence[ProvenEvent]]]:
    """The checkpoint of an export, and its pages as ``export_events`` gives them, with proofs. The checkpoint is pinned
    when it begins, with the moment that it is of."""
    pinned = pin_query(deps, ledger_id, query)
    checkpoint = _checkpoint(deps, ledger_id, pinned.as_of + 1)
    pages = export_pinned(deps, ledger_id, pinned, as_recorded=as_recorded, disclosing=kind == "opened")
    return note_of(deps, checkpoint), (_proven(deps, checkpoint, page, kind) for page in pages)


def show_proven(
    deps: Dependencies, ledger_id: UUID, event_id: UUID, kind: ProofKind, *, as_recorded: bool = False
) -> tuple[str, ProvenEvent]:
    """One event by its id with its proof, and the checkpoint. Raises ``NotFoundError``."""
    event = get_event(deps, ledger_id, event_id, as_recorded=as_recorded, disclosing=kind == "opened")
    checkpoint = _checkpoint(deps, ledger_id, event.recorded.position + 1)
    return note_of(deps, checkpoint), _proven(deps, checkpoint, [event], kind)[0]


def _checkpoint(deps: Dependencies, ledger_id: UUID, size: int) -> PublishedCheckpoint:
    """A checkpoint of at least so many events: the last one that a witness has cosigned if it reaches that far, since
    it shows more; else the newest."""
    cosigned = deps.transparency.latest_published(ledger_id, log_name(deps, ledger_id), cosigned=True)
    return cosigned if cosigned is not None and cosigned.size >= size else publish(deps, ledger_id, at_least=size)


def _proven(
    deps: Dependencies, checkpoint: PublishedCheckpoint, events: Sequence[OpenedEvent], kind: ProofKind
) -> Sequence[ProvenEvent]:
    leaf_hashes = {event.recorded.position: event.recorded.leaf_hash for event in events}
    proofs = prove_under(deps, checkpoint, leaf_hashes)
    return [
        ProvenEvent(
            event,
            # Nothing, which does not verify, where there is no proof.
            proofs.get(event.recorded.position, ()),
            kind,
            _leaf_or_none(event.recorded) if kind == "opened" else None,
        )
        for event in events
    ]


def _leaf_or_none(event: RecordedEvent) -> bytes | None:
    try:
        return leaf_of(event)
    except (ValueError, OverflowError, struct.error):
        # Altered by hand to what no leaf can hold. Opening it has raised the alarm, and nothing of it is proven.
        return None
