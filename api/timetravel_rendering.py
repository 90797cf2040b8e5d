"""States, changes and histories as the JSON of the contract, members in its order. Pure."""

from __future__ import annotations

from typing import Any

from api.rendering import render_hidden, render_moment, render_redaction
from ledger.domain.difference import AttributedChange, Cause
from ledger.domain.fold import Folded
from ledger.domain.history import FieldValue
from ledger.domain.ids import format_ref
from ledger.domain.pointers import format_pointer
from ledger.domain.times import format_time
from ledger.services.timetravel.diff import DiffPage, StreamDiff
from ledger.services.timetravel.history import HistoryPage
from ledger.services.timetravel.state import StateAsOf
from ledger.services.timetravel.states import StatesPage


def render_state(answer: StateAsOf) -> dict[str, Any]:
    """The state of a stream at a moment."""
    return {"as_of": render_moment(answer.as_of), **_stream_state(answer.stream_ref, answer.state)}


def render_states(page: StatesPage) -> dict[str, Any]:
    """The states of many streams at a moment."""
    return {
        "as_of": render_moment(page.as_of),
        "next": page.next,
        "states": [_stream_state(stream_ref, folded) for stream_ref, folded in page.states],
    }


def _stream_state(stream_ref: bytes, folded: Folded) -> dict[str, Any]:
    return {
        "stream_ref": format_ref("str", stream_ref),
        "stream_version": folded.stream_version,
        "state": folded.state,
        **_known_of(folded),
    }


def _known_of(folded: Folded) -> dict[str, Any]:
    """How much of what went into a state could be read."""
    return {
        "complete": folded.complete,
        "redactions": [render_hidden(hidden) for hidden in folded.hidden],
        "unknown_versions": folded.unknown_versions,
    }


def render_diff(page: DiffPage) -> dict[str, Any]:
    """What changed between two moments."""
    return {
        "old_as_of": render_moment(page.old),
        "new_as_of": render_moment(page.new),
        "next": page.next,
        "streams": [_compared(stream) for stream in page.streams],
        "changes": [_change(stream.stream_ref, change) for stream in page.streams for change in stream.changes],
    }


def _compared(stream: StreamDiff) -> dict[str, Any]:
    return {
        "stream_ref": format_ref("str", stream.stream_ref),
        "old_version": stream.old.stream_version,
        "new_version": stream.new.stream_version,
        **_known_of(stream.new),
    }


def _change(stream_ref: bytes, attributed: AttributedChange) -> dict[str, Any]:
    change = attributed.change
    return {
        "stream_ref": format_ref("str", stream_ref),
        "path": format_pointer(change.path),
        "op": change.op,
        "old": change.old,
        "new": change.new,
        "event": _cause(attributed.event),
    }


def render_history(page: HistoryPage) -> dict[str, Any]:
    """Every value that a field ever had."""
    return {
        "as_of": render_moment(page.as_of),
        "stream_ref": format_ref("str", page.stream_ref),
        "next": page.next,
        "values": [_value(value) for value in page.values],
    }


def _value(value: FieldValue) -> dict[str, Any]:
    return {
        "value": value.value,
        "absent": value.absent,
        "redactions": [render_redaction(redaction) for redaction in value.redactions],
        "event": _cause(value.event),
    }


def _cause(event: Cause) -> dict[str, Any]:
    return {
        "id": str(event.event_id),
        "position": event.position,
        "type": event.event_type,
        "actor": event.actor,
        "actor_ref": format_ref("sub", event.actor_ref) if event.actor_ref is not None else None,
        "recorded_at": format_time(event.recorded_at),
        "occurred_at": format_time(event.occurred_at) if event.occurred_at is not None else None,
    }
