"""What follows from what vault and ledgers remember of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import pytest

from ledger.domain.marks import KnownLedger, LedgerState, VaultMark, compare, furthest

ONE = UUID("0193a5e0-7c00-7000-8000-00000000000a")


@dataclass(frozen=True)
class Known:
    """What a vault has noted of a ledger."""

    mints: int
    size: int
    leaf_hash: bytes | None = b"leaf"


def found(
    known: Known | None, state: LedgerState | None, journal: int = 5, after: Known | None = None
) -> list[tuple[str, UUID | None]]:
    """What is found of one ledger."""
    before: Mapping[UUID, KnownLedger] = {} if known is None else {ONE: known}
    later: Mapping[UUID, KnownLedger] = before if after is None else {ONE: after}
    states = {} if state is None else {ONE: state}
    return [(finding.trouble, finding.ledger_id) for finding in compare(before, states, later, journal)]


@pytest.mark.parametrize(
    ("known", "state", "expected"),
    [
        (Known(3, 10), LedgerState(10, VaultMark(3, 5)), None),
        (Known(4, 9), LedgerState(10, VaultMark(3, 4)), None),
        (Known(2, 10), LedgerState(10, VaultMark(3, 5)), "vault-behind"),
        (Known(3, 10), LedgerState(10, VaultMark(3, 6)), "vault-behind"),
        (Known(3, 11), LedgerState(10, VaultMark(3, 5)), "ledger-behind"),
        (Known(3, 11), None, "ledger-missing"),
        (Known(0, 0, None), None, None),
        (None, LedgerState(0, VaultMark()), "ledger-unknown"),
    ],
)
def test_what_has_fallen_is_old(known: Known | None, state: LedgerState | None, expected: str | None) -> None:
    """Whoever is ahead of what the other remembers is at work; whoever is behind came out of an older copy."""
    assert found(known, state) == ([] if expected is None else [(expected, ONE)])


def test_each_is_compared_with_what_was_read_on_the_safe_side_of_it() -> None:
    """With others at work both go on between two readings, and neither of that is a fall."""
    assert found(Known(3, 10), LedgerState(12, VaultMark(5, 5)), after=Known(5, 12)) == []
    assert found(Known(3, 10), LedgerState(10, VaultMark(3, 5)), after=Known(4, 11)) == []


def test_a_mark_goes_forward_in_each_of_its_numbers() -> None:
    """Two processes note what each of them has seen."""
    assert VaultMark(3, 9).reached(VaultMark(5, 2)) == VaultMark(5, 9)


def test_whoever_has_seen_more_of_a_ledger_counts() -> None:
    """The vault, or the journal."""
    other = UUID(int=2)
    known: Mapping[UUID, KnownLedger] = {ONE: Known(1, 10)}
    assert furthest(known, {ONE: Known(1, 9), other: Known(1, 2)}) == {ONE: Known(1, 10), other: Known(1, 2)}
    assert furthest(known, {ONE: Known(1, 11)}) == {ONE: Known(1, 11)}
