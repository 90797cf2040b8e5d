"""The quick way to check events decides as the readable one does, on whatever rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from ledger.domain.encoding import key_record, leaf_of
from ledger.domain.events import RecordedEvent, event_key_rows
from ledger.services.verifying import quick, readable
from ledger.services.verifying.chunks import Chunk, How, KeyRegister
from ledger.storage import tables
from tests.contract.test_services_tampering import IMPOSSIBLE, LEAF_ONLY, TRANSPLANTS, VICTIM, fill
from tests.support import rows
from tests.support.ledgers import Ledger, a_fact, a_visit

HOW = [How(opening=True, key=b"k" * 32), How(opening=False, key=b"k" * 32)]
ROUNDS = 60


def quickly(ledger: Ledger, first: int, last: int, how: How) -> Chunk | None:
    """As ``verify`` asks it."""
    register = KeyRegister.of_range(ledger.deps, ledger.ledger_id, opening=how.opening)
    found = ledger.deps.store.leaf_rows(ledger.ledger_id, first, last)
    return None if found is None or len(found) != last - first + 1 else quick.check(register, first, found, how)


def assert_same(ledger: Ledger, *, right: bool | None = None) -> None:
    """Both ways agree on all events; ``right``: and find them to be so."""
    last = ledger.size() - 1
    for how in HOW:
        slowly = readable.check(ledger.deps, ledger.ledger_id, 0, last, how)
        quick_one = quickly(ledger, 0, last, how)
        if quick_one is None:
            assert slowly.findings or slowly.counts.keys() & {"missing row", "tampered", "missing key"}
        else:
            assert slowly.findings == []
            assert replace(quick_one, shredders=list(quick_one.shredders), findings=[]) == slowly
        if right is not None:
            assert (quick_one is not None) == right


def test_they_agree_on_a_ledger_with_everything_in_it(ledger: Ledger) -> None:
    """Parts of every role, several keys, erased, restricted, and all optional fields."""
    fill(ledger)
    assert_same(ledger, right=True)
    ledger.append(a_visit("D"), a_visit("E", actor="patient:B"))
    ledger.deps.vault.restrict(ledger.ledger_id, ledger.subject_ref("patient:D"), ledger.deps.clock())
    ledger.erase("patient:B")
    ledger.erase("nobody", block_unknown=True)
    ledger.append(a_visit("E"), a_fact(occurred_at="1969-12-31T23:59:59Z"))
    assert_same(ledger, right=True)
    (counts,) = [quickly(ledger, 0, ledger.size() - 1, how) for how in HOW if how.opening]
    assert counts is not None
    assert {"erased", "restricted", "intact"} == set(counts.counts)


def test_rows_are_delivered_in_the_bytes_of_their_leaves(ledger: Ledger) -> None:
    """On either engine: position, the leaf up to its parts, time, leaf hash and the stored parts."""
    log = fill(ledger)
    delivered = ledger.deps.store.leaf_rows(ledger.ledger_id, 0, len(log) - 1)
    assert delivered is not None
    for event, (position, prefix, recorded_at, leaf_hash, sealed) in zip(log, delivered, strict=True):
        assert position == event.position.to_bytes(8, "big")
        assert (b"\x00" + leaf_of(event)).startswith(prefix + bytes((len(event.parts),)))
        assert recorded_at == event.recorded_at.to_bytes(8, "big", signed=True)
        assert (leaf_hash, sealed) == (event.leaf_hash, rows.event_row(event)["sealed"])


def test_rows_of_event_keys_are_delivered_as_records(ledger: Ledger) -> None:
    """All of them, however they are shared out."""
    log = fill(ledger)
    expected = sorted(
        key_record(event.position.to_bytes(8, "big"), part, role, key_id)
        for event in log
        for part, role, key_id in event_key_rows(event)
    )
    store = ledger.deps.store
    whole = [record for batch in store.key_records(ledger.ledger_id, None, None) for record in batch]
    halves = [
        record
        for bounds in ((None, b"\x80"), (b"\x80", None))
        for batch in store.key_records(ledger.ledger_id, *bounds)
        for record in batch
    ]
    assert sorted(whole) == expected
    assert sorted(halves) == expected


@pytest.mark.parametrize("new_leaf", [False, True], ids=["leaf hash kept", "leaf hash recomputed"])
def test_they_agree_on_altered_rows(ledger: Ledger, new_leaf: bool) -> None:
    """Whatever was moved, left out or changed."""
    log = fill(ledger)
    for change in (*TRANSPLANTS.values(), *LEAF_ONLY.values()):
        ledger.put(VICTIM, change(log[VICTIM], log), new_leaf=new_leaf)
        assert_same(ledger)
    ledger.put(VICTIM, log[VICTIM], new_leaf=False)
    assert_same(ledger, right=True)


def test_they_agree_on_what_no_leaf_can_hold(ledger: Ledger) -> None:
    """The quick one takes it for nothing that it could check."""
    log = fill(ledger)
    for columns in IMPOSSIBLE.values():
        ledger.edit(VICTIM, **columns)
        assert_same(ledger, right=False)
        ledger.put(VICTIM, log[VICTIM], new_leaf=False)


def test_they_agree_on_missing_rows(ledger: Ledger) -> None:
    """Wherever they stood."""
    fill(ledger)
    for position in (0, 5, 3):
        columns = tables.events.c
        here = sa.and_(columns.ledger_id == ledger.ledger_id, columns.position == position)
        ledger.backend.tamper(sa.delete(tables.events).where(here))
        assert_same(ledger, right=False)


MUTATIONS: list[Callable[[random.Random, RecordedEvent], dict[str, Any]]] = [
    lambda dice, event: {"recorded_at": event.recorded_at + dice.choice([-1, 1, -(2**40)])},
    lambda dice, event: {"occurred_at": dice.choice([None, 0, -5, 2**60])},
    lambda dice, event: {"correlation_id": dice.choice([None, UUID(int=7)])},
    lambda dice, event: {"event_type": dice.choice(["", "Other", "SubjectErased", "x" * 128, "ä"])},
    lambda dice, event: {"category": dice.choice(["", "ledger", "c" * 200])},
    lambda dice, event: {"leaf_hash": dice.choice([b"", event.leaf_hash[:-1], bytes(32)])},
    lambda dice, event: {"sealed": _flipped(dice, rows.event_row(event)["sealed"])},
    lambda dice, event: {"sealed": rows.event_row(event)["sealed"][: dice.randrange(60)]},
    lambda dice, event: {"stream_version": dice.choice([0, -1, 2**62])},
    lambda dice, event: {"schema_version": dice.choice([0, -1, 2**31 - 1])},
]


def _flipped(dice: random.Random, stored: bytes) -> bytes:
    index = dice.randrange(len(stored))
    return stored[:index] + bytes((stored[index] ^ 1 << dice.randrange(8),)) + stored[index + 1 :]


def test_they_agree_on_any_change(ledger: Ledger) -> None:
    """One column of one row after the other, in random ways; and right again when it is put back."""
    log = fill(ledger)
    dice = random.Random(7)
    for _ in range(ROUNDS):
        event = dice.choice(log)
        ledger.edit(event.position, **dice.choice(MUTATIONS)(dice, event))
        assert_same(ledger)
        ledger.put(event.position, event, new_leaf=False)
    assert_same(ledger, right=True)


def test_a_role_that_there_is_not(ledger: Ledger) -> None:
    """Both take such parts for no parts."""
    log = fill(ledger)
    stored = rows.event_row(log[0])["sealed"]
    ledger.edit(0, sealed=stored[:2] + b"\x07" + stored[3:])
    assert_same(ledger, right=False)
