"""From loaded request fields to what the services are asked."""

from __future__ import annotations

from typing import Any, Final

from ledger.domain.query import AsOf, EventQuery, NameOrRef

_PAGING: Final = frozenset({"limit", "cursor", "proof", "as_recorded"})
_DEFAULTS: Final[dict[str, object]] = {"after_version": 0, "order_by": "recorded", "order": "asc"}


def who(fields: dict[str, Any], name: str) -> NameOrRef | None:
    """Somebody or a stream by name or ref, if the request says so."""
    if fields.get(f"{name}_ref") is not None:
        return NameOrRef(None, fields[f"{name}_ref"])
    return NameOrRef(fields[name], None) if fields.get(name) is not None else None


def needed(fields: dict[str, Any], name: str) -> NameOrRef:
    """The same for what the schema has seen to be there."""
    found = who(fields, name)
    if found is None:
        raise TypeError(f"the schema let a request without {name} through")
    return found


def query_of(fields: dict[str, Any]) -> EventQuery:
    """The query that the body of ``POST query`` asks."""
    return EventQuery(
        stream=who(fields, "stream"),
        after_version=fields["after_version"],
        category=fields.get("category"),
        types=tuple(fields.get("type") or ()),
        subject=who(fields, "subject"),
        actor=who(fields, "actor"),
        involving=who(fields, "involving"),
        correlation_id=fields.get("correlation_id"),
        recorded_by=fields.get("recorded_by"),
        recorded_from=fields.get("recorded_from"),
        recorded_to=fields.get("recorded_to"),
        occurred_from=fields.get("occurred_from"),
        occurred_to=fields.get("occurred_to"),
        as_of=fields.get("as_of"),
        order_by=fields["order_by"],
        order=fields["order"],
    )


def asks_something(fields: dict[str, Any]) -> bool:
    """Whether a body says anything beside its paging: if not, its cursor alone says what is asked."""
    return any(
        value is not None and value != _DEFAULTS.get(name) for name, value in fields.items() if name not in _PAGING
    )


def feed_of(parameters: dict[str, Any]) -> EventQuery:
    """The query that the parameters of ``GET events`` ask."""
    as_of: AsOf | None = parameters.get("as_of")
    subject_ref = parameters.get("subject_ref")
    return EventQuery(
        stream=who(parameters, "stream"),
        category=parameters.get("category"),
        types=tuple(parameters.get("type") or ()),
        subject=NameOrRef(None, subject_ref) if subject_ref is not None else None,
        after_position=parameters["after"],
        as_of=as_of,
    )


def feed_asks_something(parameters: dict[str, Any]) -> bool:
    """Whether the parameters of the feed say anything beside its paging."""
    filters = ("category", "type", "stream_ref", "subject_ref", "as_of")
    return parameters["after"] >= 0 or any(parameters.get(name) is not None for name in filters)
