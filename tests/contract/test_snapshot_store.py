"""Where snapshots are kept: one suite for both databases."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from ledger.ports import Snapshot, Snapshots
from tests.support.ledgers import Ledger, a_fact

FOLD = "test/1"


def a_snapshot(ref: bytes, version: int, position: int, *keys: bytes, sealed: bytes = b"sealed") -> Snapshot:
    """One that nobody can open."""
    return Snapshot(ref, FOLD, version, position, b"", tuple(keys), sealed)


def refs(count: int) -> list[bytes]:
    """Refs that no other test has, in order."""
    return sorted(secrets.token_bytes(16) for _ in range(count))


@pytest.fixture
def kept(ledger: Ledger) -> Snapshots:
    """The store of snapshots, of a ledger with ten events."""
    ledger.append(*[a_fact(f"ward-{number}") for number in range(10)])
    return ledger.deps.derived.snapshots


def test_the_nearest_is_the_newest_at_or_before_a_position(ledger: Ledger, kept: Snapshots) -> None:
    """Of each stream that has one; with the leaf hash that the log has there."""
    one, two, three = refs(3)
    kept.add_snapshots(ledger.ledger_id, [a_snapshot(one, 100, 3), a_snapshot(one, 200, 7), a_snapshot(two, 100, 8)])
    leaves = [event.leaf_hash for event in ledger.recorded()]

    def nearest(position: int) -> dict[bytes, tuple[int, bytes]]:
        found = kept.nearest_snapshots(ledger.ledger_id, FOLD, [one, two, three], position)
        return {ref: (snapshot.stream_version, snapshot.leaf_hash) for ref, snapshot in found.items()}

    assert nearest(2) == {}
    assert nearest(3) == {one: (100, leaves[3])}
    assert nearest(7) == {one: (200, leaves[7])}
    assert nearest(2**62) == {one: (200, leaves[7]), two: (100, leaves[8])}
    assert kept.nearest_snapshots(ledger.ledger_id, "other/1", [one], 9) == {}
    assert kept.nearest_snapshots(ledger.ledger_id, FOLD, [], 9) == {}


def test_many_streams_are_looked_up_at_once(ledger: Ledger, kept: Snapshots) -> None:
    """More than fit one statement."""
    many = refs(1500)
    kept.add_snapshots(ledger.ledger_id, [a_snapshot(ref, 100, 5) for ref in many])

    assert kept.nearest_snapshots(ledger.ledger_id, FOLD, many, 9).keys() == set(many)


def test_a_snapshot_comes_back_as_it_was_added_and_the_list_has_no_bodies(ledger: Ledger, kept: Snapshots) -> None:
    """Newest first; a position that the log does not have fits no log."""
    (ref,) = refs(1)
    keys = (b"b" * 32, b"a" * 32)
    added = [a_snapshot(ref, 100, 2, *keys), a_snapshot(ref, 200, 4), a_snapshot(ref, 300, 99)]
    kept.add_snapshots(ledger.ledger_id, added)

    listed = kept.snapshots_of(ledger.ledger_id, FOLD, ref, 99)

    assert [(item.stream_version, item.sealed) for item in listed] == [(200, b""), (100, b"")]
    assert [item.stream_version for item in kept.snapshots_of(ledger.ledger_id, FOLD, ref, 3)] == [100]
    assert listed[1].key_ids == keys
    leaf = ledger.recorded()[2].leaf_hash
    assert kept.snapshot(ledger.ledger_id, FOLD, ref, 100) == replace(added[0], leaf_hash=leaf)
    assert kept.snapshot(ledger.ledger_id, FOLD, ref, 300) is None
    assert kept.snapshot(ledger.ledger_id, FOLD, ref, 101) is None


def test_one_of_the_same_version_is_replaced(ledger: Ledger, kept: Snapshots) -> None:
    """The later one counts."""
    (ref,) = refs(1)
    for sealed in (b"first", b"second"):
        kept.add_snapshots(ledger.ledger_id, [a_snapshot(ref, 100, 5, sealed=sealed)])

    found = kept.snapshot(ledger.ledger_id, FOLD, ref, 100)

    assert found is not None
    assert found.sealed == b"second"


def test_those_of_a_dead_key_are_dropped_and_no_others(ledger: Ledger, kept: Snapshots) -> None:
    """Of the streams that are named, whatever their folds."""
    one, two = refs(2)
    dead, alive = b"d" * 32, b"l" * 32
    kept.add_snapshots(
        ledger.ledger_id,
        [
            a_snapshot(one, 100, 1, alive),
            a_snapshot(one, 200, 2, alive, dead),
            replace(a_snapshot(one, 200, 2, dead), fold="other/1"),
            a_snapshot(two, 100, 3, dead),
            # The bytes of the dead key, but not where a key begins.
            a_snapshot(one, 300, 4, b"x" * 16 + dead[:16], dead[16:] + b"x" * 16),
        ],
    )

    assert kept.drop_snapshots(ledger.ledger_id, [one], [dead]) == 2
    assert kept.drop_snapshots(ledger.ledger_id, [one], [dead]) == 0
    assert [item.stream_version for item in kept.snapshots_of(ledger.ledger_id, FOLD, one, 9)] == [300, 100]
    assert [item.stream_version for item in kept.snapshots_of(ledger.ledger_id, FOLD, two, 9)] == [100]


def test_a_fold_that_is_used_no_more_is_dropped_as_a_whole(ledger: Ledger, kept: Snapshots) -> None:
    """And other folds stay."""
    (ref,) = refs(1)
    kept.add_snapshots(ledger.ledger_id, [a_snapshot(ref, 100, 1), replace(a_snapshot(ref, 100, 1), fold="test/2")])

    assert kept.drop_fold(ledger.ledger_id, FOLD) == 1
    assert kept.snapshot(ledger.ledger_id, "test/2", ref, 100) is not None
    assert kept.snapshot(ledger.ledger_id, FOLD, ref, 100) is None
