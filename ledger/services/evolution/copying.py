"""Copy a stream to a new one, changed on the way, and end the old one: for what no new version of a type can say.

Each event of the old stream becomes one of the new, with the id of the first as its cause. The ids of the copies are
derived, so whoever finds the job cut short runs it again: it goes on behind what is there, and done once more it
changes nothing. The new stream holds each person's data under the very keys that the old one has it under, or the event
is not written: nothing of anybody gets into clear, or under the key of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import UUID

from ledger.domain.events import (
    JsonObject,
    NewEvent,
    NewPart,
    OpenedEvent,
    OpenedPart,
    RecordedEvent,
    SealedEvent,
)
from ledger.domain.ids import format_ref
from ledger.domain.intake import LARGEST_SCHEMA_VERSION
from ledger.domain.names import (
    RESERVED_TYPES,
    STREAM_SUPERSEDED,
    is_reserved_category,
    name_fault,
    split_stream,
    word_fault,
)
from ledger.domain.query import EventFilter, EventQuery, NameOrRef
from ledger.domain.sequence import used_keys
from ledger.domain.upcasting import Budget, Change, Step, apply_steps, checked_object, parse_steps
from ledger.errors import (
    BusyError,
    CopyRefusedError,
    Fault,
    IdConflictError,
    InvalidError,
    PartlyRecordedError,
    StreamClosedError,
    SubjectErasedError,
    TooLargeError,
    VersionConflictError,
)
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.validation import admit_events
from ledger.services.naming import name_of_subject
from ledger.services.read import export_events, find_stream

ROUNDS: Final = 100
"""How often a copy goes after writers who keep appending to the old stream."""

_OWNER_ERASED: Final = "the owner of the stream was erased"


@dataclass(frozen=True, slots=True)
class Transform:
    """What becomes of the events of one type. It sees them in their newest shape.

    ``event_type``, ``schema_version``: of the copies; None: as they are shown. ``steps`` are declarative; ``data`` and
    ``nonpersonal``, functions, come after them. Each sees only the one that it changes: nothing personal can flow from
    data into what outlives an erasure.
    """

    event_type: str | None = None
    schema_version: int | None = None
    steps: Sequence[Step] = ()
    data: Change | None = None
    nonpersonal: Change | None = None


@dataclass(frozen=True, slots=True)
class CopyReport:
    """A finished copy. ``events``: of the old stream that the new one has; ``copied``: those that this run has copied;
    ``parts_left_out``: erased parts of these; ``superseded_at``: the position of ``StreamSuperseded``."""

    target_ref: bytes
    events: int
    copied: int
    parts_left_out: int
    superseded_at: int


def read_transforms(raw: Mapping[str, Any]) -> dict[str, Transform]:
    """Read ``{type: {"type", "version", "steps"}}``. Raises ``InvalidError``."""
    transforms: dict[str, Transform] = {}
    faults: list[Fault] = []
    for event_type, members in raw.items():
        if word_fault(event_type) is not None:
            # Not repeated: somebody could have put a name there.
            faults.append(Fault("/transforms", "has a member that is no event type"))
            continue
        where = f"/transforms/{event_type}"
        if not isinstance(members, dict) or members.keys() - {"type", "version", "steps"}:
            faults.append(Fault(where, "must be an object with 'type', 'version' and 'steps', each of which may lack"))
            continue
        raw_steps = members.get("steps", [])
        steps, step_faults = (
            parse_steps(raw_steps, f"{where}/steps")
            if isinstance(raw_steps, list)
            else ([], [Fault(f"{where}/steps", "must be an array")])
        )
        transform = Transform(members.get("type"), members.get("version"), steps)
        faults += step_faults + _transform_faults(transform, where)
        transforms[event_type] = transform
    if faults:
        raise InvalidError("the transforms are not valid; nothing was copied", faults)
    return transforms


def _transform_faults(transform: Transform, where: str) -> list[Fault]:
    faults = []
    message = word_fault(transform.event_type) if transform.event_type is not None else None
    if message is None and transform.event_type in RESERVED_TYPES:
        message = "this type is reserved for the ledger's own events"
    if message is not None:
        faults.append(Fault(f"{where}/type", message))
    version: object = transform.schema_version
    is_version = type(version) is int and 1 <= version <= LARGEST_SCHEMA_VERSION
    if version is not None and not is_version:
        faults.append(Fault(f"{where}/version", f"must be an integer from 1 to {LARGEST_SCHEMA_VERSION}"))
    return faults


def copy_stream(
    deps: Dependencies,
    ledger_id: UUID,
    source: NameOrRef,
    target: str,
    transforms: Mapping[str, Transform],
    *,
    recorded_by: UUID,
) -> CopyReport:
    """Copy a stream to a new one and mark the old one superseded, which ends it.

    What is appended to the old stream meanwhile is copied too. Erased parts are left out. Raises ``CopyRefusedError``
    where something is hidden that may come back, where the old stream's owner was erased, where the new stream is not
    this copy's alone or the old one has another successor, and where a transform fails: events before that one are
    copied by then, and the same job goes on from there. Raises ``NotFoundError`` and ``InvalidError``, too.
    """
    _check_target(target)
    faults = [
        fault for name, transform in transforms.items() for fault in _transform_faults(transform, f"/transforms/{name}")
    ]
    if faults:
        raise InvalidError("the transforms are not valid; nothing was copied", faults)
    ref, _ = find_stream(deps, ledger_id, source)
    return _Copy(deps, ledger_id, ref, target, transforms, recorded_by).run()


def _check_target(target: str) -> None:
    message = name_fault(target)
    split = split_stream(target) if message is None else None
    if message is None and split is None:
        message = "must have the form category-id, the category of ASCII letters, digits, '_' or '.'"
    if split is not None and is_reserved_category(split[0]):
        message = "this category is reserved for the ledger's own events"
    if message is not None:
        raise InvalidError("the name of the new stream is not valid; nothing was copied", [Fault("/target", message)])


@dataclass(slots=True)
class _Copy:
    """One run of a copy."""

    deps: Dependencies
    ledger_id: UUID
    source_ref: bytes
    target: str
    transforms: Mapping[str, Transform]
    recorded_by: UUID
    copied: int = 0
    parts_left_out: int = 0
    last_version: int = 0
    target_ref: bytes = field(default=b"")

    def run(self) -> CopyReport:
        self._check_source()
        for _ in range(ROUNDS):
            superseded = self._copy_on()
            if superseded is None:
                superseded = self._supersede()
            if superseded is not None:
                return CopyReport(
                    self.target_ref, self.last_version, self.copied, self.parts_left_out, superseded.position
                )
        raise BusyError("others keep appending to the stream; ask for the copy again, and it goes on from here")

    def _check_source(self) -> None:
        """Nothing is written for a stream of the ledger's own, or one that has another successor."""
        newest = EventFilter(0, 2**62, stream_ref=self.source_ref, order="desc")
        for last in self.deps.store.select_events(self.ledger_id, newest, None, 1):
            if is_reserved_category(last.envelope.category):
                raise InvalidError(
                    "a stream of the ledger's own events is not copied", [Fault("/stream", "is reserved")]
                )
            if _is_end(last):
                self._check_end(last)

    def _check_end(self, end: RecordedEvent) -> None:
        if end.envelope.event_id != self._ids([0])[0]:
            raise _refusal("the stream has another successor already")

    def _copy_on(self) -> RecordedEvent | None:
        """Copy what is behind the last event that was seen; gives the event that marks the source superseded, if it is
        there."""
        query = EventQuery(stream=NameOrRef(None, self.source_ref), after_version=self.last_version)
        for page in export_events(self.deps, self.ledger_id, query):
            end = next((event.recorded for event in page if _is_end(event.recorded)), None)
            if end is not None:
                self._check_end(end)
            self._copy_page([event for event in page if not _is_end(event.recorded)])
            if end is not None:
                return end
        return None

    def _ids(self, versions: Sequence[int]) -> Sequence[UUID]:
        """The ids of the copies of these versions; 0: of ``StreamSuperseded``."""
        label = f"copy-stream:{self.source_ref.hex()}:{self.target}"
        return self.deps.vault.derive_ids(self.ledger_id, label, versions)

    def _copy_page(self, events: Sequence[OpenedEvent]) -> None:
        ids = self._ids([event.recorded.stream_version for event in events])
        known = self.deps.store.find_events(self.ledger_id, ids)
        for event, copy_id in zip(events, ids, strict=True):
            # I4: what is there was copied by an earlier run, and stays as it is, whatever was erased since.
            if copy_id in known:
                self.target_ref = known[copy_id].envelope.stream_ref
                self.last_version = event.recorded.stream_version
        copies: list[tuple[OpenedEvent, NewEvent]] = []
        refusal: CopyRefusedError | None = None
        for event, copy_id in zip(events, ids, strict=True):
            if copy_id in known:
                continue
            try:
                copies.append((event, self._copy_of(event, copy_id)))
            except CopyRefusedError as error:
                refusal = error
                break
        if copies:
            self._append(copies)
        if refusal is not None:
            raise refusal

    def _append(self, copies: Sequence[tuple[OpenedEvent, NewEvent]]) -> None:
        events = [event for event, _ in copies]
        lack_data = {
            index for index, event in enumerate(events) if event.subject is not None and not event.subject.readable
        }
        allowed = [frozenset(part.key_id for part in event.recorded.parts) for event in events]
        try:
            result = append_events(
                self.deps,
                self.ledger_id,
                [copy for _, copy in copies],
                self.recorded_by,
                admit=partial(admit_events, without_data=lack_data),
                inspect=partial(_check_keys, allowed),
            )
        except VersionConflictError:
            raise _refusal("the new stream has events that are not of this copy") from None
        except StreamClosedError:
            raise _refusal("an event would end the new stream, and others come after it") from None
        except SubjectErasedError:
            raise _refusal(_OWNER_ERASED) from None
        except InvalidError as error:
            raise CopyRefusedError(
                "a copy would not be what the catalogue says of its type; give it a transform",
                [_at(events[fault.index], fault) for fault in error.faults],
            ) from None
        except TooLargeError as error:
            raise CopyRefusedError(
                "a copy would be larger than an event can be; give it another transform",
                [_at(events[fault.index], fault) for fault in error.faults],
            ) from None
        except (IdConflictError, PartlyRecordedError):
            raise BusyError("another run of this copy is under way; ask again when it is done") from None
        self.target_ref = result.events[0].stream_ref
        self.last_version = events[-1].recorded.stream_version
        self.copied += len(copies)
        self.parts_left_out += sum(len(event.redactions) for event in events)

    def _copy_of(self, event: OpenedEvent, copy_id: UUID) -> NewEvent:
        _check_readable(event)
        envelope = event.recorded.envelope
        data, nonpersonal, event_type, version = self._changed(event)
        # From the first event on the new stream has the owner that the old one has.
        subject = _part(event.subject, data) or (
            self._owner(event.subject) if event.recorded.stream_version == 1 else None
        )
        return NewEvent(
            pointer="",
            event_id=copy_id,
            stream=self.target,
            stream_ref=None,
            expected_version=event.recorded.stream_version - 1,
            event_type=event_type,
            schema_version=version,
            subject=subject,
            actor=_part(event.actor, event.actor.data if event.actor is not None else None),
            further=tuple(part for one in event.further if (part := _part(one, one.data)) is not None),
            nonpersonal=nonpersonal,
            occurred_at=envelope.occurred_at if envelope.occurred_at is not None else event.recorded.recorded_at,
            correlation_id=envelope.correlation_id,
            correlation_given=True,
            causation_id=envelope.event_id,
            # Whoever is erased between our reading and our writing is left out like those before.
            omit_erased=True,
        )

    def _owner(self, subject: OpenedPart | None) -> NewPart | None:
        """The owner of a stream whose first event's data is erased, for that purpose alone: by name, with no data."""
        if subject is None or subject.subject_ref is None:
            return None
        name = name_of_subject(self.deps, self.ledger_id, subject.subject_ref)
        if name is None:
            raise _refusal("the owner of the stream cannot be told any more")
        return NewPart(name, None, "", None)

    def _changed(self, event: OpenedEvent) -> tuple[JsonObject | None, JsonObject | None, str, int]:
        """Data, nonpersonal, type and version of the copy."""
        envelope = event.recorded.envelope
        data = event.subject.data if event.subject is not None else None
        transform = self.transforms.get(envelope.event_type)
        if transform is None:
            return data, event.nonpersonal, envelope.event_type, event.shown_version
        if event.schema_status in ("unknown-version", "failed"):
            raise _refusal(f"the event at position {event.recorded.position} is not in the shape that it is to be in")
        try:
            data, nonpersonal = apply_steps(transform.steps, data, event.nonpersonal, Budget.of(event.recorded))
            data, nonpersonal = _applied(transform.data, data), _applied(transform.nonpersonal, nonpersonal)
        except Exception as error:  # noqa: BLE001 - the functions are somebody's, and may raise anything
            # I5: the class and nothing more: a message of somebody's function could hold somebody's data.
            what = f"a transform failed on the event at position {event.recorded.position} ({type(error).__name__})"
            raise _refusal(what) from None
        version = transform.schema_version or (1 if transform.event_type is not None else event.shown_version)
        return data, nonpersonal, transform.event_type or envelope.event_type, version

    def _supersede(self) -> RecordedEvent | None:
        """End the source; None when somebody has appended to it meanwhile."""
        event = NewEvent(
            pointer="",
            event_id=self._ids([0])[0],
            stream=None,
            stream_ref=self.source_ref,
            expected_version=self.last_version,
            event_type=STREAM_SUPERSEDED,
            schema_version=1,
            subject=None,
            actor=None,
            further=(),
            nonpersonal={"by": format_ref("str", self.target_ref)},
            occurred_at=None,
            correlation_id=None,
            correlation_given=False,
            causation_id=None,
            omit_erased=False,
            closes_stream=True,
        )
        try:
            place = append_events(self.deps, self.ledger_id, [event], self.recorded_by).events[0]
        except VersionConflictError:
            return None
        except SubjectErasedError:
            raise _refusal(_OWNER_ERASED) from None
        return self.deps.store.find_events(self.ledger_id, [place.event_id])[place.event_id]


def _is_end(event: RecordedEvent) -> bool:
    return event.envelope.event_type == STREAM_SUPERSEDED


def _applied(change: Change | None, before: JsonObject | None) -> JsonObject | None:
    if change is None or before is None:
        return before
    return checked_object(change(checked_object(before)))


def _part(part: OpenedPart | None, data: JsonObject | None) -> NewPart | None:
    """The same part, for the same person and purpose; None for one that is not there, or erased."""
    if part is None or not part.readable:
        return None
    return NewPart(part.subject, None, part.purpose or "", data)


def _check_readable(event: OpenedEvent) -> None:
    for redaction in event.redactions:
        if redaction.reason != "erased":
            what = f"the event at position {event.recorded.position} has a part that is {redaction.reason}"
            raise _refusal(f"{what}: copied now, it would be lost")
    if event.stream is None:
        # What is left of it could only be copied into a stream of nobody's, whose name would outlive the erasure.
        raise _refusal(_OWNER_ERASED)


def _check_keys(allowed: Sequence[frozenset[bytes]], sealed: Sequence[SealedEvent]) -> None:
    """A copy has parts under keys that its event has parts under, and no others."""
    for keys, copy in zip(allowed, sealed, strict=True):
        if not used_keys([copy]) <= keys:
            raise _refusal("a person's data would get under another key than the one that it is under")


def _at(event: OpenedEvent, fault: Fault) -> Fault:
    return Fault("/stream", f"{fault.pointer} {fault.message}", 0, {"position": event.recorded.position})


def _refusal(detail: str) -> CopyRefusedError:
    return CopyRefusedError(detail, [Fault("/stream", detail)])
