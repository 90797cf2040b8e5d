"""Names of erased people begin anew, because a new relationship has begun.

:func:`reinstate` is one transaction: a new subject, and the way from the name to the old one is gone. The old subject
stays as it is, with its fences and erasures, and nothing leads from the new one to it: not a row here, not the line in
the journal, not what the ledger records.

What is still to be said of it, in the ledger and in the journal, stands in a row until it is said (:func:`finish`): a
crash in between loses nothing, whoever asks again, or the worker, says it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, erasure_store, mark_store, name_store, reinstatement_store, store
from keyvault.envelope import REF_SIZE
from keyvault.errors import BusyError, NotErasedError, UnknownSubjectError
from keyvault.journal import Journal
from keyvault.keyring import Keyring
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
            found = _attempt(connection, keyring, name, request)
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
) -> Reinstatement | None:
    """None: while we waited for the subject, somebody else has let the name begin anew."""
    ledger_id = request.ledger_id
    digest = keyring.open_ledger(store.secrets_of(connection, ledger_id)).subject_hash(name)
    old_ref = name_store.refs_by_name(connection, ledger_id, [digest]).get(digest)
    row = None if old_ref is None else name_store.lock_subject(connection, ledger_id, old_ref)
    if old_ref is None or row is None:
        raise UnknownSubjectError("the vault knows no subject of this name")
    if name_store.refs_by_name(connection, ledger_id, [digest]).get(digest) != old_ref:
        return None
    # I8: the row is held, so no erasure begins or ends meanwhile.
    if row.state == "erasing" or erasure_store.open_erasures_of(connection, ledger_id, [old_ref]):
        raise BusyError("an erasure of the subject is under way; try again in a moment")
    if row.state != "erased":
        begun = reinstatement_store.find(connection, ledger_id, old_ref)
        if begun is None:
            raise NotErasedError("the subject is not erased: its name is in use, and there is nothing to reinstate")
        return begun
    made = Reinstatement(ledger_id, os.urandom(REF_SIZE), request.reason, request.reinstated_at, request.reinstated_by)
    name_store.insert_subjects(connection, ledger_id, [made.subject_ref], made.reinstated_at)
    name_store.move_names(connection, ledger_id, old_ref, made.subject_ref)
    # The old streams can take no event any more. Their names begin anew too; their refs stay with the old subject.
    name_store.delete_streams_of(connection, ledger_id, old_ref)
    reinstatement_store.insert_one(connection, made)
    mark_store.count_mint(connection, ledger_id)
    return made
