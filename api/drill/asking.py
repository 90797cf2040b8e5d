"""The ways in which a reader asks about the canary: in this program, and over HTTP. By refs alone: a process that is
never told a name has none in its memory but what it has read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from api.json_text import json_bytes, json_line
from api.read_model_rendering import render_read_model
from api.rendering import render_event, render_page
from api.timetravel_rendering import render_state, render_states
from ledger.domain.ids import format_ref
from ledger.domain.query import AsOf, EventQuery, NameOrRef
from ledger.services.dependencies import Dependencies
from ledger.services.projecting.read_models import read_document
from ledger.services.projecting.shipped import CURRENT_STATE
from ledger.services.read import export_events, query_events
from ledger.services.timetravel.state import stream_state
from ledger.services.timetravel.states import stream_states

_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to ask about, and a position at which it had not been erased."""

    ledger_id: UUID
    subject_ref: bytes
    stream_ref: bytes
    position: int

    @property
    def subject(self) -> NameOrRef:
        """The canary."""
        return NameOrRef(None, self.subject_ref)

    @property
    def stream(self) -> NameOrRef:
        """Its stream."""
        return NameOrRef(None, self.stream_ref)

    @property
    def before(self) -> AsOf:
        """The moment before the erasure."""
        return AsOf(position=self.position)


def _query(deps: Dependencies, of: Question) -> bytes:
    asked = EventQuery(involving=of.subject)
    return json_bytes(render_page(query_events(deps, of.ledger_id, asked, cursor=None, limit=_LIMIT)))


def _query_before(deps: Dependencies, of: Question) -> bytes:
    asked = EventQuery(involving=of.subject, as_of=of.before)
    return json_bytes(render_page(query_events(deps, of.ledger_id, asked, cursor=None, limit=_LIMIT)))


def _export(deps: Dependencies, of: Question) -> bytes:
    pages = export_events(deps, of.ledger_id, EventQuery(involving=of.subject))
    return b"".join(json_line(render_event(event)) for page in pages for event in page)


def _state(deps: Dependencies, of: Question) -> bytes:
    return json_bytes(render_state(stream_state(deps, of.ledger_id, of.stream)))


def _state_before(deps: Dependencies, of: Question) -> bytes:
    return json_bytes(render_state(stream_state(deps, of.ledger_id, of.stream, of.before)))


def _states(deps: Dependencies, of: Question) -> bytes:
    return json_bytes(render_states(stream_states(deps, of.ledger_id, subject=of.subject)))


def _read_model(deps: Dependencies, of: Question) -> bytes:
    return json_bytes(render_read_model(CURRENT_STATE, read_document(deps, of.ledger_id, CURRENT_STATE, of.stream_ref)))


WAYS: Final[Mapping[str, Callable[[Dependencies, Question], bytes]]] = {
    "query": _query,
    "query as of before": _query_before,
    "export": _export,
    "state": _state,
    "state as of before": _state_before,
    "states": _states,
    "read model": _read_model,
}
"""Each gives the bytes that the HTTP API would answer with."""


def requests_for(of: Question) -> Mapping[str, tuple[str, dict[str, Any]]]:
    """The same ways over HTTP: the end of the path, and the body. An export is the query with NDJSON accepted."""
    subject, stream = format_ref("sub", of.subject_ref), format_ref("str", of.stream_ref)
    before = {"as_of": {"position": of.position}}
    return {
        "query": ("query", {"involving_ref": subject}),
        "query as of before": ("query", {"involving_ref": subject, **before}),
        "export": ("query", {"involving_ref": subject}),
        "state": ("state", {"stream_ref": stream}),
        "state as of before": ("state", {"stream_ref": stream, **before}),
        "states": ("states", {"subject_ref": subject}),
        "read model": (f"read-models/{CURRENT_STATE.name}", {"stream_ref": stream}),
    }
