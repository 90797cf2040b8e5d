"""Names of erased people begin anew, because a new relationship has begun.

:func:`reinstate` is one transaction: a new subject with a link key of its own, and the way from the name to the old
one is cut, as by :func:`keyvault.linking.unlink`, if that has not been done. The old subject stays as it is, with its
fences and erasures, and nothing leads from the new one to it: not a row here, not the line in the journal, not what the
ledger records; nor a time: ``unlinked_at`` is for the next call of ``unlink`` to set, else both would have the same.

What is still to be said of it, in the ledger and in the journal, stands in a row until it is said (:func:`finish`): a
crash in between loses nothing, whoever asks again, or the worker, says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, erasure_store, link_store, linking, mark_store, name_store, reinstatement_store, store
from keyvault.epochs import held_epoch
from keyvault.errors import BusyError, NotErasedError, UnknownSubjectError
from keyvault.journal import Journal
from keyvault.keyring import Keyring
from keyvault.name_store import SubjectRow
from keyvault.scribe import write_line
from keyvault.values import Reinstatement

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class ReinstatementRequest:
    """What was asked for, beside the name."""

    ledger_id: UUID
    reason: str | None
    reinstated_at: int
    reinstated_by: UUID


def reinstate(engine: Engine, keyring: Keyring, name: str, request: ReinstatementRequest) -> Reinstatement:
    """See ``KeyVault.reinstate``."""
    for _ in range(_ATTEMPTS):
        with database.writing(engine) as connection:
            found, left = _attempt(connection, keyring, name, request)
        if left is not None:
            with database.writing(engine) as connection:
                # The other rows of the old subject, in a transaction of their own: PostgreSQL shows in each row which
                # one has written or held it last, and the name must not have that in common with them.
                link_store.cut_link(connection, request.ledger_id, left, None)
                name_store.rewrite_subject(connection, request.ledger_id, left)
        if found is not None:
            # The old ways from names to refs must not linger in free pages.
            database.scrub(engine)
            return found
    raise BusyError("others keep reinstating the same name; ask again")


def open_ones(engine: Engine) -> Sequence[Reinstatement]:
    """Reinstatements in any ledger of which something is still to be said, oldest first."""
    return database.read(engine, reinstatement_store.all_open)


def finish(engine: Engine, keyring: Keyring, journal: Journal, ledger_id: UUID, ref: bytes, now: int) -> None:
    """See ``KeyVault.finish_reinstatement``. ``now``: the time of the journal line."""
    if database.read(engine, lambda connection: reinstatement_store.find(connection, ledger_id, ref)) is None:
        return
    fields = {"ledger_id": str(ledger_id), "subject_ref": ref.hex()}
    line = write_line(engine, keyring, journal, "reinstate", fields, now)
    with database.writing(engine) as connection:
        reinstatement_store.delete_one(connection, ledger_id, ref)
        mark_store.note_journal(connection, line)


def _attempt(
    connection: Connection, keyring: Keyring, name: str, request: ReinstatementRequest
) -> tuple[Reinstatement | None, bytes | None]:
    """The reinstatement, and the ref of the subject that the name has left. None: while we waited for the subject,
    somebody else has let the name begin anew."""
    ledger_id = request.ledger_id
    epoch = held_epoch(connection)
    digest = keyring.open_ledger(store.secrets_of(connection, ledger_id)).subject_hash(name)
    old = name_store.names_by_hash(connection, ledger_id, [digest]).get(digest)
    if old is None or old.link_id is None:
        raise UnknownSubjectError("the vault knows no subject of this name")
    named = linking.subject_of(keyring, ledger_id, old)
    row = None
    if named is None:
        name_store.lock_name(connection, ledger_id, digest)
    else:
        row = name_store.lock_subject(connection, ledger_id, named.ref)
    now = name_store.names_by_hash(connection, ledger_id, [digest])[digest]
    if (now.link_id, now.sealed) != (old.link_id, old.sealed):
        return None, None
    if named is not None:
        begun = _not_yet(connection, ledger_id, named.ref, row)
        if begun is not None:
            return begun, None
    new = linking.new_subject(keyring, ledger_id, epoch)
    made = Reinstatement(ledger_id, new.ref, request.reason, request.reinstated_at, request.reinstated_by)
    name_store.insert_subjects(connection, ledger_id, [new.ref], made.reinstated_at)
    link_store.insert_links(connection, new.rows)
    for one in name_store.hashes_of_link(connection, ledger_id, old.link_id):
        name_store.move_name(connection, ledger_id, old.link_id, new.name_row(ledger_id, one))
    # The old streams can take no event any more. Their names begin anew too; their refs stay with the old subject.
    name_store.delete_streams_of(connection, ledger_id, old.link_id)
    link_store.delete_link_key(connection, ledger_id, old.link_id)
    if named is not None:
        keyring.forget_link(old.link_id, named.ref)
    reinstatement_store.insert_one(connection, made)
    mark_store.count_mint(connection, ledger_id)
    return made, None if named is None else named.ref


def _not_yet(connection: Connection, ledger_id: UUID, ref: bytes, row: SubjectRow | None) -> Reinstatement | None:
    """The reinstatement that this subject is, as long as it is open. Raises where the subject, whose row is held, has
    not been erased as a whole (I8: no erasure begins or ends meanwhile)."""
    if row is None:
        raise UnknownSubjectError("the vault knows no subject of this name")
    if row.state == "erasing" or erasure_store.open_erasures_of(connection, ledger_id, [ref]):
        raise BusyError("an erasure of the subject is under way; try again in a moment")
    if row.state == "erased":
        return None
    begun = reinstatement_store.find(connection, ledger_id, ref)
    if begun is None:
        raise NotErasedError("the subject is not erased: its name is in use, and there is nothing to reinstate")
    return begun
