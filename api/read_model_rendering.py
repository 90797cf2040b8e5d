"""Projections and their documents as the JSON of the contract, members in its order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.rendering import render_hidden
from ledger.domain.ids import format_ref
from ledger.domain.partition import BY_STREAM, BY_SUBJECT
from ledger.domain.projection import Projection
from ledger.services.projecting.read_models import ReadDocument, ReadModelAnswer
from ledger.services.projecting.status import ProjectionStatus

_MICROSECONDS: Final = 1_000_000


def render_read_model(projection: Projection, answer: ReadModelAnswer) -> dict[str, Any]:
    """Documents, and the moment that they are of."""
    return {
        "name": projection.name,
        "version": answer.cursor.version,
        "generation": answer.cursor.key.number,
        "position": answer.cursor.position,
        "next": answer.next,
        "documents": [_document(projection, document) for document in answer.documents],
    }


def _document(projection: Projection, document: ReadDocument) -> dict[str, Any]:
    return {
        "key": _key(projection, document.key),
        "bucket": document.bucket or None,
        "position": document.position,
        "events": document.events,
        "document": document.document,
        "complete": document.complete,
        "redactions": [render_hidden(hidden) for hidden in document.hidden],
        "unknown_versions": document.unknown_versions,
    }


def _key(projection: Projection, key: bytes) -> str:
    if projection.partition is BY_STREAM:
        return format_ref("str", key)
    if projection.partition is BY_SUBJECT:
        return format_ref("sub", key)
    return key.decode("ascii", "replace")


def render_projections(statuses: Sequence[ProjectionStatus]) -> dict[str, Any]:
    """How far projections have come."""
    return {"projections": [_status(status) for status in statuses]}


def _status(status: ProjectionStatus) -> dict[str, Any]:
    cursor = status.cursor
    return {
        "name": cursor.key.name,
        "version": cursor.version,
        "generation": cursor.key.number,
        "state": cursor.state,
        "current": status.seen,
        "position": cursor.position,
        "behind": status.behind,
        "age_seconds": status.age / _MICROSECONDS if status.age is not None else None,
        "held": status.held,
        "error": cursor.error,
    }
