"""Attacks by hand in the databases, by somebody who has every right there and knows this code: each is found, and the
event that it was done to is named.

What is done is done consistently: whoever changes a row also rebuilds what depends on it, as far as that takes no key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from keyvault import tables as vault_tables
from ledger.domain.checkpoints import Checkpoint
from ledger.domain.encoding import leaf_of
from ledger.domain.events import RecordedEvent, Role, SealedPart
from ledger.domain.key_windows import Shape
from ledger.domain.merkle import encode_frontier, extend_frontier, hash_leaf, root_of
from ledger.domain.names import SUBJECT_ERASED
from ledger.services.counting.filling import step
from ledger.services.proving.publishing import log_key, publish
from ledger.storage import tables
from tests.support import rows
from tests.support.ledgers import Ledger, a_fact, a_visit

ERASED_AT = 6
SIZE = 11
VICTIM = 4
"""A visit of patient:B; its neighbours are of others."""

Named = set[tuple[int, int, str | None]]
"""Position, last position, verdict."""


@pytest.fixture
def target(ledger: Ledger) -> Ledger:
    """Eleven events, one of them an erasure, all of them published."""
    ledger.append(a_visit("A"), a_fact(), a_visit("C", actor="group:L"), a_visit("A"), a_visit("B"), a_fact())
    ledger.erase("patient:A")
    ledger.append(a_visit("B"), a_fact(), a_visit("C"), a_visit("B"))
    assert ledger.size() == SIZE
    publish(ledger.deps, ledger.ledger_id, at_least=SIZE)
    ledger.assert_intact()
    return ledger


def of(table: sa.Table, make: Callable[[sa.Table], Any], ledger: Ledger, *conditions: Any) -> Any:
    """A select, update or delete of rows of this ledger."""
    return make(table).where(table.c.ledger_id == ledger.ledger_id, *conditions)


def write_log(ledger: Ledger, events: list[RecordedEvent]) -> None:
    """Put another log in place of the ledger's: rows, leaf hashes, keys, roots of erasures and head fit together."""
    size = 0
    frontier: tuple[bytes, ...] = ()
    statements = [of(table, sa.delete, ledger) for table in (tables.events, tables.event_keys, tables.erasure_roots)]
    for position, event in enumerate(events):
        event = replace(event, position=position)
        event = replace(event, leaf_hash=hash_leaf(leaf_of(event)))
        before = root_of(frontier)
        size, frontier = extend_frontier(size, frontier, [event.leaf_hash])
        statements.append(sa.insert(tables.events).values(rows.event_row(event)))
        statements += [sa.insert(tables.event_keys).values(row) for row in rows.key_rows(event)]
        if event.envelope.event_type == SUBJECT_ERASED:
            kept = {"erasure_id": event.envelope.event_id, "root": root_of(frontier), "root_before": before}
            statements.append(sa.insert(tables.erasure_roots).values(ledger_id=ledger.ledger_id, **kept))
    head = {"size": size, "frontier": encode_frontier(frontier), "last_recorded_at": events[-1].recorded_at}
    ledger.backend.tamper(*statements, of(tables.heads, sa.update, ledger).values(head))


def forget_published(ledger: Ledger, size: int) -> None:
    """Take the checkpoints above a size out of the database, as a restored backup would."""
    above = tables.checkpoints.c.size > size
    ledger.backend.tamper(of(tables.checkpoints, sa.delete, ledger, above))


def at(column: sa.Column[int], position: int) -> sa.ColumnElement[bool]:
    """At one position."""
    return column == position


def delete_row(ledger: Ledger, position: int, *others: sa.Table) -> None:
    """Delete an event, and what is kept of it elsewhere."""
    for table in (tables.events, *others):
        ledger.backend.tamper(of(table, sa.delete, ledger, at(table.c.position, position)))


def flip(event: RecordedEvent) -> RecordedEvent:
    """Another ciphertext."""
    part = event.parts[0]
    sealed = part.sealed[:-1] + bytes((part.sealed[-1] ^ 1,))
    return replace(event, parts=(replace(part, sealed=sealed), *event.parts[1:]))


def with_envelope(event: RecordedEvent, **fields: Any) -> RecordedEvent:
    """Another envelope."""
    return replace(event, envelope=replace(event.envelope, **fields))


def with_key(event: RecordedEvent, key_id: bytes) -> RecordedEvent:
    """Its first part under another key."""
    return replace(event, parts=(replace(event.parts[0], key_id=key_id), *event.parts[1:]))


def rewrite(ledger: Ledger, position: int, change: Callable[[RecordedEvent], RecordedEvent]) -> None:
    """Change an event and all that follows from it."""
    log = ledger.recorded()
    log[position] = change(log[position])
    write_log(ledger, log)


def swap(ledger: Ledger) -> None:
    """Two rows change places, keys and all."""
    for old, new in ((VICTIM, 99), (8, VICTIM), (99, 8)):
        for table in (tables.events, tables.event_keys):
            here = at(table.c.position, old)
            ledger.backend.tamper(of(table, sa.update, ledger, here).values(position=new))


def cut(ledger: Ledger, size: int) -> None:
    """The log as it was at an earlier size, whole and fitting."""
    write_log(ledger, ledger.recorded()[:size])
    late = tables.shredded_keys.c.position >= size
    ledger.backend.tamper(of(tables.shredded_keys, sa.delete, ledger, late))


def restore(ledger: Ledger, size: int) -> None:
    """An old backup of the ledger database: it does not know the checkpoints that came later."""
    cut(ledger, size)
    forget_published(ledger, size)


def without(ledger: Ledger, position: int) -> None:
    """An event taken out, the gap closed, and all rebuilt."""
    log = ledger.recorded()
    del log[position]
    write_log(ledger, log)


def insert(ledger: Ledger) -> None:
    """A copy of an event put in, all behind it renumbered, and all rebuilt; versions are made to fit."""
    log = ledger.recorded()
    forged = replace(with_envelope(log[5], event_id=UUID(int=99), stream_ref=b"n" * 16), stream_version=1)
    write_log(ledger, [*log[:9], forged, *log[9:]])


def renumber(ledger: Ledger) -> None:
    """Two neighbours of different streams in the other order, and all rebuilt."""
    log = ledger.recorded()
    log[8], log[9] = (replace(log[9], recorded_at=log[8].recorded_at), replace(log[8], recorded_at=log[9].recorded_at))
    write_log(ledger, log)


def sign_falsely(ledger: Ledger) -> None:
    """The log rebuilt, and the stored checkpoint made to fit it, which takes a key that is not there."""
    rewrite(ledger, VICTIM, lambda event: replace(event, recorded_by=UUID(int=7)))
    root = root_of(ledger.deps.store.head(ledger.ledger_id).frontier)
    key = log_key(ledger.deps, ledger.ledger_id)
    note = Checkpoint(key.name, SIZE, root).text + f"\n— {key.name} AAAAAAAA\n"
    ledger.backend.tamper(of(tables.checkpoints, sa.update, ledger).values(root=root, note=note))


def forge_shredded(ledger: Ledger) -> None:
    """A living key called dead, which hides that person's parts from readers."""
    row = {"key_id": ledger.key_of("patient:B"), "position": 2, "erasure_id": UUID(int=5)}
    ledger.backend.execute(sa.insert(tables.shredded_keys).values(ledger_id=ledger.ledger_id, **row))


def forge_fence(ledger: Ledger) -> None:
    """A fence in the key vault for a living key."""
    row = {
        "key_id": ledger.key_of("patient:C"),
        "ledger_id": ledger.ledger_id,
        "subject_ref": ledger.subject_ref("patient:C"),
        "purpose": "",
        "generation": 1,
        "shredded_at": 1,
        "erasure_id": UUID(int=5),
        "epoch": 1,
    }
    ledger.backend.vault_execute(sa.insert(vault_tables.fences).values(row))


def in_vault(ledger: Ledger, table: sa.Table, *conditions: Any) -> None:
    """Delete rows of the key vault, whatever its triggers say."""
    alter_vault(ledger, table, of(table, sa.delete, ledger, *conditions))


def alter_vault(ledger: Ledger, table: sa.Table, statement: Any) -> None:
    """Execute a statement on a table of the key vault, whatever its triggers say."""
    with ledger.backend.vault.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
            connection.execute(statement)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")
            return
        triggers = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table.name}'"
        kept = connection.exec_driver_sql(triggers).all()
        for trigger in kept:
            connection.exec_driver_sql(f"DROP TRIGGER {trigger.name}")
        connection.execute(statement)
        for trigger in kept:
            connection.exec_driver_sql(trigger.sql)


def undo_erasure(ledger: Ledger) -> None:
    """Every trace of an erasure taken out of the ledger's database, and all rebuilt."""
    without(ledger, ERASED_AT)
    ledger.backend.tamper(of(tables.shredded_keys, sa.delete, ledger))


def misuse_dead_key(ledger: Ledger) -> None:
    """A further event under a key that was shredded, as if nothing had been, and all rebuilt."""
    log = ledger.recorded()
    again = replace(with_envelope(log[3], event_id=UUID(int=98)), stream_version=3, recorded_at=log[-1].recorded_at)
    write_log(ledger, [*log, again])


def fake_erasure(ledger: Ledger) -> None:
    """An erasure of a living person that nobody ordered, written into the log and the record of dead keys."""
    log = ledger.recorded()
    erased = with_envelope(log[ERASED_AT], event_id=UUID(int=97), stream_ref=UUID(int=97).bytes)
    part = SealedPart(Role.SHREDDED, ledger.key_of("patient:B"), b"")
    forged = replace(erased, parts=(erased.parts[0], part), recorded_at=log[-1].recorded_at)
    write_log(ledger, [*log, forged])
    row = {"key_id": part.key_id, "position": SIZE, "erasure_id": UUID(int=97)}
    ledger.backend.execute(sa.insert(tables.shredded_keys).values(ledger_id=ledger.ledger_id, **row))


def bring_key_back(ledger: Ledger) -> None:
    """The wrapped key of an erased person, out of a backup, beside its fence."""
    with ledger.backend.vault.engine.begin() as connection:
        columns = vault_tables.subject_keys.c
        living = sa.select(vault_tables.subject_keys).where(columns.key_id == ledger.key_of("patient:B"))
        row = dict(connection.execute(living).mappings().one())
        fence = connection.execute(of(vault_tables.fences, sa.select, ledger)).mappings().one()
    row.update({name: fence[name] for name in ("key_id", "subject_ref", "purpose", "generation", "epoch")})
    ledger.backend.vault_execute(sa.insert(vault_tables.subject_keys).values(row))


def rewrite_fence(ledger: Ledger) -> None:
    """A fence said to be another erasure's."""
    update = of(vault_tables.fences, sa.update, ledger).values(erasure_id=UUID(int=77))
    alter_vault(ledger, vault_tables.fences, update)


def forge_window(ledger: Ledger) -> None:
    """What a person's events are counted from, taken from another ledger, where it was sealed for another number."""
    shape = Shape(window=4, step=4, stretch=1, fewest=1)
    other = ledger.backend.new_ledger()
    other.append(*(a_visit("B") for _ in range(4)))
    for one in (ledger, other):
        step(one.deps, one.ledger_id, UUID(int=1), shape)
    ledger.assert_intact()
    (window,) = other.deps.derived.key_windows.key_windows_in(other.ledger_id, (None, None), None, 9)
    mine = tables.key_windows.c.key_id == ledger.key_of("patient:C")
    ledger.backend.execute(of(tables.key_windows, sa.update, ledger, mine).values(sealed=window.sealed))


@dataclass(frozen=True)
class Attack:
    """What is done, and what has to be named."""

    do: Callable[[Ledger], object]
    named: Named


def edit(**columns: Any) -> Callable[[Ledger], None]:
    """Change columns of one row, and nothing else."""
    return lambda ledger: ledger.edit(VICTIM, **columns)


TAMPERED: Named = {(VICTIM, VICTIM, "tampered")}

ATTACKS: dict[str, Attack] = {
    "edit a payload": Attack(lambda one: one.put(VICTIM, flip(one.recorded()[VICTIM]), new_leaf=False), TAMPERED),
    "edit a payload, leaf hash and all": Attack(lambda one: rewrite(one, VICTIM, flip), TAMPERED),
    "edit a type": Attack(edit(event_type="Other"), TAMPERED),
    "edit a type, leaf hash and all": Attack(
        lambda one: rewrite(one, VICTIM, lambda event: with_envelope(event, event_type="Other")), TAMPERED
    ),
    "edit a time": Attack(edit(occurred_at=5), TAMPERED),
    "edit when it was recorded": Attack(edit(recorded_at=5), {*TAMPERED, (VICTIM, VICTIM, None)}),
    "edit who recorded it, leaf hash and all": Attack(
        lambda one: rewrite(one, VICTIM, lambda event: replace(event, recorded_by=UUID(int=7))),
        {(0, ERASED_AT, "tampered")},
    ),
    "swap two rows": Attack(swap, {(VICTIM, VICTIM, "tampered"), (8, 8, "tampered")}),
    "delete the last row": Attack(lambda one: delete_row(one, 10), {(10, 10, "missing row"), (10, 10, None)}),
    "delete the last row, head and all": Attack(lambda one: cut(one, 10), {(10, 10, None)}),
    "truncate to an older size": Attack(lambda one: cut(one, 9), {(9, 10, None)}),
    "truncate to before an erasure": Attack(
        lambda one: cut(one, 5), {(5, 10, None), (0, 0, "missing key"), (3, 3, "missing key"), (0, 3, None)}
    ),
    "restore an old backup": Attack(lambda one: restore(one, 9), {(9, 10, None)}),
    "delete a row in the middle": Attack(
        lambda one: delete_row(one, VICTIM), {(VICTIM, VICTIM, "missing row"), (VICTIM, VICTIM, None)}
    ),
    "delete a row in the middle, keys and all": Attack(
        lambda one: delete_row(one, VICTIM, tables.event_keys), {(VICTIM, VICTIM, "missing row")}
    ),
    "delete a row in the middle and close the gap": Attack(
        lambda one: without(one, VICTIM), {(6, 6, None), (10, 10, None), (0, ERASED_AT, "tampered")}
    ),
    "insert a row, and rebuild all": Attack(insert, {(9, 9, "tampered")}),
    "renumber, and rebuild all": Attack(renumber, {(ERASED_AT + 1, SIZE - 1, "tampered")}),
    "replace a leaf hash": Attack(edit(leaf_hash=b"x" * 32), TAMPERED),
    "replace a leaf hash, and sign falsely": Attack(sign_falsely, {(0, SIZE - 1, None), (0, SIZE - 1, "tampered")}),
    "change a key id": Attack(
        lambda one: rewrite(one, VICTIM, lambda event: with_key(event, b"k" * 32)),
        {(VICTIM, VICTIM, "missing key"), (0, ERASED_AT, "tampered")},
    ),
    "change a key id to another person's": Attack(
        lambda one: rewrite(one, VICTIM, lambda event: with_key(event, one.key_of("patient:C"))), TAMPERED
    ),
    "change a key id to a dead one": Attack(
        lambda one: rewrite(one, 7, lambda event: with_key(event, one.key_of("patient:A"))),
        {(7, 7, "erased"), (ERASED_AT + 1, SIZE - 1, "tampered")},
    ),
    "delete a shredded key": Attack(
        lambda one: one.backend.tamper(of(tables.shredded_keys, sa.delete, one)),
        {(0, 0, "missing key"), (3, 3, "missing key"), (0, 3, None), (ERASED_AT, ERASED_AT, None)},
    ),
    "forge a shredded key": Attack(forge_shredded, {(2, 2, None)}),
    "forge an erasure": Attack(fake_erasure, {(SIZE, SIZE, "tampered"), (SIZE, SIZE, None)}),
    "delete a fence": Attack(lambda one: in_vault(one, vault_tables.fences), {(ERASED_AT, ERASED_AT, None)}),
    "forge a fence": Attack(forge_fence, {(2, 2, "missing key"), (9, 9, "missing key"), (2, 9, None)}),
    "rewrite a fence": Attack(rewrite_fence, {(ERASED_AT, ERASED_AT, None)}),
    "bring a key back": Attack(bring_key_back, {(ERASED_AT, ERASED_AT, None)}),
    "delete a key": Attack(
        lambda one: in_vault(
            one, vault_tables.subject_keys, vault_tables.subject_keys.c.key_id == one.key_of("patient:C")
        ),
        {(2, 2, "missing key"), (9, 9, "missing key")},
    ),
    "delete a SubjectErased": Attack(
        lambda one: delete_row(one, ERASED_AT), {(ERASED_AT, ERASED_AT, "missing row"), (ERASED_AT, ERASED_AT, None)}
    ),
    "delete a SubjectErased, and rebuild all": Attack(
        undo_erasure,
        {
            (0, 0, "missing key"),
            (3, 3, "missing key"),
            (0, 3, None),
            (0, 9, None),
            (0, ERASED_AT, "tampered"),
        },
    ),
    "edit a kept root": Attack(
        lambda one: one.backend.tamper(of(tables.erasure_roots, sa.update, one).values(root=b"x" * 32)),
        {(ERASED_AT, ERASED_AT, None)},
    ),
    "edit a kept root of before": Attack(
        lambda one: one.backend.tamper(of(tables.erasure_roots, sa.update, one).values(root_before=b"x" * 32)),
        {(0, ERASED_AT - 1, "tampered")},
    ),
    "use a key after it was shredded": Attack(misuse_dead_key, {(SIZE, SIZE, "erased")}),
    "drop a row of event_keys": Attack(
        lambda one: one.backend.tamper(
            of(tables.event_keys, sa.delete, one, at(tables.event_keys.c.position, 2), tables.event_keys.c.role == 2)
        ),
        {(2, 2, None)},
    ),
    "forge a window of a key": Attack(forge_window, {(0, 3, None)}),
    "set the head back": Attack(
        lambda one: one.backend.tamper(of(tables.heads, sa.update, one).values(size=10)), {(10, 10, None)}
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_found_and_names_the_event(target: Ledger, name: str) -> None:
    """I10: never a good report; the right position with the right verdict; and no other event is accused."""
    ATTACKS[name].do(target)
    report = target.verify()
    named = {(finding.position, finding.last, finding.verdict) for finding in report.findings}
    assert not report.intact
    assert ATTACKS[name].named <= named
    assert {one for one in named if one[2] is not None} == {one for one in ATTACKS[name].named if one[2] is not None}


@pytest.fixture
def tiled(ledger: Ledger) -> Ledger:
    """A ledger with a stored tile."""
    ledger.append(*(a_fact() for _ in range(260)))
    publish(ledger.deps, ledger.ledger_id)
    ledger.assert_intact()
    return ledger


def test_a_stored_tile_tells_which_row_was_rebuilt_with_all_that_follows(tiled: Ledger) -> None:
    """The checkpoint says that something is another; the tile says what."""
    rewrite(tiled, 100, lambda event: replace(event, recorded_by=UUID(int=7)))
    report = tiled.verify()
    named = {(finding.position, finding.last, finding.verdict) for finding in report.findings}
    assert named == {(0, 259, "tampered"), (100, 100, None)}


@pytest.mark.parametrize("column", ["hashes", "root"])
def test_an_altered_tile_is_found_and_accuses_no_event(tiled: Ledger, column: str) -> None:
    """Proofs are made from tiles."""
    (tile,) = tiled.deps.store.full_tiles(tiled.ledger_id, 0, 0, 1)
    altered = b"x" * 32 + (tile.hashes[32:] if column == "hashes" else b"")
    tiled.backend.tamper(of(tables.tiles, sa.update, tiled).values({column: altered}))
    report = tiled.verify()
    named = {(finding.position, finding.last, finding.verdict) for finding in report.findings}
    assert named == ({(0, 0, None)} if column == "hashes" else {(0, 255, None)})
    assert report.counts["intact"] == 260
