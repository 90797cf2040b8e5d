"""Create and find ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.domain.access import LedgerInfo
from ledger.domain.events import Head
from ledger.domain.names import ledger_name_fault
from ledger.errors import AlreadyExistsError, Fault, InvalidError, NotFoundError
from ledger.services.dependencies import Dependencies


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """A ledger with its head and the 32-byte Ed25519 public key of its statements."""

    ledger: LedgerInfo
    head: Head
    verifying_key: bytes


def create_ledger(deps: Dependencies, name: str) -> LedgerInfo:
    """Make an empty ledger with secrets of its own. Raises ``InvalidError`` or ``AlreadyExistsError``."""
    message = ledger_name_fault(name)
    if message is not None:
        raise InvalidError("the name of the ledger is not valid", [Fault("/name", message)])
    if deps.store.ledger(name) is not None:
        raise AlreadyExistsError("there is a ledger of this name", [Fault("/name", "is taken")])
    ledger = LedgerInfo(deps.new_id(), name, deps.clock())
    # Secrets first: a crash here leaves secrets without a ledger, never a ledger without secrets.
    deps.vault.create_ledger(ledger.ledger_id)
    deps.store.add_ledger(ledger)
    return ledger


def list_ledgers(deps: Dependencies) -> Sequence[LedgerInfo]:
    """All ledgers in order of their names."""
    return deps.store.ledgers()


def find_ledger(deps: Dependencies, name: str) -> LedgerInfo:
    """The ledger of this name. Raises ``NotFoundError``."""
    ledger = deps.store.ledger(name) if ledger_name_fault(name) is None else None
    if ledger is None:
        raise unknown_ledger()
    return ledger


def unknown_ledger() -> NotFoundError:
    """What is said of a name that no ledger has."""
    return NotFoundError("there is no ledger of this name")


def describe_ledger(deps: Dependencies, ledger: LedgerInfo) -> LedgerSummary:
    """The ledger with its head as it is now."""
    return LedgerSummary(ledger, deps.store.head(ledger.ledger_id), deps.vault.verifying_key(ledger.ledger_id))
