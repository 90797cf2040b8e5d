"""From refs back to names, for writers who append by ref.

No table has a name in clear; the names stand in the sealed parts of the events themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from ledger.domain.events import PERSONAL_ROLES, NewEvent, NewPart, OpenedEvent, OpenedPart
from ledger.domain.query import EventFilter
from ledger.errors import Fault, IntegrityError, NotFoundError, SubjectErasedError
from ledger.services.dependencies import Dependencies
from ledger.services.opening import open_events


def with_names(deps: Dependencies, ledger_id: UUID, events: Sequence[NewEvent]) -> list[NewEvent]:
    """Put names beside the refs that these events give. Whoever turns the names into refs again has to look whether
    they are still the same: a name can begin anew in the meantime.

    Raises ``NotFoundError`` for a ref that nothing is recorded under, ``SubjectErasedError`` for one whose names are
    gone, and ``IntegrityError`` for one whose names cannot be read though nobody erased them. An event that says
    ``if_erased: omit`` loses the parts of erased people instead.
    """
    names = _Names(deps, ledger_id)
    return [names.of_event(event, index) for index, event in enumerate(events)]


def name_of_subject(deps: Dependencies, ledger_id: UUID, ref: bytes) -> str | None:
    """The name of a subject, while it can be read in one of its events."""
    try:
        return _Names(deps, ledger_id).of_subject(ref, Fault("/subject_ref", "names no subject here"))
    except (NotFoundError, SubjectErasedError, IntegrityError):
        return None


def nameless_among(deps: Dependencies, ledger_id: UUID, events: Iterable[OpenedEvent]) -> frozenset[bytes]:
    """The people who were erased from these events and whose names began anew: no name leads to them any more."""
    refs = {one.subject_ref for event in events for one in event.redactions if one.reason == "erased"}
    people = (deps.vault.subject(ledger_id, ref) for ref in refs if ref is not None)
    return frozenset(person.ref for person in people if person is not None and person.names == 0)


class _Names:
    def __init__(self, deps: Dependencies, ledger_id: UUID) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._subjects: dict[bytes, str] = {}
        self._streams: dict[bytes, str] = {}
        self._begun: set[str | None] = set()

    def of_event(self, event: NewEvent, index: int) -> NewEvent:
        if event.stream_ref is not None:
            event = replace(event, stream=self._stream(event.stream_ref, event, index))
        subject = self._part(event.subject, event, "/subject_ref", index)
        if subject is None and event.subject is not None and not self._has_begun(event.stream):
            # Without its subject the stream would be nobody's, and its name would outlive the erasure.
            raise _hidden(Fault(f"{event.pointer}/subject_ref", "", index))
        self._begun.add(event.stream)
        if all(part.subject_ref is None for _, part in event.personal):
            return event
        return replace(
            event,
            subject=subject,
            actor=self._part(event.actor, event, "/actor", index),
            further=tuple(
                part
                for number, old in enumerate(event.further)
                if (part := self._part(old, event, f"/parts/{number}/subject_ref", index)) is not None
            ),
        )

    def _part(self, part: NewPart | None, event: NewEvent, where: str, index: int) -> NewPart | None:
        if part is None or part.subject_ref is None:
            return part
        ref = part.subject_ref
        if ref not in self._subjects:
            fault = Fault(event.pointer + where, "names no subject here", index)
            try:
                self._subjects[ref] = self._of_writable(ref, fault)
            except SubjectErasedError:
                if event.omit_erased and self._is_erased(ref):
                    return None
                raise
        return replace(part, subject=self._subjects[ref])

    def _of_writable(self, ref: bytes, fault: Fault) -> str:
        name = self.of_subject(ref, fault)
        subject = self._deps.vault.subject(self._ledger_id, ref)
        if subject is None or subject.names == 0:
            # What an erased person did as an actor still tells the name, and that leads to somebody new by now.
            raise _hidden(fault)
        return name

    def _is_erased(self, ref: bytes) -> bool:
        """Of an erased purpose the others can be left, and of a living subject nothing is left out silently."""
        subject = self._deps.vault.subject(self._ledger_id, ref)
        return subject is not None and subject.state == "erased"

    def _has_begun(self, stream: str | None) -> bool:
        """Whether the stream has an event, or gets one earlier in this batch."""
        if stream is None or stream in self._begun:
            return stream is not None
        entry = self._deps.vault.find_streams(self._ledger_id, [stream]).get(stream)
        return entry is not None and bool(self._deps.store.versions(self._ledger_id, [entry.ref]))

    def _stream(self, ref: bytes, event: NewEvent, index: int) -> str:
        if ref not in self._streams:
            first = self._first_event(EventFilter(0, 2**62, stream_ref=ref))
            fault = Fault(f"{event.pointer}/stream_ref", "names no stream here", index)
            self._streams[ref] = _known(first, first.stream if first else None, fault)
        return self._streams[ref]

    def of_subject(self, ref: bytes, fault: Fault) -> str:
        """The name behind a ref. Raises as ``with_names`` does."""
        subject = self._deps.vault.subject(self._ledger_id, ref)
        if subject is None:
            raise NotFoundError("a ref is not known in this ledger", [fault])
        key_ids = [key_id for key_id, _ in subject.key_ids]
        # A purpose that was erased must not hide the name that the others still have.
        dead = self._deps.store.shreddings(self._ledger_id, key_ids)
        living = tuple(key_id for key_id in key_ids if key_id not in dead)
        ends = self._deps.store.key_ends(self._ledger_id, living, PERSONAL_ROLES)
        first = self._first_event(EventFilter(ends[0], ends[0])) if ends is not None else None
        if first is None and (subject.state == "erased" or self._deps.store.key_ends(self._ledger_id, key_ids)):
            raise _hidden(fault)
        people = _people(first) if first is not None else ()
        names = (part.subject for part in people if part.subject_ref == ref and part.subject is not None)
        return _known(first, next(names, None), fault)

    def _first_event(self, which: EventFilter) -> OpenedEvent | None:
        events = self._deps.store.select_events(self._ledger_id, which, None, 1)
        # Of restricted people too: their names are sealed again, and not shown.
        return next(iter(open_events(self._deps, self._ledger_id, events, recording=True)), None)


def _known(first: OpenedEvent | None, name: str | None, fault: Fault) -> str:
    if first is None:
        raise NotFoundError("a ref is not known in this ledger", [fault])
    if name is not None:
        return name
    if all(redaction.reason == "unreadable" for redaction in first.redactions):
        # I9: what was tampered with is not called erased.
        raise IntegrityError("the name behind a ref cannot be read; run `audit-ledger verify`", [fault])
    raise _hidden(fault)


def _hidden(fault: Fault) -> SubjectErasedError:
    return SubjectErasedError(
        "the name behind a ref cannot be read any more; nothing can be appended under it",
        [Fault(fault.pointer, "its subject was erased", fault.index)],
    )


def _people(event: OpenedEvent) -> Iterable[OpenedPart]:
    return (part for part in (event.subject, event.actor, *event.further) if part is not None)
