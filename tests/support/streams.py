"""Opened events as folds see them, made of nothing but what a test says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from ledger.domain.events import (
    Envelope,
    JsonObject,
    OpenedEvent,
    OpenedPart,
    RecordedEvent,
    Redaction,
    SchemaStatus,
)

SUBJECT_REF = b"s" * 16
STREAM_REF = b"r" * 16


def an_event(
    version: int,
    *,
    data: JsonObject | None = None,
    nonpersonal: JsonObject | None = None,
    redactions: tuple[Redaction, ...] = (),
    keys: tuple[bytes, ...] = (),
    actor: str | None = None,
    occurred_at: int | None = None,
    event_type: str = "Visit",
    schema_status: SchemaStatus = "unregistered",
    shown_version: int = 1,
    led_by_code: tuple[int, ...] = (),
) -> OpenedEvent:
    """An opened event of one stream, at the position before its version, recorded at ten times its version."""
    envelope = Envelope(UUID(int=1), UUID(int=version), STREAM_REF, "patient", event_type, 1, occurred_at, None, None)
    recorded = RecordedEvent(envelope, (), UUID(int=2), version - 1, version, version * 10, version.to_bytes(32, "big"))
    subject = OpenedPart("patient:A", SUBJECT_REF, "", data, data is not None)
    acting = OpenedPart(actor, actor.encode().ljust(16)[:16], "actor", None, readable=True) if actor else None
    return OpenedEvent(
        recorded=recorded,
        stream="patient-A",
        subject=subject,
        actor=acting,
        further=(),
        nonpersonal=nonpersonal,
        redactions=redactions,
        opened_keys=keys,
        schema_status=schema_status,
        shown_version=shown_version,
        led_by_code=led_by_code,
    )


def hidden(pointer: str, reason: Any = "erased", erasure: int = 5) -> Redaction:
    """What stands in place of a part."""
    return Redaction(pointer, SUBJECT_REF, "", reason, 99, UUID(int=erasure))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.5, 1.0]) | st.text("ab~/", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab~/", max_size=2), inner, max_size=3),
    max_leaves=8,
)
"""JSON values, few and alike, so that they often meet."""

OBJECTS = st.dictionaries(st.text("abc~/", max_size=2), VALUES, max_size=4)
"""JSON objects: states, and patches."""


@st.composite
def histories(draw: st.DrawFn, most: int = 12) -> list[OpenedEvent]:
    """The events of one stream in order of versions, some with parts that are hidden."""
    count = draw(st.integers(0, most))
    return [draw(_events(version)) for version in range(1, count + 1)]


@st.composite
def _events(draw: st.DrawFn, version: int) -> OpenedEvent:
    is_hidden = draw(st.booleans())
    reason = draw(st.sampled_from(["erased", "erased", "restricted", "unreadable"]))
    pointer = draw(st.sampled_from(["/data", "/actor", ""]))
    return an_event(
        version,
        data=None if is_hidden else draw(st.none() | OBJECTS),
        nonpersonal=draw(st.none() | OBJECTS),
        redactions=(hidden(pointer, reason, draw(st.integers(1, 2))),) if is_hidden else (),
        keys=() if is_hidden else tuple(draw(st.lists(st.sampled_from([b"k" * 32, b"l" * 32, b"m" * 32]), max_size=2))),
        actor=draw(st.none() | st.sampled_from(["group:L", "group:M"])),
        occurred_at=draw(st.none() | st.integers(0, 150)),
        event_type=draw(st.sampled_from(["Visit", "Moved"])),
        schema_status=draw(st.sampled_from(["unregistered", "current", "upcast", "unknown-version", "failed"])),
        shown_version=draw(st.integers(1, 3)),
        led_by_code=draw(st.sampled_from([(), (1,), (1, 2)])),
    )
