"""The restore guard's half that stands in the vault: is this vault as new as the journal, and as the ledgers, say?

Vault, ledgers and journal each remember how far they have seen the others to be (``mark_store.py``; a ledger in its
head; the journal in its lines). Whichever of them comes back from an older copy is then behind what another remembers.
What the vault and the journal can tell is decided here; what a ledger can tell, where both halves meet:
``ledger/services/reconciling/``.

A line of the journal is written only when what it says is already true of the vault. So lines behind the vault's mark
of the journal are a crash's, or another process's of this very moment, and are true; or the vault is older than they
are, and then what they say is done again before anything is served: keys shredded, people restricted, KEKs destroyed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, Engine

from keyvault import database, epoch_store, erasing, erasure_store, linking, mark_store, store
from keyvault.erasing import Lost
from keyvault.errors import AnotherVaultError, BusyError, DamagedKeyError, KeysLiveError, NotErasedError
from keyvault.journal import Journal, JournalEntry, JournalMark, readable_lines, verify_chain
from keyvault.keyring import SERVICE, Keyring
from keyvault.restoring import Restored, all_that_is_known, read_lines, settle_epochs, settle_restrictions
from keyvault.scribe import write_line
from keyvault.values import ErasureEntry, KnownLedger

CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class VaultMarks:
    """How far the vault has seen the journal and each ledger to be."""

    journal: JournalMark
    ledgers: Mapping[UUID, KnownLedger]


class RestoreGuard:
    """Notices what was restored old, and does again what it has undone. Safe to use from several threads and
    processes."""

    def __init__(
        self,
        engine: Engine,
        keyring: Keyring,
        journal: Journal,
        clock: Callable[[], int],
        journal_key: bytes | None,
    ) -> None:
        self._engine = engine
        self._keyring = keyring
        self._journal = journal
        self._clock = clock
        self._pinned = journal_key
        # What was found true of the vault: the journal as it was, behind the mark that the vault had.
        self._looked_at: object = None

    # Marks

    def marks(self) -> VaultMarks:
        """How far the vault has seen the others to be."""
        return database.read(
            self._engine,
            lambda connection: VaultMarks(mark_store.journal_mark(connection), mark_store.known_ledgers(connection)),
        )

    def note_ledgers(self, seen: Mapping[UUID, tuple[int, bytes]]) -> None:
        """Ledgers have so many events, and the last of each has this leaf hash. Nothing is ever noted backwards."""
        if seen:
            with database.writing(self._engine) as connection:
                for ledger_id in sorted(seen):
                    mark_store.note_ledger(connection, ledger_id, *seen[ledger_id])

    def write_checkpoint(self, ledger_ids: Collection[UUID]) -> None:
        """Have the journal remember how far the vault and these ledgers are."""
        known = self.marks().ledgers
        ledgers = {
            str(one): [known[one].mints, known[one].size, (known[one].leaf_hash or b"").hex()]
            for one in sorted(ledger_ids)
            if one in known
        }
        if ledgers:
            fields = {"ledgers": ledgers}
            line = write_line(self._engine, self._keyring, self._journal, CHECKPOINT, fields, self._clock())
            with database.writing(self._engine) as connection:
                mark_store.note_journal(connection, line)

    # Looking

    def require_pinned_key(self) -> None:
        """Raise :class:`AnotherVaultError` when the vault signs with another key than the one that is pinned."""
        if self._pinned is None:
            return
        rows = database.read(self._engine, lambda connection: store.secrets_of(connection, SERVICE))
        if self._keyring.open_signing_key(rows).public_key().public_bytes_raw() != self._pinned:
            raise AnotherVaultError(
                "the key vault signs the journal with another key than the pinned one: it is not the vault that "
                "AUDIT_LEDGER_JOURNAL_KEY, or the file journal-key.pub in the home folder, belongs to. Put that one "
                "back. Only if it is lost for good, take the pinned key away, and what is sealed with it"
            )

    def verify_journal(self) -> None:
        """Raise :class:`JournalError` unless the whole journal is what it was when the vault last saw it."""
        mark = database.read(self._engine, mark_store.journal_mark)
        if mark.n:
            verify_chain(self._journal.path, mark)

    def restored(self) -> Restored:
        """What the journal says and is not true of the vault, because the vault is older. Empty if it is not.

        Raises :class:`JournalError` for a journal that is missing, older than the vault has seen it, or altered.
        """
        mark = database.read(self._engine, mark_store.journal_mark)
        signature = (self._journal.signature(), mark)
        if signature == self._looked_at:
            return Restored()
        lines = self._behind(mark)
        found = database.read(self._engine, lambda connection: read_lines(connection, lines))
        if not found:
            self._go_on_to(lines)
            self._looked_at = signature
        return found

    def returned_keks(self, *, ask_keeper: bool) -> frozenset[int]:
        """Destroyed epochs whose KEK is there again. Without ``ask_keeper`` only KEKs in files are looked for: other
        keepers take their time. Raises :class:`~keyvault.errors.ProviderError`."""
        if self._keyring.provider.place is None and not ask_keeper:
            return frozenset()
        destroyed = {
            row.epoch for row in database.read(self._engine, epoch_store.all_epochs) if row.state == "destroyed"
        }
        return self._keyring.provider.epochs() & destroyed if destroyed else frozenset()

    def unknown_keys(self, ledger_id: UUID, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Those of these keys of which the vault has neither a row nor a fence, and that are not the ledger's own."""

        def look(connection: Connection) -> frozenset[bytes]:
            rows = {found.row.key_id for found in store.keys_in_context(connection, ledger_id, key_ids)}
            fenced = {row.key_id for row in store.fences_by_id(connection, ledger_id, key_ids)}
            own = {row.key_id for row in store.secrets_of(connection, ledger_id).values() if row.key_id is not None}
            return frozenset(key_ids) - rows - fenced - own

        return database.read(self._engine, look)

    def unknown_erasures(self, ledger_id: UUID, erasure_ids: Collection[UUID]) -> frozenset[UUID]:
        """Those of these erasures of which the vault knows nothing."""
        known = database.read(
            self._engine, lambda connection: erasure_store.erasures_by_id(connection, ledger_id, erasure_ids)
        )
        return frozenset(erasure_ids) - {entry.erasure_id for entry in known}

    def was_lifted(self, ledger_id: UUID, ref: bytes, since: int) -> bool:
        """Whether the journal's last line about this subject's restriction lifts it, and is not from before ``since``
        (µs). Goes through the whole journal."""
        fields = {"ledger_id": str(ledger_id), "subject_ref": ref.hex()}
        lines = readable_lines(self._journal.path, self._public_key())
        about = [line for line in lines if line.kind in ("restrict", "lift") and line.fields == fields]
        return bool(about) and about[-1].kind == "lift" and about[-1].at >= since

    # Doing it again

    def begin_again(self, lost: Lost) -> ErasureEntry:
        """Begin an erasure that the vault does not know any more, under its own id; it is then driven on as any other.
        Doing it again changes nothing. Raises :class:`~keyvault.errors.BusyError` while another erasure of the subject
        is open."""
        return erasing.begin_again(self._engine, lost)

    def settle(self) -> Restored:
        """Restrict and lift, forget names, and put the epochs right, as the lines behind the vault's mark say; then, if
        all of them are true of the vault, go on to the last. Gives what is not true yet."""
        mark = database.read(self._engine, mark_store.journal_mark)
        lines = self._behind(mark)
        self.settle_what(database.read(self._engine, lambda connection: read_lines(connection, lines)))
        left = database.read(self._engine, lambda connection: read_lines(connection, lines))
        if not left:
            self._go_on_to(lines)
        return left

    def settle_what(self, found: Restored) -> None:
        """The same of what was said elsewhere: set states and epochs, and forget names."""
        now = self._clock()
        with database.writing(self._engine) as connection:
            settle_restrictions(connection, found, now)
        with database.writing(self._engine) as connection:
            settle_epochs(connection, found, self._keyring.provider)
        for ledger_id, ref in found.unlinked:
            # Of somebody whose keys are still to be shredded again, the way is cut at the next look.
            with suppress(BusyError, NotErasedError, KeysLiveError, DamagedKeyError):
                linking.cut(self._engine, self._keyring, ledger_id, ref, now)

    def destroy_returned_keks(self) -> frozenset[int]:
        """Destroy again the KEKs of destroyed epochs that are back. Gives the epochs of which that was done.

        Only of those that a signed line says to be destroyed, and under which nothing is: a hand in the vault's
        database can mark an epoch as destroyed, and must not make anybody destroy what living keys are wrapped under.
        """
        returned = self.returned_keks(ask_keeper=True)
        if not returned:
            return returned
        said = self._destroyed_by_line()
        free = {one for one in returned & said if not database.read(self._engine, partial(_is_used, epoch=one))}
        for epoch in sorted(free):
            gone_at = self._keyring.provider.destroy(epoch)
            with database.writing(self._engine) as connection:
                database.lock_epochs(connection)
                # The keeper may take its time once more: what is not final yet waits for that.
                epoch_store.mark_destroyed(connection, epoch, gone_at if gone_at is not None else self._clock())
        return frozenset(free)

    def _destroyed_by_line(self) -> frozenset[int]:
        files = [*self._journal.set_aside(), self._journal.path]
        lines = [line for path in files for line in readable_lines(path, self._public_key())]
        return frozenset(line.fields["epoch"] for line in lines if line.kind == "epoch-destroyed")

    # Going on from what is there

    def adopt_streams(self, ledger_id: UUID, streams: Mapping[str, tuple[bytes, bytes | None]]) -> int:
        """Let the names of streams lead to their refs (and owners) that a ledger tells of, where they lead nowhere, so
        that none begins a second time. Gives how many; streams of owners who are not known, or were forgotten, are left
        out."""
        with database.writing(self._engine) as connection:
            return linking.adopt_streams(connection, self._keyring, ledger_id, streams)

    def accept(self, ledgers: Mapping[UUID, tuple[int, int, bytes | None]]) -> JournalMark:
        """From here on, what is there counts: the journal as it is, and the ledgers as given (mints, size, leaf hash).
        For an operator who has seen what is lost. Gives the journal's mark."""
        mark = database.read(self._engine, mark_store.journal_mark)
        lines = self._behind(mark)
        now_at = lines[-1].mark if lines else mark
        with database.writing(self._engine) as connection:
            for ledger_id in sorted(ledgers):
                mark_store.replace_ledger(connection, ledger_id, KnownLedger(*ledgers[ledger_id]))
            mark_store.replace_journal(connection, now_at)
        return now_at

    def begin_new_journal(self) -> tuple[str | None, JournalMark]:
        """Put a journal with all that the vault knows (epochs, restrictions, erasures, forgotten names) in the place of
        one that does not fit. Gives that file's new name (None: there was none), and the new journal's mark."""

        def look(connection: Connection) -> tuple[Ed25519PrivateKey, list[tuple[str, Mapping[str, Any]]]]:
            key = self._keyring.open_signing_key(store.secrets_of(connection, SERVICE))
            return key, list(all_that_is_known(connection))

        key, lines = database.read(self._engine, look)
        aside, mark = self._journal.begin_anew(lines, at=self._clock(), key=key)
        with database.writing(self._engine) as connection:
            mark_store.replace_journal(connection, mark)
        return None if aside is None else aside.name, mark

    def said_before(self, *, not_fitting: bool) -> Restored:
        """What journals say that were set aside, and is not true of the vault; with ``not_fitting`` what the journal
        says that is about to be, as well: each line that the service has signed counts, whatever file it stands in.

        Of a journal that was set aside before, only what can never be undone: who is restricted has changed since.
        """
        key = self._public_key()
        earlier = [line for path in self._journal.set_aside() for line in readable_lines(path, key)]
        for_good = [line for line in earlier if line.kind in ("shred", "unlink", "epoch-destroyed")]
        last = readable_lines(self._journal.path, key) if not_fitting else []
        return database.read(self._engine, lambda connection: read_lines(connection, [*for_good, *last]))

    def _go_on_to(self, lines: Sequence[JournalEntry]) -> None:
        if lines:
            with database.writing(self._engine) as connection:
                mark_store.advance_journal(connection, lines[-1].mark)

    def _behind(self, mark: JournalMark) -> tuple[JournalEntry, ...]:
        return self._journal.behind(mark, self._public_key())

    def _public_key(self) -> Ed25519PublicKey:
        if self._pinned is not None:
            return Ed25519PublicKey.from_public_bytes(self._pinned)
        rows = database.read(self._engine, lambda connection: store.secrets_of(connection, SERVICE))
        return self._keyring.open_signing_key(rows).public_key()


def _is_used(connection: Connection, epoch: int) -> bool:
    """Whether more is wrapped under an epoch than what was given up as damaged."""
    database.take_long(connection)
    row = next((one for one in epoch_store.all_epochs(connection) if one.epoch == epoch), None)
    return row is None or epoch_store.count_under(connection, epoch) > (row.damaged or 0)
