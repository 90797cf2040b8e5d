"""How the events of a ledger are shared out to the documents of a read model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.domain.events import OpenedEvent, OpenedPart, RecordedEvent, Role
from ledger.domain.query import PinnedQuery
from ledger.domain.times import format_time, parse_time

_DAY_MICROSECONDS: Final = 86_400_000_000
_WHOLE_KEY: Final = b"whole"

Share = tuple[bytes, OpenedEvent]
"""The key of a document that an event goes into, and what that document may see of the event."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How the events of a ledger are shared out to documents. One of the constants below.

    ``shares``: the documents that an event goes into, each with what it sees of it. ``bucket``: what such a document is
    listed under; it stands in clear. ``query``: the events of the document of a key, so that one can be made again
    without the others; it may find more than ``shares`` then lets in, never less.
    """

    name: str
    shares: Callable[[OpenedEvent, frozenset[Role]], Sequence[Share]]
    bucket: Callable[[OpenedEvent], str]
    query: Callable[[bytes, PinnedQuery], PinnedQuery]


def _whole_event(key_of: Callable[[OpenedEvent], bytes]) -> Callable[[OpenedEvent, frozenset[Role]], Sequence[Share]]:
    return lambda event, roles: ((key_of(event), event),)


def _nothing_above(event: OpenedEvent) -> str:
    return ""


def _category(event: OpenedEvent) -> str:
    return event.recorded.envelope.category


def _day(event: OpenedEvent) -> str:
    return format_time(event.recorded.recorded_at)[:10]


def _of_day(key: bytes, query: PinnedQuery) -> PinnedQuery:
    begin = parse_time(f"{key.decode('ascii')}T00:00:00Z")
    if begin is None:
        raise ValueError("not a day")
    return replace(query, recorded_from=begin, recorded_to=begin + _DAY_MICROSECONDS)


def _by_person(event: OpenedEvent, roles: frozenset[Role]) -> Sequence[Share]:
    people = _people(event, roles)
    refs = dict.fromkeys(person.subject_ref for _, person, _ in people if person.subject_ref is not None)
    return [(ref, _only(event, people, ref)) for ref in refs]


def _only(event: OpenedEvent, people: Sequence[_Person], ref: bytes) -> OpenedEvent:
    """What an event says of one person: no part, name or redaction of another's is left, nor a key.

    Without the stream's name too: it may be under the key of another, who owns the stream.
    """
    own = [(pointer, person, key_id) for pointer, person, key_id in people if person.subject_ref == ref]
    pointers = {pointer for pointer, _, _ in own} | {"", "/nonpersonal"}
    keys = {key_id for _, _, key_id in own}
    kept = [person for _, person, _ in own]
    return replace(
        event,
        stream=None,
        subject=event.subject if any(person is event.subject for person in kept) else None,
        actor=event.actor if any(person is event.actor for person in kept) else None,
        further=tuple(part for part in event.further if any(person is part for person in kept)),
        redactions=tuple(redaction for redaction in event.redactions if redaction.pointer in pointers),
        opened_keys=tuple(key_id for key_id in event.opened_keys if key_id in keys),
    )


def has_unknown_person(event: OpenedEvent, roles: frozenset[Role]) -> bool:
    """Whether a part is under a key of which nobody says whose it is or was: its document cannot be told."""
    unreadable = {redaction.pointer for redaction in event.redactions if redaction.reason == "unreadable"}
    return any(person.subject_ref is None and pointer in unreadable for pointer, person, _ in _people(event, roles))


def claimed(event: OpenedEvent, roles: frozenset[Role], ref: bytes, key_ids: Collection[bytes]) -> OpenedEvent:
    """The event, with parts of which nobody says whose they are given to a person, if they are under one of these
    keys."""
    theirs = [person for _, person, key_id in _people(event, roles) if person.subject_ref is None and key_id in key_ids]

    def given(part: OpenedPart) -> OpenedPart:
        return replace(part, subject_ref=ref) if any(part is one for one in theirs) else part

    if not theirs:
        return event
    return replace(
        event,
        subject=given(event.subject) if event.subject is not None else None,
        actor=given(event.actor) if event.actor is not None else None,
        further=tuple(given(part) for part in event.further),
    )


_Person = tuple[str, OpenedPart, bytes]
"""Where in the shown event a person's part stands (RFC 6901), the part, and the key that it is under."""


def _people(event: OpenedEvent, roles: frozenset[Role]) -> list[_Person]:
    parts: dict[str, OpenedPart] = {f"/parts/{number}": part for number, part in enumerate(event.further)}
    if event.subject is not None:
        parts["/data"] = event.subject
    if event.actor is not None:
        parts["/actor"] = event.actor
    return [(pointer, parts[pointer], key_id) for pointer, key_id in places(event.recorded, roles) if pointer in parts]


def places(event: RecordedEvent, roles: frozenset[Role]) -> Iterator[tuple[str, bytes]]:
    """Where the content of each part in these roles stands in the shown event, and the key that it is under."""
    further = 0
    for part in event.parts:
        if part.role not in roles:
            continue
        if part.role is Role.FURTHER:
            yield f"/parts/{further}", part.key_id
            further += 1
        else:
            yield _POINTERS.get(part.role, ""), part.key_id


_POINTERS: Final = {
    Role.SUBJECT: "/data",
    Role.ACTOR: "/actor",
    Role.NONPERSONAL: "/nonpersonal",
    Role.STREAM_NAME: "/stream",
}

BY_STREAM: Final = Partition(
    "stream",
    _whole_event(lambda event: event.recorded.envelope.stream_ref),
    _category,
    lambda key, query: replace(query, stream_ref=key),
)
"""One document a stream, listed by category."""

BY_SUBJECT: Final = Partition(
    "subject", _by_person, _nothing_above, lambda key, query: replace(query, involving_ref=key)
)
"""One document a person. It sees of each event the parts of that person in the projection's roles, and those of nobody
else, so that only that person's keys go into it."""

BY_CATEGORY: Final = Partition(
    "category",
    _whole_event(lambda event: _category(event).encode()),
    _nothing_above,
    lambda key, query: replace(query, category=key.decode("ascii")),
)
"""One document a category. With sealed parts it depends on a key of each person in it: for few people."""

BY_DAY: Final = Partition(
    "day", _whole_event(lambda event: _day(event).encode()), lambda event: _day(event)[:7], _of_day
)
"""One document a day (UTC) on which events were recorded, like ``2026-03-15``; listed by month."""

WHOLE: Final = Partition("whole", _whole_event(lambda _: _WHOLE_KEY), _nothing_above, lambda _, query: query)
"""One document for the whole ledger. With sealed parts it depends on a key of each person in it: for few people."""

PARTITIONS: Final = (BY_STREAM, BY_SUBJECT, BY_CATEGORY, BY_DAY, WHOLE)
