"""What lines of the journal say, against what the vault has: pure reading, and doing again what an older vault lacks.

| line | true of the vault when | else |
|---|---|---|
| ``shred`` | it knows the erasure as shredded | the erasure is begun again, and driven to its end as any other |
| ``restrict``, ``lift`` | the subject is (or is to be) so, or erased | the subject's state is set |
| ``unlink`` | no name leads to the subject | the way is cut |
| ``reinstate`` | it knows the new subject | nothing can be done: the name is not in the line |
| ``epoch-created`` | it has the epoch | the epoch gets a row |
| ``epoch-destroyed`` | its destruction was ordered | marked as destroyed, if no row is under it; else it is *stale* |
| ``checkpoint`` | it has minted as often | nothing can be done: keys are missing |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from keyvault import database, epoch_store, erasing, erasure_store, linking, mark_store, name_store
from keyvault.errors import JournalError
from keyvault.journal import JournalEntry
from keyvault.providers import KeyProvider
from keyvault.values import KnownLedger, LostErasure, SubjectState

Subject = tuple[UUID, bytes]


@dataclass(frozen=True, slots=True)
class Restored:
    """What lines say that is not true of the vault.

    ``states``: subjects and the state that they have by the last line about them. ``unlinked``: to whom no name leads
    any more. ``created``, ``destroyed``: epochs, with the line's time. ``reinstated``: how many names began anew that
    the vault leads to the erased subject again. ``ledgers``: of which a checkpoint knows more than the vault does.
    """

    erasures: tuple[LostErasure, ...] = ()
    states: Mapping[Subject, SubjectState] = field(default_factory=dict)
    created: Mapping[int, int] = field(default_factory=dict)
    destroyed: Mapping[int, int] = field(default_factory=dict)
    unlinked: tuple[Subject, ...] = ()
    reinstated: int = 0
    ledgers: Mapping[UUID, KnownLedger] = field(default_factory=dict)

    def __bool__(self) -> bool:
        forgotten = self.erasures or self.states or self.unlinked or self.reinstated
        return bool(forgotten or self.created or self.destroyed or self.ledgers)


def read_lines(connection: Connection, lines: Sequence[JournalEntry]) -> Restored:
    """What of these lines is not true. Raises :class:`JournalError` for a line that no version has written."""
    try:
        return _read(connection, lines)
    except (KeyError, ValueError, TypeError, IndexError):
        raise JournalError("a line of the journal says something that this version does not understand") from None


def settle_restrictions(connection: Connection, found: Restored, now: int) -> None:
    """Set the states. Who is being erased gets the state when that is done."""
    for (ledger_id, ref), state in sorted(found.states.items()):
        row = name_store.lock_subject(connection, ledger_id, ref)
        old: SubjectState = "active" if state == "restricted" else "restricted"
        if row is not None and row.state == old:
            name_store.set_subject_state(connection, ledger_id, ref, state, now)
        elif row is not None and row.state == "erasing":
            erasure_store.change_next_state(connection, ledger_id, ref, old, state)


def settle_epochs(connection: Connection, found: Restored, provider: KeyProvider) -> None:
    """Give the epochs that came to be meanwhile their numbers again, so that none is used twice, and mark those that
    are gone. An epoch that rows of this vault are under stays as it is: that takes a rotation, or there is no way."""
    if not found.created and not found.destroyed:
        return
    database.lock_epochs(connection)
    database.take_long(connection)
    living = provider.epochs()
    newest = max(found.created, default=0)
    for epoch, at in sorted(found.created.items()):
        epoch_store.insert_epoch(connection, epoch, provider.name, at)
        # Only the newest is used again, and only with its own KEK: any other has no rows here, and will have none.
        if epoch != newest or epoch not in living:
            epoch_store.retire_unused(connection, epoch, at)
    for epoch, at in sorted(found.destroyed.items()):
        if epoch_store.count_under(connection, epoch) == 0:
            epoch_store.retire_unused(connection, epoch, at)
            epoch_store.order_destruction(connection, epoch, at)
            epoch_store.mark_destroyed(connection, epoch, at)


def all_that_is_known(connection: Connection) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The lines of a journal that begins anew: every epoch, every restriction, every erasure that was shredded,
    and everybody whose name was forgotten."""
    for row in epoch_store.all_epochs(connection):
        yield "epoch-created", {"epoch": row.epoch}
        if row.destroyed_at is not None:
            yield "epoch-destroyed", {"epoch": row.epoch}
    for ledger_id, ref in name_store.restricted_subjects(connection):
        yield "restrict", {"ledger_id": str(ledger_id), "subject_ref": ref.hex()}
    for entry in erasure_store.shredded_erasures(connection):
        yield "shred", erasing.line_of(entry)
    for ledger_id, ref in name_store.unlinked_subjects(connection):
        yield "unlink", {"ledger_id": str(ledger_id), "subject_ref": ref.hex()}


def _read(connection: Connection, lines: Sequence[JournalEntry]) -> Restored:
    erasures: dict[UUID, LostErasure] = {}
    states: dict[Subject, SubjectState] = {}
    unlinked: set[Subject] = set()
    reinstated: set[Subject] = set()
    created: dict[int, int] = {}
    destroyed: dict[int, int] = {}
    ledgers: dict[UUID, KnownLedger] = {}
    for line in lines:
        match line.kind:
            case "shred":
                erasures[UUID(line.fields["erasure_id"])] = _lost_erasure(line)
            case "restrict":
                states[_subject(line)] = "restricted"
            case "lift":
                states[_subject(line)] = "active"
            case "unlink":
                unlinked.add(_subject(line))
            case "reinstate":
                reinstated.add(_subject(line))
            case "epoch-created":
                created[int(line.fields["epoch"])] = line.at
            case "epoch-destroyed":
                destroyed[int(line.fields["epoch"])] = line.at
            case "checkpoint":
                ledgers.update(_known_ledgers(line))
            case _:
                raise ValueError(line.kind)
    epochs = {row.epoch: row for row in epoch_store.all_epochs(connection)} if created or destroyed else {}
    ordered = {epoch for epoch, row in epochs.items() if row.destroyed_at is not None}
    known = mark_store.known_ledgers(connection) if ledgers else {}
    return Restored(
        tuple(lost for lost in erasures.values() if not _is_shredded(connection, lost)),
        {subject: state for subject, state in states.items() if not _has_state(connection, subject, state)},
        {epoch: at for epoch, at in created.items() if epoch not in epochs},
        {epoch: at for epoch, at in destroyed.items() if epoch not in ordered},
        tuple(subject for subject in sorted(unlinked) if not _is_unlinked(connection, subject)),
        sum(name_store.subject(connection, *subject) is None for subject in reinstated),
        {one: claim for one, claim in ledgers.items() if not _covers(known.get(one), claim)},
    )


def _is_shredded(connection: Connection, lost: LostErasure) -> bool:
    entry = erasure_store.erasure(connection, lost.ledger_id, lost.erasure_id)
    return entry is not None and entry.state != "begun"


def _has_state(connection: Connection, subject: Subject, state: SubjectState) -> bool:
    """Of somebody whom the vault does not know there is nothing to restrict: the keys are missing, too."""
    row = name_store.subject(connection, *subject)
    return row is None or erasing.next_state(connection, subject[0], row) in (state, "erased", "erasing")


def _is_unlinked(connection: Connection, subject: Subject) -> bool:
    return name_store.subject(connection, *subject) is None or linking.is_unlinked(connection, *subject)


def _covers(known: KnownLedger | None, claim: KnownLedger) -> bool:
    return known is not None and known.mints >= claim.mints and known.size >= claim.size


def _subject(line: JournalEntry) -> Subject:
    return UUID(line.fields["ledger_id"]), bytes.fromhex(line.fields["subject_ref"])


def _lost_erasure(line: JournalEntry) -> LostErasure:
    ledger_id, ref = _subject(line)
    key_ids = [bytes.fromhex(key_id) for key_id in line.fields["key_ids"]]
    # Lines of the first version say less; what they leave out is then taken from the vault's rows.
    purposes: Sequence[str | None] = line.fields.get("purposes") or [None] * len(key_ids)
    requested_by = line.fields.get("requested_by")
    return LostErasure(
        erasure_id=UUID(line.fields["erasure_id"]),
        ledger_id=ledger_id,
        subject_ref=ref,
        keys=tuple(zip(key_ids, purposes, strict=True)),
        next_state=line.fields.get("next_state"),
        purposes=None if line.fields.get("requested") is None else tuple(line.fields["requested"]),
        request_known="requested" in line.fields,
        requested_at=line.fields.get("requested_at", line.at),
        requested_by=None if requested_by is None else UUID(requested_by),
    )


def _known_ledgers(line: JournalEntry) -> Mapping[UUID, KnownLedger]:
    return {
        UUID(one): KnownLedger(mints, size, bytes.fromhex(leaf) or None)
        for one, (mints, size, leaf) in line.fields["ledgers"].items()
    }
