"""The restore guard of a process: nothing is served beside a vault, a ledger, a journal or KEKs that came back from an
older copy, before what was undone by that is done again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from api.logs import LOGGER
from api.readiness import NotReadyError
from api.wiring import OK, Service
from keyvault import database as vault_database
from keyvault.errors import (
    AnotherVaultError,
    BusyError,
    DamagedKeyError,
    JournalError,
    KeyVaultError,
    ProviderError,
)
from ledger.domain.marks import Finding
from ledger.errors import LedgerError
from ledger.services.reconciling.going_on import NOTHING_LOST, concerned, record_reconciliation
from ledger.services.reconciling.looking import look
from ledger.services.reconciling.mending import Mended, mend, note_sizes

NAME: Final = "restore-guard"
"""What it is called among the dependencies."""

LOOK_SECONDS: Final = 0.5
"""For so long a request takes the last look for good."""

NOTE_SECONDS: Final = 1.0
"""How often the vault notes how far the ledgers are."""

CHECKPOINT_SECONDS: Final = 900.0
"""How often the journal notes how far those are that have grown."""

DOUBTS: Final = (0.1, 0.3, 0.6)
"""With others at work something may not fit for a moment: so long is waited before each further look."""

_JOURNAL: Final = "the journal is missing, or it is not the one that was there: the log says what to do"
_WHAT_TO_DO: Final = "Run `audit-ledger vault reconcile`, which says what is lost and asks before it goes on"

_log = logging.getLogger(LOGGER)


class Guard:
    """Looks, mends, and says whether the process may serve. Safe to use from several threads."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looking = threading.Lock()
        self._looked_at: float | None = None
        self._believed = threading.Event()
        self._believed.set()
        self._findings: tuple[Finding, ...] = ()
        self._grown: set[UUID] = set()
        self._noted_sizes: Mapping[UUID, int] = {}
        self._unnoted = False

    @property
    def state(self) -> str:
        """``ok``, or what was found and what to do. Holds nothing of anybody's data."""
        return OK if not self._findings else f"{'; '.join(one.what for one in self._findings)}. {_WHAT_TO_DO}"

    @property
    def public_state(self) -> str:
        """The same for everybody: without the path of the journal, which is in the log."""
        if not self._findings:
            return OK
        found = (_JOURNAL if one.trouble == "journal" else one.what for one in self._findings)
        return f"{'; '.join(found)}. {_WHAT_TO_DO}"

    def require(self) -> None:
        """Raise :class:`NotReadyError` while something does not fit. Looks again when the last look is old."""
        if self._looked_at is None:
            with self._looking:
                if self._looked_at is None:
                    self._refresh()
        elif not self._believed.is_set():
            self._believed.wait()  # nothing is served while somebody looks whether to believe what was found
        elif time.monotonic() - self._looked_at > LOOK_SECONDS and self._looking.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._looking.release()
        if self._findings:
            raise NotReadyError({NAME: self.public_state})

    @property
    def findings(self) -> Sequence[Finding]:
        """What did not fit at the last look, and could not be mended."""
        return self._findings

    def start(self) -> Sequence[Finding]:
        """The first look, at everything, and the mending. Gives what is left. Raises errors of dependencies."""
        with self._looking:
            self._findings = self._all_of_it()
            self._looked_at = time.monotonic()
        return self._findings

    @contextmanager
    def running(self) -> Iterator[None]:
        """From here to the end of the block vault and journal note how far the ledgers are."""
        stop = threading.Event()
        thread = threading.Thread(target=self._note_until, args=(stop,), name="audit-ledger-guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.finish()

    def watch(self) -> None:
        """The same for the rest of the process's life; whoever ends it calls ``finish`` in another process."""
        thread = threading.Thread(target=self._note_until, args=(threading.Event(),), daemon=True)
        thread.start()

    def finish(self) -> None:
        """Note how far everything is, as far as it fits. What cannot be noted now was noted a moment ago."""
        with suppress(KeyVaultError, LedgerError):
            if not self._findings:
                self._note()
                self._write_checkpoint()

    def _note_until(self, stop: threading.Event) -> None:
        due = time.monotonic() + CHECKPOINT_SECONDS
        while not stop.wait(NOTE_SECONDS):
            with suppress(KeyVaultError, LedgerError, NotReadyError):  # whoever asks for something sees why
                self._note_if_grown()
                if time.monotonic() > due:
                    self._write_checkpoint()
                    due = time.monotonic() + CHECKPOINT_SECONDS

    def _note_if_grown(self) -> None:
        """One statement, as long as nothing is recorded."""
        sizes = self._service.store.sizes()
        if sizes != self._noted_sizes or self._unnoted:
            self.require()
            self._note()
            self._noted_sizes = sizes

    def _note(self) -> None:
        """Where the vault does not take a size that it has not seen, the next look is a thorough one."""
        noted = note_sizes(self._service.deps)
        self._grown |= noted.grown
        self._unnoted = noted.doubtful

    def _write_checkpoint(self) -> None:
        grown, self._grown = self._grown, set()
        self._service.vault.guard.write_checkpoint(grown)

    def _refresh(self) -> None:
        """Look, and if something does not fit, look again, mend, and look once more. Held by ``_looking``."""
        try:
            before = self._findings
            # A journal that was altered far from its end does not show at its end: all of it is read again.
            if self._looked_at is None or any(one.trouble == "journal" for one in before):
                self._findings = self._all_of_it()
            else:
                found = self._look(thorough=bool(before) or self._unnoted)
                self._findings = self._mended(found) if found else ()
            if before and not self._findings:
                _log.warning("restore-reconciled")
        except (KeyVaultError, LedgerError):
            # A dependency that is down is seen by whoever needs it; what was found before stays found.
            if self._looked_at is None:
                raise
        self._looked_at = time.monotonic()

    def _all_of_it(self) -> tuple[Finding, ...]:
        guard = self._service.vault.guard
        try:
            guard.verify_journal()
            with suppress(ProviderError, DamagedKeyError):  # its KEK may have been destroyed since: then that is found
                guard.require_pinned_key()
        except (JournalError, AnotherVaultError) as error:
            return self._told((Finding("journal", None, str(error)),))
        found = self._look(thorough=True)
        return self._mended(found) if found else ()

    def _look(self, *, thorough: bool) -> tuple[Finding, ...]:
        try:
            return tuple(look(self._service.deps, thorough=thorough))
        except JournalError as error:
            return (Finding("journal", None, str(error)),)

    def _mended(self, found: tuple[Finding, ...]) -> tuple[Finding, ...]:
        """What is left of it when everything has been done again that can be."""
        self._believed.clear()
        try:
            for seconds in () if self._findings else DOUBTS:
                time.sleep(seconds)
                found = self._look(thorough=True)
                if not found:
                    return ()
            self._findings = self._told(found)  # before all else: nothing is served while it is mended
        finally:
            self._believed.set()
        if any(finding.trouble == "journal" for finding in found):
            return found
        try:
            with vault_database.only_one(self._service.vault.engine, "reconciling"):
                mended = mend(self._service.deps)
                left = self._look(thorough=True)
                self._say(mended)
                if mended or not left:
                    self._record(found, mended)
        except BusyError:
            return found  # another process is at it, and this one looks again
        except (KeyVaultError, LedgerError) as error:
            _log.error("restore-not-mended", exc_info=error)
        return self._look(thorough=True)

    def _told(self, found: tuple[Finding, ...]) -> tuple[Finding, ...]:
        if {finding.trouble for finding in found} != {finding.trouble for finding in self._findings}:
            for finding in found:
                where = {"trouble": finding.trouble, "ledger_id": str(finding.ledger_id or ""), "what": finding.what}
                _log.error("restore-noticed", extra=where)
        return found

    def _say(self, mended: Mended) -> None:
        for erasure_id, error in mended.failed.items():
            _log.error("erasure-not-repeated", extra={"erasure_id": str(erasure_id)}, exc_info=error)
        for epoch in sorted(mended.epochs):
            _log.warning("kek-destroyed-again", extra={"epoch": epoch})
        if mended:
            counts = {"erased_again": len(mended.erased), "restrictions": len(mended.states)}
            _log.warning("restore-mended", extra=counts)

    def _record(self, found: Sequence[Finding], mended: Mended) -> None:
        for ledger_id in concerned(self._service.deps, found, mended):
            record_reconciliation(self._service.deps, ledger_id, found, mended, NOTHING_LOST)
