"""Verify finds every row that was edited, deleted, swapped, inserted or renumbered by hand, with its position (I10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from ledger.domain.encoding import leaf_of
from ledger.domain.events import Head, RecordedEvent
from ledger.domain.merkle import encode_frontier, extend_frontier, hash_leaf, root_of
from ledger.domain.query import EventQuery
from ledger.domain.verdicts import VerifyReport
from ledger.services.read import query_events
from ledger.services.verifying.running import verify_ledger
from ledger.storage import tables
from tests.support import rows
from tests.support.ledgers import Ledger, a_fact, a_visit

EVENTS, KEYS, DEAD, HEADS = tables.events, tables.event_keys, tables.shredded_keys, tables.heads
ERASED_AT = 6
"""The position of the ``SubjectErased``."""


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """Eleven events: visits and facts, the erasure of patient:A, and some more."""
    ledger.append(a_visit("A"), a_fact(), a_visit("B", actor="group:L"), a_visit("A"), a_fact(), a_visit("B"))
    ledger.erase("patient:A")
    ledger.append(a_visit("B"), a_fact(), a_visit("C"), a_visit("B"))
    assert ledger.size() == 11
    ledger.assert_intact()
    return ledger


def found(ledger: Ledger) -> set[int]:
    """The positions that ``verify`` names; the report is never a good one."""
    report = ledger.verify()
    assert not report.intact
    assert report.findings
    assert list(report.findings) == sorted(report.findings, key=lambda finding: finding.position)
    return {finding.position for finding in report.findings}


def of(table: sa.Table, statement: Any, ledger: Ledger, **where: Any) -> Any:
    """A statement about some rows of one ledger."""
    conditions = [table.c[name] == value for name, value in where.items()]
    return statement(table).where(table.c.ledger_id == ledger.ledger_id, *conditions)


def test_a_ledger_that_nobody_touched_is_intact(filled: Ledger) -> None:
    """The root is that of the rows, the head says the same, and progress is told up to the last event."""
    seen: list[tuple[int, int]] = []
    report = verify_ledger(filled.deps, filled.ledger_id, lambda done, total: seen.append((done, total)))
    hashes = [event.leaf_hash for event in filled.recorded()]
    root = root_of(extend_frontier(0, (), hashes)[1])
    # The receipt of the erasure had a checkpoint published.
    assert report == VerifyReport(11, root, root, (), {"intact": 9, "erased": 2}, checkpoints=1)
    assert seen == [(11, 11)]


def test_an_empty_ledger_is_intact(ledger: Ledger) -> None:
    """Its root is that of the empty tree."""
    report = ledger.verify()
    assert report.intact
    assert (report.size, report.findings) == (0, ())


def test_a_ledger_longer_than_a_chunk(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks join: what is right stays right across their edges, and what is wrong is still found."""
    monkeypatch.setattr("ledger.services.verifying.ranges.CHUNK", 3)
    filled.assert_intact()
    filled.edit(7, event_type="Other")
    filled.backend.tamper(of(KEYS, sa.delete, filled, position=9))
    assert found(filled) == {7, 9}


EDITS: list[dict[str, Any]] = [
    {"event_type": "Other"},
    {"category": "other"},
    {"schema_version": 2},
    {"occurred_at": 1},
    {"correlation_id": UUID(int=1)},
    {"causation_id": UUID(int=1)},
    {"recorded_by": UUID(int=1)},
    {"event_id": UUID(int=1)},
    {"leaf_hash": b"x" * 32},
    {"leaf_hash": b""},
    {"recorded_at": 1},
    {"recorded_at": 2**62},
    {"stream_version": 55},
    {"stream_ref": b"x" * 16},
    {"sealed": b"\x01\x00"},
    {"sealed": b""},
]


@pytest.mark.parametrize("position", [0, 5, ERASED_AT, 10])
def test_an_edited_row_is_named(filled: Ledger, position: int) -> None:
    """Whatever column of whatever row: found at its position, and good again when it is put back."""
    original = filled.recorded()[position]
    for columns in EDITS:
        filled.edit(position, **columns)
        assert position in found(filled), columns
        filled.put(position, original, new_leaf=False)
    filled.assert_intact()


@pytest.mark.parametrize("position", [0, 4, ERASED_AT, 10])
def test_a_deleted_row_is_named(filled: Ledger, position: int) -> None:
    """Where a row is missing, that position is told."""
    filled.backend.tamper(of(EVENTS, sa.delete, filled, position=position))
    assert position in found(filled)


def test_swapped_rows_are_named(filled: Ledger) -> None:
    """Two events that changed places, keys and all, are both told."""
    filled.backend.tamper(
        *(
            of(table, sa.update, filled, position=old).values(position=new)
            for old, new in ((1, 99), (4, 1), (99, 4))
            for table in (EVENTS, KEYS)
        )
    )
    assert {1, 4} <= found(filled)


def test_swapped_rows_with_fitting_leaves_are_named(filled: Ledger) -> None:
    """Recomputed leaf hashes do not help: the tree was built from others."""
    log = filled.recorded()
    for position, other in ((1, 4), (4, 1)):
        event = replace(log[other], position=position, stream_version=log[position].stream_version)
        event = replace(event, envelope=replace(event.envelope, event_id=UUID(int=900 + position)))
        filled.put(position, event, new_leaf=True)
    report = filled.verify()
    assert not report.intact
    # Their parts are bound to what the envelope said before.
    assert [(finding.position, finding.verdict) for finding in report.findings] == [(1, "tampered"), (4, "tampered")]
    # Without opening them, the roots that were kept at the erasure tell: they cover everything up to there.
    report = verify_ledger(filled.deps, filled.ledger_id, lambda *_: None, opening=False)
    assert [(finding.position, finding.last) for finding in report.findings] == [(0, ERASED_AT - 1)]


def test_an_altered_row_behind_the_last_erasure_is_placed_by_the_head(filled: Ledger) -> None:
    """The head keeps one hash for each perfect subtree: here for the positions 0 to 7, 8 and 9, and 10."""
    filled.put(8, replace(filled.recorded()[8], recorded_by=UUID(int=7)), new_leaf=True)
    assert [(finding.position, finding.last) for finding in filled.verify().findings] == [(8, 9)]


def insert(ledger: Ledger, event: RecordedEvent) -> None:
    """Add a row by hand, with its keys and a leaf hash that fits if any can."""
    ledger.backend.execute(sa.insert(EVENTS).values(rows.event_row(event)))
    for row in rows.key_rows(event):
        ledger.backend.execute(sa.insert(KEYS).values(row))


@pytest.mark.parametrize("position", [11, 12, 5000, -1, -(2**40)])
def test_a_stray_row_is_named(filled: Ledger, position: int) -> None:
    """A row beyond either end of the log is told, though no query ever gives it."""
    last = filled.recorded()[8]
    event = replace(last, position=position, stream_version=50)
    insert(filled, replace(event, envelope=replace(event.envelope, event_id=UUID(int=77))))
    assert found(filled) == {position}
    assert position not in filled.positions()


def test_an_inserted_row_is_named(filled: Ledger) -> None:
    """A row squeezed in, all behind it renumbered and the head moved on: every leaf from there on is wrong."""
    log = filled.recorded()
    renumbered = [
        of(table, sa.update, filled, position=old).values(position=old + 1)
        for old in range(10, 3, -1)
        for table in (EVENTS, KEYS)
    ]
    filled.backend.tamper(*renumbered, of(HEADS, sa.update, filled).values(size=12))
    forged = replace(log[1], position=4, stream_version=60)
    insert(filled, replace(forged, envelope=replace(forged.envelope, event_id=UUID(int=78))))
    assert set(range(4, 12)) <= found(filled) | {0, 1, 2, 3}


def test_renumbered_rows_are_named(filled: Ledger) -> None:
    """A row taken out and the gap closed: everything behind it is told."""
    changes = [of(table, sa.delete, filled, position=4) for table in (EVENTS, KEYS)]
    for old in range(5, 11):
        changes += [of(table, sa.update, filled, position=old).values(position=old - 1) for table in (EVENTS, KEYS)]
    size, frontier = extend_frontier(0, (), [event.leaf_hash for event in filled.recorded() if event.position != 4])
    head = {"size": size, "frontier": encode_frontier(frontier)}
    filled.backend.tamper(*changes, of(HEADS, sa.update, filled).values(head))
    assert set(range(4, 10)) <= found(filled)


def test_a_removed_way_from_a_key_to_its_event_is_named(filled: Ledger) -> None:
    """A row of ``event_keys`` that is gone would hide the event from queries about that person."""
    filled.backend.tamper(of(KEYS, sa.delete, filled, position=2, role=2))
    assert found(filled) == {2}


@pytest.mark.parametrize("changes", [{"role": 3}, {"part": 9}, {"key_id": b"x" * 32}])
def test_an_altered_way_from_a_key_to_its_event_is_named(filled: Ledger, changes: dict[str, Any]) -> None:
    """Role, part and key of the row have to be those of the part."""
    filled.backend.tamper(of(KEYS, sa.update, filled, position=2, role=1).values(changes))
    assert found(filled) == {2}


@pytest.mark.parametrize(
    ("position", "key"), [(1, b"x" * 32), (2, b"x" * 32), (500, b"x" * 32), (-3, b"x" * 32), (1, None), (9, None)]
)
def test_an_added_way_from_a_key_to_an_event_is_named(filled: Ledger, position: int, key: bytes | None) -> None:
    """A row for a key that the event has not, known or unknown, would put the event into that person's file."""
    key_id = filled.key_of("patient:B") if key is None else key
    row = {"ledger_id": filled.ledger_id, "key_id": key_id, "position": position, "part": 7, "role": 3}
    filled.backend.execute(sa.insert(KEYS).values(row))
    assert found(filled) == {position}


def test_a_removed_record_of_a_dead_key_is_named(filled: Ledger) -> None:
    """The log says that the key was shredded; who takes the row away brings nothing back, and is found."""
    filled.backend.tamper(of(DEAD, sa.delete, filled))
    named = {(finding.position, finding.last, finding.verdict) for finding in filled.verify().findings}
    # The key vault's fence stands for a key that the ledger does not call dead: at the events from 0 to 3.
    assert named == {(0, 0, "missing key"), (3, 3, "missing key"), (0, 3, None), (ERASED_AT, ERASED_AT, None)}
    shown = query_events(filled.deps, filled.ledger_id, EventQuery(), cursor=None, limit=1).events[0]
    assert [redaction.reason for redaction in shown.redactions] == ["unreadable"]


@pytest.mark.parametrize("position", [0, 5, 11, 5000, -1])
def test_a_forged_record_of_a_dead_key_is_named(filled: Ledger, position: int) -> None:
    """A row that no event stands for hides parts that nobody erased, wherever it says that it comes from."""
    row = {"ledger_id": filled.ledger_id, "key_id": filled.key_of("patient:B")}
    filled.backend.execute(sa.insert(DEAD).values(**row, position=position, erasure_id=UUID(int=5)))
    assert found(filled) == {position}


@pytest.mark.parametrize("changes", [{"position": 3}, {"erasure_id": UUID(int=5)}])
def test_an_altered_record_of_a_dead_key_is_named(filled: Ledger, changes: dict[str, Any]) -> None:
    """It has to say the position and the erasure that the log says."""
    filled.backend.tamper(of(DEAD, sa.update, filled).values(changes))
    assert ERASED_AT in found(filled)


def test_the_kept_root_of_an_erasure_is_checked(filled: Ledger) -> None:
    """Receipts state it. Altered, removed or added by hand, it is found."""
    roots = tables.erasure_roots
    filled.backend.tamper(of(roots, sa.update, filled).values(root=bytes(32)))
    # The checkpoint that the receipt is under vouches for the rows up to there.
    assert [(finding.position, finding.last) for finding in filled.verify().findings] == [(ERASED_AT, ERASED_AT)]
    filled.backend.tamper(of(roots, sa.delete, filled))
    assert found(filled) == {ERASED_AT}
    stray = {"ledger_id": filled.ledger_id, "erasure_id": UUID(int=5), "root": bytes(32)}
    filled.backend.tamper(sa.insert(roots).values(**stray))
    assert (0, 10) in {(finding.position, finding.last) for finding in filled.verify().findings}


def test_a_leaf_that_uses_a_dead_key_is_named(filled: Ledger) -> None:
    """I8: an event under a shredded key after its erasure is told, though its leaf and the tree fit."""
    log = filled.recorded()
    event = replace(log[3], position=11, stream_version=3)
    event = replace(event, envelope=replace(event.envelope, event_id=UUID(int=79)), recorded_at=log[10].recorded_at)
    with filled.deps.store.locked_head(filled.ledger_id) as lock:
        event = replace(event, leaf_hash=hash_leaf(leaf_of(event)))
        size, frontier = extend_frontier(lock.head.size, lock.head.frontier, [event.leaf_hash])
        lock.write([event], Head(size, frontier, event.recorded_at))
    report = filled.verify()
    assert [finding.position for finding in report.findings] == [11]
    assert f"shredded at position {ERASED_AT}" in report.findings[0].what


@pytest.mark.parametrize(
    "frontier",
    [b"", b"x" * 31, b"x" * 64, b"x" * 97, b"x" * 128],
    ids=["none", "half a hash", "a hash too few", "a byte more", "a hash too many"],
)
def test_a_frontier_that_fits_no_tree_is_named(filled: Ledger, frontier: bytes) -> None:
    """The head cannot have been written like that."""
    filled.backend.tamper(of(HEADS, sa.update, filled).values(frontier=frontier))
    report = filled.verify()
    assert not report.intact
    assert [(finding.position, finding.last) for finding in report.findings] == [(0, 10)]


@pytest.mark.parametrize(("node", "span"), [(0, (0, 7)), (1, (8, 9)), (2, (10, 10))])
def test_an_altered_frontier_is_placed(filled: Ledger, node: int, span: tuple[int, int]) -> None:
    """Eleven events are trees of eight, two and one: the one that differs is told."""
    frontier = list(filled.deps.store.head(filled.ledger_id).frontier)
    frontier[node] = b"x" * 32
    filled.backend.tamper(of(HEADS, sa.update, filled).values(frontier=encode_frontier(frontier)))
    report = filled.verify()
    assert not report.intact
    assert report.root != report.head_root
    assert [(finding.position, finding.last) for finding in report.findings] == [span]


@pytest.mark.parametrize(("size", "named"), [(10, 10), (7, 7), (0, 0), (12, 11), (13, 11)])
def test_an_altered_size_is_named(filled: Ledger, size: int, named: int) -> None:
    """Rows beyond a head that was set back, and positions that a head set forward has no rows for."""
    filled.backend.tamper(of(HEADS, sa.update, filled).values(size=size))
    assert named in found(filled)


@pytest.mark.parametrize("time", [0, 2**62])
def test_an_altered_time_of_the_head_is_named(filled: Ledger, time: int) -> None:
    """I10: it decides what a past moment includes, and from when on the next event is recorded."""
    size = filled.size()
    filled.backend.tamper(of(HEADS, sa.update, filled).values(last_recorded_at=time))
    assert found(filled) == {size - 1}


def test_verifying_one_ledger_is_not_troubled_by_another(filled: Ledger) -> None:
    """What is wrong in one ledger is not held against its neighbour."""
    other = filled.backend.new_ledger()
    other.append(a_visit("A"))
    filled.edit(0, event_type="Other")
    assert not filled.verify().intact
    other.assert_intact()
