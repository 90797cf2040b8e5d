"""Load what is to be decided on: the state of a stream, from its newest snapshot and the events behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from ledger.domain.events import JsonObject, OpenedEvent, Redaction, RedactionReason
from ledger.domain.fold import Fold
from ledger.errors import BusyError, CommandRefusedError, IntegrityError, SubjectErasedError
from ledger.ports import SubjectState
from ledger.services.dependencies import Dependencies
from ledger.services.timetravel.state import fold_stream


class RestrictedStateError(CommandRefusedError):
    """What would be decided on belongs to a restricted subject: it may be kept, and not be acted on."""


class UnknownShapeError(BusyError):
    """What would be decided on is not in a shape that this process knows: a newer one may."""

    def __init__(self) -> None:
        super().__init__(
            "an event has a version that this process does not know, or cannot be brought up to the newest version of "
            "its type: update the code, or mend the steps of the type"
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stream as it stands. ``stream_ref`` None: it has no event yet, so its version is 0 and its state ``{}``."""

    stream_ref: bytes | None
    owner_ref: bytes | None
    version: int
    state: JsonObject


def load(deps: Dependencies, ledger_id: UUID, stream: str, fold: Fold) -> Loaded:
    """The state of a stream now.

    Nothing is decided on a state that is not whole for the moment, since the part that is missing could be the one that
    forbids it: raises ``SubjectErasedError`` when the owner was erased, ``BusyError`` while an erasure is under way,
    ``UnknownShapeError``, ``RestrictedStateError``, and ``IntegrityError`` for what cannot be read. What is gone for
    good of somebody who is not the owner, or of one of the owner's purposes, is gone: the rest is the state.
    """
    entry = deps.vault.find_streams(ledger_id, [stream]).get(stream)
    if entry is None:
        return Loaded(None, None, 0, {})
    check = _Check(deps, ledger_id, entry.owner_ref)

    def apply(state: JsonObject, event: OpenedEvent) -> JsonObject:
        # Before the fold sees it: it need not know what to make of an event that says nothing.
        check.all_of(event.redactions)
        return fold.apply(state, event)

    position = deps.store.head(ledger_id).size - 1
    folded = fold_stream(deps, ledger_id, entry.ref, position, replace(fold, apply=apply))
    # Of what stands in a snapshot, too.
    check.all_of(hidden.redaction for hidden in folded.hidden)
    if folded.unknown_versions:
        raise UnknownShapeError
    if folded.stream_version == 0:
        # A ref that was reserved by an append that never came to be; who owns the stream is still open.
        return Loaded(None, None, 0, {})
    return Loaded(entry.ref, entry.owner_ref, folded.stream_version, folded.state)


class _Check:
    """Refuses what nothing may be decided on; asks the vault once for each subject."""

    def __init__(self, deps: Dependencies, ledger_id: UUID, owner_ref: bytes | None) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._owner_ref = owner_ref
        self._passed: set[tuple[RedactionReason, bytes | None]] = set()

    def all_of(self, redactions: Iterable[Redaction]) -> None:
        """Raise as ``load`` says."""
        for redaction in redactions:
            what = (redaction.reason, redaction.subject_ref)
            if what not in self._passed:
                self._check(redaction)
                self._passed.add(what)

    def _check(self, redaction: Redaction) -> None:
        match redaction.reason, self._state_of(redaction):
            case "unreadable", _:
                raise IntegrityError("a part that a decision rests on cannot be read; run `audit-ledger verify`")
            case "erased", "erasing" | "erased":
                raise SubjectErasedError("the owner of the stream was erased; nothing can be decided any more")
            case "erased", _:
                return
            case _, "restricted":
                raise RestrictedStateError("the subject is restricted: nothing may be decided on its data")
            case _:
                raise BusyError("the subject is being erased, or its restriction just changed; try again in a moment")

    def _state_of(self, redaction: Redaction) -> SubjectState | None:
        """Of the owner, where something is gone; else of whoever is concerned."""
        ref = self._owner_ref if redaction.reason == "erased" else redaction.subject_ref
        subject = self._deps.vault.subject(self._ledger_id, ref) if ref is not None else None
        return subject.state if subject is not None else None
