"""What a ledger remembers of the key vault, and what follows when they do not fit: one of them was restored old.

With each append a ledger notes, in its head, how far the vault was. The vault notes how far it has seen each ledger to
be. Neither number ever falls, so one that has fallen came out of an older copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class VaultMark:
    """How far the vault was when a ledger last saw it: how often it had made keys or refs for that ledger, and the
    last line that it had seen of the journal."""

    mints: int = 0
    journal: int = 0

    def reached(self, other: VaultMark) -> VaultMark:
        """The further of the two, in each."""
        return VaultMark(max(self.mints, other.mints), max(self.journal, other.journal))


NOTHING_SEEN: Final = VaultMark()
"""What a new ledger remembers."""


class KnownLedger(Protocol):
    """How often the vault has made keys or refs for a ledger, and how far it has seen that to be."""

    @property
    def mints(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def leaf_hash(self) -> bytes | None:
        """Of the event at ``size - 1``; None: the ledger had no events."""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """A ledger as it is: how many events it has, and what it remembers of the vault."""

    size: int
    vault: VaultMark


Trouble = Literal[
    "vault-behind",
    "ledger-behind",
    "ledger-changed",
    "ledger-unknown",
    "ledger-missing",
    "journal",
    "erasures-undone",
    "states-undone",
    "epochs-undone",
    "kek-returned",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something does not fit. ``what``: for a person, and without anything personal."""

    trouble: Trouble
    ledger_id: UUID | None
    what: str


def furthest(known: Mapping[UUID, KnownLedger], claims: Mapping[UUID, KnownLedger]) -> Mapping[UUID, KnownLedger]:
    """Each ledger as whoever has seen more of it knows it: the vault, or the journal."""
    more = {one: claim for one, claim in claims.items() if one not in known or known[one].size < claim.size}
    return {**known, **more}


def compare(
    before: Mapping[UUID, KnownLedger],
    ledgers: Mapping[UUID, LedgerState],
    after: Mapping[UUID, KnownLedger],
    journal: int,
) -> list[Finding]:
    """Compare counts. ``before`` and ``after``: what the vault had noted before the ledgers were looked at, and after;
    ``journal``: the last line that it had seen of the journal, after. With everybody at work only these orders tell."""
    findings = []
    for ledger_id, state in sorted(ledgers.items()):
        known = after.get(ledger_id)
        if known is None:
            what = "the key vault does not know this ledger: it was restored from a copy that is older than the ledger"
            findings.append(Finding("ledger-unknown", ledger_id, what))
            continue
        if known.mints < state.vault.mints:
            missing = state.vault.mints - known.mints
            what = f"the key vault is older than the ledger: {missing} times it has made keys or refs since"
            findings.append(Finding("vault-behind", ledger_id, what))
        elif journal < state.vault.journal:
            what = f"the key vault and the journal are older than the ledger, by {state.vault.journal - journal} lines"
            findings.append(Finding("vault-behind", ledger_id, what))
    for ledger_id, known in sorted(before.items()):
        here = ledgers.get(ledger_id)
        if here is None and known.size:
            what = f"the ledger is gone: the key vault has seen it with {known.size} events"
            findings.append(Finding("ledger-missing", ledger_id, what))
        elif here is not None and here.size < known.size:
            what = f"the ledger has {here.size} events, and the key vault has seen it with {known.size}"
            findings.append(Finding("ledger-behind", ledger_id, what))
    return findings
