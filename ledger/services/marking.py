"""What a ledger notes of the key vault when it writes, and the refusal to write beside a vault or a ledger that was
restored from an older copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from uuid import UUID

from ledger.domain.events import Head
from ledger.domain.marks import VaultMark
from ledger.errors import RestoredError
from ledger.ports import Mark
from ledger.services.dependencies import Dependencies

_RECONCILE: Final = "look at /readyz, and at `audit-ledger vault reconcile`; nothing was recorded"


def checked_head(deps: Dependencies, ledger_id: UUID, head: Head, seen: Mark) -> Head:
    """The head with what is to be remembered of the vault. ``seen``: how far that was before the head was locked.

    Raises ``RestoredError`` when the ledger remembers more of the vault than there is, or the vault more of the ledger.
    """
    if seen.size > head.size:
        raise RestoredError(f"the ledger was restored from an older copy; {_RECONCILE}")
    mark = VaultMark(seen.mints, seen.journal)
    if mark.reached(head.vault) != mark:
        # Others have gone on since; or the vault has gone back.
        now = deps.vault.mark(ledger_id)
        mark = VaultMark(now.mints, now.journal)
    if mark.reached(head.vault) != mark:
        raise RestoredError(f"the key vault was restored from an older copy; {_RECONCILE}")
    return replace(head, vault=mark)


def require_fitting_vault(deps: Dependencies, ledger_id: UUID) -> None:
    """Raise ``RestoredError`` before anything is made in a vault that is older than the ledger remembers: what is made
    there raises its count, and would hide that."""
    remembered = deps.store.head(ledger_id).vault  # before the vault: others may make something in between
    now = deps.vault.mark(ledger_id)
    mark = VaultMark(now.mints, now.journal)
    if mark.reached(remembered) != mark:
        raise RestoredError(f"the key vault was restored from an older copy; {_RECONCILE}")


def noting_head(deps: Dependencies, ledger_id: UUID, head: Head) -> Head:
    """The same for the ledger's own events, which are recorded whatever was restored: some of them mend it."""
    now = deps.vault.mark(ledger_id)
    return replace(head, vault=head.vault.reached(VaultMark(now.mints, now.journal)))
