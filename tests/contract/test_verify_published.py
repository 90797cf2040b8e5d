"""What was published of a ledger, or is kept to publish it, is compared whatever was read before and wherever it is."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from ledger.domain.names import SUBJECT_ERASED
from ledger.domain.notes import cosignature, cosigned_message, parse_note
from ledger.domain.tiles import tile_root
from ledger.domain.verdicts import VerifyReport
from ledger.ports import FullTile
from ledger.services.proving.publishing import log_name, publish
from ledger.services.receipts import get_receipt
from ledger.services.verifying import ranges
from ledger.services.verifying.published import check_upper_tiles
from ledger.services.verifying.running import verify_ledger
from ledger.services.verifying.verification import Verified
from ledger.storage import tables
from tests.support.cosigning import TIMESTAMP, MemoryWitness, MemoryWitnesses
from tests.support.ledgers import Ledger, a_fact, a_visit, open_postgresql
from tests.support.postgres import PostgresCluster

SIZE = 600
"""Two full tiles, and a third one that is not."""


@pytest.fixture
def tiled(ledger: Ledger) -> Ledger:
    """A ledger with two stored tiles."""
    for _ in range(6):
        ledger.append(*(a_fact() for _ in range(100)))
    publish(ledger.deps, ledger.ledger_id)
    return ledger


def verified(ledger: Ledger, **options: Any) -> VerifyReport:
    """The report."""
    return verify_ledger(ledger.deps, ledger.ledger_id, lambda *_: None, **options)


def where(report: VerifyReport) -> set[tuple[int, int]]:
    """What the findings are about."""
    return {(finding.position, finding.last) for finding in report.findings}


def in_tile(ledger: Ledger, number: int, index: int) -> None:
    """Alter one hash in a stored tile."""
    (tile,) = ledger.deps.store.full_tiles(ledger.ledger_id, 0, number, 1)
    hashes = tile.hashes[: 32 * index] + b"x" * 32 + tile.hashes[32 * index + 32 :]
    here = (tables.tiles.c.ledger_id == ledger.ledger_id, tables.tiles.c.number == number)
    ledger.backend.tamper(sa.update(tables.tiles).where(*here).values(hashes=hashes))


def test_every_hash_of_a_tile_is_compared_however_the_ledger_is_read(
    tiled: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a tile lies in several pieces of work, or in several chunks of one."""
    assert verified(tiled).intact
    for number, index in ((0, 0), (0, 255), (1, 49), (1, 200)):
        in_tile(tiled, number, index)
    for chunk in (50, 1000):
        monkeypatch.setattr(ranges, "CHUNK", chunk)
        for width in (64, 128, 1024):
            # Which of the hashes of a tile are another says more than that its root is.
            assert where(verified(tiled, width=width)) == {(one, one) for one in (0, 255, 305, 456)}


def test_a_tile_that_was_half_verified_earlier_is_compared_as_a_whole(ledger: Ledger) -> None:
    """What it has of the rows that are not read again is held to the tree of then."""
    kept: list[Verified] = []
    ledger.append(*(a_fact() for _ in range(100)))
    verified(ledger, keep=kept.append)
    for _ in range(2):
        ledger.append(*(a_fact() for _ in range(100)))
    publish(ledger.deps, ledger.ledger_id)
    assert verified(ledger, since=kept[-1]).intact
    in_tile(ledger, 0, 7)
    assert where(verified(ledger, since=kept[-1])) == {(0, 99)}


STRAYS = [(0, 2), (0, 10**6), (0, -1), (1, 0), (2, 0), (6, 5), (7, 0), (9, 0), (-1, 0)]


def test_a_tile_that_has_no_place_in_the_tree_is_told(tiled: Ledger) -> None:
    """It would stop checkpoints, or be believed once the tree has grown so far."""
    content = {"ledger_id": tiled.ledger_id, "root": b"r" * 32, "hashes": b"h" * 8192}
    rows = [{**content, "level": level, "number": number} for level, number in STRAYS]
    tiled.backend.tamper(*(sa.insert(tables.tiles).values(row) for row in rows))
    report = verified(tiled)
    told = {finding.what.partition(", is not full")[0] for finding in report.findings}
    assert {f"a stored tile of level {level}, number {number}" for level, number in STRAYS} <= told
    assert all(0 <= finding.position <= finding.last < SIZE for finding in report.findings)


def test_a_tile_that_is_missing_is_no_finding_and_hides_no_other(tiled: Ledger) -> None:
    """They are derived: who drops them has them made again."""
    first = (tables.tiles.c.ledger_id == tiled.ledger_id, tables.tiles.c.number == 0)
    tiled.backend.tamper(sa.delete(tables.tiles).where(*first))
    tiled.assert_intact()
    in_tile(tiled, 1, 3)
    assert where(verified(tiled)) == {(259, 259)}


def test_checkpoints_are_compared_once_each_in_a_database_that_orders_text_as_people_do(
    postgres: PostgresCluster, tmp_path: Path
) -> None:
    """Under such a collation a letter stands behind the last code point that there is."""
    backend = open_postgresql(postgres, tmp_path)
    ledger = backend.new_ledger()
    backend.execute(sa.text('ALTER TABLE checkpoints ALTER COLUMN origin TYPE text COLLATE "en-x-icu"'))
    for _ in range(5):
        ledger.append(a_visit("A"), a_fact(), a_fact())
        backend.clock.now += 2_000_000
        publish(ledger.deps, ledger.ledger_id)
    assert (verified(ledger).checkpoints, verified(ledger).intact) == (5, True)
    for width in (1, 4, 8):
        # None of a range that ends where another one begins is looked at twice.
        assert verified(ledger, width=width) == verified(ledger)
    ledger.backend.tamper(sa.delete(tables.events).where(tables.events.c.position >= 12))
    head = sa.update(tables.heads).where(tables.heads.c.ledger_id == ledger.ledger_id)
    ledger.backend.tamper(head.values(size=12))
    assert any("of 15 events was published" in finding.what for finding in verified(ledger).findings)
    backend.close()


@pytest.fixture
def published(ledger: Ledger) -> Ledger:
    """Four checkpoints, and an erasure before the last of them."""
    ledger.append(a_visit("A"), a_visit("B"))
    for number in range(4):
        if number == 3:
            ledger.erase("patient:A")
        ledger.append(a_fact())
        ledger.backend.clock.now += 2_000_000
        publish(ledger.deps, ledger.ledger_id, at_least=ledger.size())
    return ledger


def own(table: sa.Table, ledger: Ledger, *conditions: sa.ColumnElement[bool]) -> Any:
    """An update of the ledger's rows."""
    return sa.update(table).where(table.c.ledger_id == ledger.ledger_id, *conditions)


def without(table: sa.Table, ledger: Ledger, *conditions: sa.ColumnElement[bool]) -> Any:
    """A delete of the ledger's rows."""
    return sa.delete(table).where(table.c.ledger_id == ledger.ledger_id, *conditions)


def test_a_checkpoint_that_was_taken_out_from_between_others_is_told(published: Ledger) -> None:
    """Each was published behind one, and that must be there."""
    published.assert_intact()
    published.backend.tamper(without(tables.checkpoints, published, tables.checkpoints.c.size == 4))
    assert where(verified(published)) == {(4, 4)}


def test_what_an_earlier_run_found_wrong_is_found_again(published: Ledger) -> None:
    """However much of the ledger that run found right before."""
    published.append(a_fact(), a_fact())
    last = published.recorded()[-1]
    published.backend.tamper(
        sa.insert(tables.closed_streams).values(
            ledger_id=published.ledger_id, stream_ref=last.envelope.stream_ref, position=1
        )
    )
    kept: list[Verified] = []
    wrong = verified(published, keep=kept.append)
    assert not wrong.intact
    for since in kept:
        assert (since.compared, where(verified(published, since=since))) == (0, where(wrong))


def test_what_lies_beside_the_rows_of_an_earlier_run_is_compared_again(published: Ledger) -> None:
    """Checkpoints, roots of erasures, ends of streams: that a run was good says nothing of what they are now."""
    kept: list[Verified] = []
    assert verified(published, keep=kept.append).intact
    since = kept[-1]
    published.append(a_fact())
    assert verified(published, since=since).intact
    engine, roots = published.backend.engine, tables.erasure_roots
    with engine.connect() as connection:
        root = connection.execute(sa.select(roots).where(roots.c.ledger_id == published.ledger_id)).mappings().one()
    stream = published.recorded()[2].envelope.stream_ref
    end = {"ledger_id": published.ledger_id, "stream_ref": stream, "position": 3}
    for statement, undo in (
        (own(roots, published).values(root=b"z" * 32), own(roots, published).values(root=root["root"])),
        (own(roots, published).values(root_before=b"z" * 32), own(roots, published).values(dict(root))),
        (without(roots, published), sa.insert(roots).values(dict(root))),
        (
            sa.insert(tables.closed_streams).values(end),
            without(tables.closed_streams, published),
        ),
        (own(tables.checkpoints, published, tables.checkpoints.c.size == 3).values(root=b"y" * 32), None),
    ):
        published.backend.tamper(statement)
        assert not verified(published, since=since).intact
        if undo is not None:
            published.backend.tamper(undo)
            assert verified(published, since=since).intact


BAD_LINES = [
    ("evil", "not a signature\n", 0),
    ("evil", "", 0),
    ("evil", "— other AAAAAAAA\n", 0),
    ("evil", "— evil AAAAAAAA\n— evil AAAAAAAA\n", 0),
    ("evil", "— evil AAAAAAAA\n", 1),
]
"""Name, line, and of how many events more than there are."""


@pytest.mark.parametrize(("name", "line", "more"), BAD_LINES)
def test_a_cosignature_that_makes_a_checkpoint_unreadable_is_told(
    published: Ledger, name: str, line: str, more: int
) -> None:
    """It is sent with the checkpoint, and nobody can read the note any more."""
    size = published.size()
    origin = log_name(published.deps, published.ledger_id)
    row = {"ledger_id": published.ledger_id, "origin": origin, "name": name, "line": line, "timestamp": 1}
    published.backend.execute(sa.insert(tables.cosignatures).values(**row, size=size + more))
    (finding,) = verified(published).findings
    assert (finding.position, "cosignature" in finding.what) == (size - 1, True)


def test_a_cosignature_of_a_stranger_is_no_finding(published: Ledger) -> None:
    """Who the witnesses were is nobody's knowledge but their settings'."""
    published.deps.transparency.add_cosignature(
        published.ledger_id,
        log_name(published.deps, published.ledger_id),
        published.size(),
        name="witness.example",
        line="— witness.example " + base64.b64encode(b"k" * 76).decode() + "\n",
        timestamp=1,
    )
    published.assert_intact()


def test_a_receipt_that_was_not_handed_out_is_told(published: Ledger) -> None:
    """Whatever of it is altered, and however little; and one of no erasure."""
    (event,) = [one for one in published.recorded() if one.envelope.event_type == SUBJECT_ERASED]
    published.append(a_fact())
    receipt = get_receipt(published.deps, published.ledger_id, event.envelope.event_id)
    assert receipt.proof is not None
    published.assert_intact()
    stored = published.deps.transparency.receipt(published.ledger_id, event.envelope.event_id)
    assert stored is not None
    other_events = json.dumps({**json.loads(stored.payload), "events": 99})
    other_leaf = json.dumps({**json.loads(stored.payload), "leaf": "AAAA"})
    for altered in (
        {"payload": "{}"},
        {"payload": "nothing"},
        {"payload": "[]"},
        {"payload": other_events},
        {"payload": other_leaf},
        {"signature": b"x" * 64},
        {"signature": b""},
        {"proof": "{}"},
        {"proof": "null"},
    ):
        published.backend.tamper(own(tables.receipts, published).values(**altered))
        assert where(verified(published)) == {(event.position, event.position)}, altered
        published.backend.tamper(own(tables.receipts, published).values(**asdict(stored)))
    published.assert_intact()
    published.backend.tamper(own(tables.receipts, published).values(erasure_id=UUID(int=3)))
    assert where(verified(published)) == {(0, published.size() - 1)}


@dataclass(frozen=True)
class Tiles:
    """A store that has these tiles, and no other."""

    tiles: dict[tuple[int, int], FullTile]

    def misplaced_tiles(self, _ledger_id: UUID, _limit: int) -> list[tuple[int, int]]:
        """None."""
        return []

    def full_tiles(self, _ledger_id: UUID, level: int, first: int, count: int) -> list[FullTile]:
        """In order, as far as they are there."""
        places = [(level, number) for number in range(first, first + count)]
        return [self.tiles[place] for place in places if place in self.tiles]


def test_an_upper_tile_is_held_to_those_below_it_whatever_is_missing_before_it(ledger: Ledger) -> None:
    """Of a tree of 131072 leaves, of which only the second half has tiles."""
    below = [FullTile(0, 256 + number, bytes([number]) * 32, b"") for number in range(256)]
    hashes = b"".join(tile.root for tile in below)
    tiles = {(0, tile.number): tile for tile in below}

    def wrong(upper: FullTile) -> list[tuple[int, int]]:
        deps: Any = replace(ledger.deps, store=Tiles({**tiles, (1, 1): upper}))  # type: ignore[arg-type]
        found = check_upper_tiles(deps, ledger.ledger_id, 131071)
        return [(finding.position, finding.last) for finding in found]

    right = FullTile(1, 1, tile_root(hashes), hashes)
    assert wrong(right) == []
    for other in (replace(right, root=b"x" * 32), replace(right, hashes=hashes[::-1]), replace(right, hashes=b"")):
        assert wrong(other) == [(65536, 131071)]
    del tiles[0, 300]
    assert wrong(right) == [(65536, 131071)]


def test_a_false_cosignature_in_the_name_of_a_known_witness_is_told(published: Ledger) -> None:
    """What looks like a signature is held to the key, where that is known."""
    witness = MemoryWitness("first")
    known = replace(published, deps=replace(published.deps, witnesses=MemoryWitnesses([witness], 1)))
    last = publish(known.deps, known.ledger_id)
    text = parse_note(last.note).text
    place = (known.ledger_id, last.origin, last.size)
    table = tables.cosignatures
    for message, right in ((cosigned_message(text, TIMESTAMP), True), (b"something else", False)):
        line = cosignature(witness.key, TIMESTAMP, witness.signer.sign(message)).line
        known.deps.transparency.add_cosignature(*place, name=witness.key.name, line=line, timestamp=TIMESTAMP)
        assert verified(known).intact == right
        known.backend.tamper(without(table, known, table.c.size == last.size))
