"""Event types, policies and copies of streams as the JSON of the contract, members in its order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ledger.domain.catalogue import EventType, definition_of
from ledger.domain.ids import format_ref
from ledger.domain.times import format_time
from ledger.services.evolution.copying import CopyReport


def render_version(one: EventType) -> dict[str, Any]:
    """A registered version of an event type."""
    return {
        "type": one.event_type,
        "version": one.version,
        **definition_of(one),
        "registered_at": format_time(one.registered_at),
        "registered_by": str(one.registered_by),
    }


def _summary(versions: Sequence[EventType]) -> dict[str, Any]:
    newest = versions[-1]
    return {
        "type": newest.event_type,
        "newest_version": newest.version,
        "closes_stream": newest.closes_stream,
    }


def render_type(versions: Sequence[EventType]) -> dict[str, Any]:
    """An event type with all its versions."""
    return {**_summary(versions), "versions": [render_version(one) for one in versions]}


def render_types(types: Mapping[str, Sequence[EventType]]) -> dict[str, Any]:
    """All event types of a ledger."""
    return {"types": [_summary(versions) for versions in types.values()]}


def render_copy(report: CopyReport) -> dict[str, Any]:
    """A finished copy."""
    return {
        "stream_ref": format_ref("str", report.target_ref),
        "events": report.events,
        "copied": report.copied,
        "parts_left_out": report.parts_left_out,
        "superseded_at": report.superseded_at,
    }
