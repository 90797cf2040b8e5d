"""Seal events and write them under the head lock: the last steps of every append, the service's own events too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from ledger.domain.encoding import encode_aads, encode_plaintext, pad_plaintext, plaintext_members
from ledger.domain.events import Appended, Envelope, JsonObject, RecordedEvent, Role, SealedEvent, SealedPart
from ledger.ports import DataKey

_SPELLED_ALIKE: Final = frozenset({str, int, bool, type(None)})


@dataclass(slots=True)
class PlainPart:
    """A part before it is sealed. ``key`` None only for ``Role.SHREDDED``, which has nothing to seal. ``stream`` can be
    put in last: which part carries the stream's name is known when all are there."""

    role: Role
    key_id: bytes
    key: DataKey | None
    subject: str | None = None
    stream: str | None = None
    data: JsonObject | None = None


def seal_event(envelope: Envelope, parts: Sequence[PlainPart], recorded_by: UUID) -> SealedEvent:
    """Seal the parts of one event, each under its own key, with all roles and key ids of the event as AAD."""
    aads = encode_aads(envelope, [(part.role, part.key_id) for part in parts])
    sealed = []
    for part, aad in zip(parts, aads, strict=True):
        body = b""
        if part.key is not None:
            body = part.key.seal(write_plaintext(part.subject, part.stream, part.data), aad)
        sealed.append(SealedPart(part.role, part.key_id, body))
    return SealedEvent(envelope, tuple(sealed), recorded_by)


def write_plaintext(subject: str | None, stream: str | None, data: JsonObject | None) -> bytes:
    """The same bytes as ``encode_plaintext`` gives, by orjson where that spells as Python does. It does not so with all
    floats, and what it refuses is for Python to write or to refuse. Raises as ``encode_plaintext`` does."""
    if data is None or _is_spelled_alike(data):
        with suppress(orjson.JSONEncodeError):
            return pad_plaintext(orjson.dumps(plaintext_members(subject, stream, data)))
    return encode_plaintext(subject=subject, stream=stream, data=data)


def _is_spelled_alike(data: JsonObject) -> bool:
    """Whether there is nothing in these data but texts, whole numbers, true, false and null."""
    containers: list[Any] = [data]
    for container in containers:
        for item in container.values() if type(container) is dict else container:
            kind = type(item)
            if kind is dict or kind is list:
                containers.append(item)
            elif kind not in _SPELLED_ALIKE:
                return False
    return True


def appended(event: RecordedEvent) -> Appended:
    """What the writer of an event is told."""
    envelope = event.envelope
    return Appended(envelope.event_id, event.position, envelope.stream_ref, event.stream_version, event.recorded_at)
