"""Whether an event that is sent again is the one that is recorded (I4).

There is no hash of what was recorded to compare with, and there must not be: it would outlive the erasure and could be
guessed back. So what can be read is compared, and what has been erased since is taken on trust.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ledger.domain.events import JsonObject, NewEvent, NewPart, OpenedEvent, OpenedPart, Role
from ledger.domain.names import split_stream


@dataclass(frozen=True, slots=True)
class KnownRefs:
    """Where the names of an event lead now; a name that leads nowhere (any more) is absent. ``nameless``: subjects that
    no name leads to any more, because it began anew. What was recorded of them cannot be compared by name."""

    streams: Mapping[str, bytes]
    subjects: Mapping[str, bytes]
    nameless: Collection[bytes] = frozenset()


def is_repeat(new: NewEvent, stored: OpenedEvent, refs: KnownRefs) -> bool:
    """Whether nothing that can be compared differs."""
    envelope = stored.recorded.envelope
    return (
        new.event_type == envelope.event_type
        and new.schema_version == envelope.schema_version
        and new.occurred_at == envelope.occurred_at
        and new.causation_id == envelope.causation_id
        and (not new.correlation_given or new.correlation_id == envelope.correlation_id)
        and _same_stream(new, stored, refs)
        and _same_people(new, stored, refs)
        and _same_nonpersonal(new, stored)
    )


def _same_stream(new: NewEvent, stored: OpenedEvent, refs: KnownRefs) -> bool:
    recorded_ref = stored.recorded.envelope.stream_ref
    if new.stream is None:
        return new.stream_ref == recorded_ref
    split = split_stream(new.stream)
    if split is None or split[0] != stored.recorded.envelope.category:
        return False
    if stored.stream is not None:
        return new.stream == stored.stream
    if any(redaction.subject_ref in refs.nameless for redaction in stored.redactions):
        # The owner has a part in each event of a stream; the stream's name began anew with the owner's.
        return True
    return refs.streams.get(new.stream, recorded_ref) == recorded_ref


def _same_people(new: NewEvent, stored: OpenedEvent, refs: KnownRefs) -> bool:
    recorded: list[tuple[Role, OpenedPart]] = []
    if stored.subject is not None:
        recorded.append((Role.SUBJECT, stored.subject))
    if stored.actor is not None:
        recorded.append((Role.ACTOR, stored.actor))
    recorded.extend((Role.FURTHER, part) for part in stored.further)
    for role, part in new.personal:
        if recorded and recorded[0][0] is role and _same_part(part, recorded[0][1], refs):
            recorded.pop(0)
        elif not new.omit_erased:
            return False
    return not recorded


def _same_part(new: NewPart, stored: OpenedPart, refs: KnownRefs) -> bool:
    if stored.purpose is not None and new.purpose != stored.purpose:
        return False
    if new.subject is None:
        same_subject = new.subject_ref == stored.subject_ref
    elif stored.readable:
        same_subject = new.subject == stored.subject
    else:
        known = refs.subjects.get(new.subject)
        same_subject = (
            known is None
            or stored.subject_ref is None
            or stored.subject_ref in refs.nameless
            or known == stored.subject_ref
        )
    return same_subject and (not stored.readable or same_json(new.data, stored.data))


def _same_nonpersonal(new: NewEvent, stored: OpenedEvent) -> bool:
    hidden = any(redaction.pointer == "/nonpersonal" for redaction in stored.redactions)
    return hidden or same_json(new.nonpersonal, stored.nonpersonal)


def same_json(one: JsonObject | None, other: JsonObject | None) -> bool:
    """Whether two objects are the same JSON value, whatever the order of their members."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
