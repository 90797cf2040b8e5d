"""Rotating and destroying epochs: what lives stays readable, what is dead stays dead, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from keyvault import database, rotation, store, tables
from keyvault.errors import BusyError, NotInitialisedError, ProviderError
from keyvault.keyring import Keyring
from keyvault.migrate import migrate
from keyvault.store import KeyRow
from keyvault.vault import Vault
from tests.contract.vault_world import (
    LEDGER,
    World,
    at_once,
    erase,
    key_of,
    postgresql_world,
    service_role,
    set_up,
    sqlite_world,
    status_of,
    view_of,
)
from tests.support.postgres import PostgresCluster

ROUNDS = int(os.environ.get("AUDIT_LEDGER_TEST_ROUNDS", "4"))
PAUSE_SECONDS = 0.01
"""Between the turns of a writer or reader: those who never rest leave a rotation on SQLite hardly a turn."""


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A database with a vault that is ready."""
    if request.param == "sqlite":
        with sqlite_world(tmp_path) as world:
            set_up(world)
            yield world
    else:
        with postgresql_world(request.getfixturevalue("postgres"), tmp_path) as world:
            set_up(world)
            yield world


@pytest.fixture
def vault(world: World) -> Vault:
    """A vault that is ready."""
    return world.open()


class Watcher:
    """Follows a rotation, keeps what it is told, and does something between the batches."""

    def __init__(self, between: Callable[[], bool] = lambda: True) -> None:
        self.rows = 0
        self.moved = 0
        self.damaged: list[tuple[str, int]] = []
        self.goes_on = between

    def begins(self, _epoch: int, rows: int) -> None:
        """Keep it."""
        self.rows = rows

    def moves(self, rows: int) -> None:
        """Keep it."""
        self.moved += rows

    def finds_damaged(self, what: str, epoch: int) -> None:
        """Keep it."""
        self.damaged.append((what, epoch))


def epochs_of(world: World, table: str = "subject_keys") -> set[int]:
    """The epochs that rows are under."""
    with database.reading(world.admin()) as connection:
        return set(connection.execute(text(f"SELECT epoch FROM {table}")).scalars())


def states(vault: Vault) -> dict[int, str]:
    """Every epoch's state."""
    return {row.epoch: row.state for row in vault.epochs.overview().rows}


def sealed_by(vault: Vault, name: str) -> tuple[bytes, bytes]:
    """The key id of a subject, and something that is sealed under its key."""
    reservation = vault.reserve(LEDGER, {}, [(name, "")], mint=True)
    key = reservation.keys[reservation.subjects[name], ""]
    return key.key_id, key.seal(name.encode(), b"aad")


# Rotating


def test_after_a_rotation_everything_is_under_the_new_epoch_and_opens(world: World, vault: Vault) -> None:
    """Subjects' keys, the ledgers' own secrets and the service's signing key, for a reader without any memory too."""
    sealed = dict(sealed_by(vault, f"patient:{number}") for number in range(20))
    signature_before = vault.verifying_key(LEDGER)
    journal_key = vault.journal_verifying_key()
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert (outcome.epoch, outcome.begun, outcome.finished, outcome.damaged) == (2, True, True, 0)
    assert outcome.rewrapped == 3 * 20 + 2 * 3 + 1
    assert epochs_of(world) == epochs_of(world, "ledger_secrets") == {2}
    assert states(vault) == {1: "retiring", 2: "current"}
    later = world.open()
    for key_id, part in sealed.items():
        view = view_of(later, key_id)
        assert view is not None
        assert view.key is not None
        assert view.key.open(part, b"aad").startswith(b"patient:")
    assert (later.verifying_key(LEDGER), later.journal_verifying_key()) == (signature_before, journal_key)
    assert [entry.kind for entry in world.journal()] == ["epoch-created"] * 2
    assert world.journal()[1].fields == {"epoch": 2}


def test_a_wrap_is_bound_to_its_epoch(world: World, vault: Vault) -> None:
    """The rewrapped row under another epoch's number does not open."""
    key_id = key_of(vault, "patient:A")
    vault.epochs.rotate()
    world.execute("UPDATE subject_keys SET epoch = 1")
    assert status_of(vault, key_id) == "damaged"


def test_proof_of_emptiness_is_noted(vault: Vault) -> None:
    """``retired_at`` is set, and no row counts as damaged."""
    key_of(vault, "patient:A")
    vault.epochs.rotate()
    overview = vault.epochs.overview()
    retired = overview.rows[0]
    assert retired.retired_at is not None
    assert retired.rewrapped_at is not None
    assert (retired.damaged, retired.destroyed_at, retired.gone_at) == (0, None, None)
    assert overview.wrapped == {2: 10}


def test_several_batches_are_told_one_after_the_other(world: World, vault: Vault, monkeypatch: Any) -> None:
    """Whoever follows learns how much there is and how far it is."""
    monkeypatch.setattr(rotation, "BATCH", 3)
    for number in range(10):
        key_of(vault, f"patient:{number}")
    watcher = Watcher()
    vault.epochs.rotate(follower=watcher)
    assert (watcher.rows, watcher.moved, watcher.damaged) == (37, 37, [])
    assert epochs_of(world) == {2}


def test_a_stopped_rotation_is_finished_by_the_next(world: World, vault: Vault, monkeypatch: Any) -> None:
    """I12: no epoch is made twice, and what was done stays done."""
    monkeypatch.setattr(rotation, "BATCH", 2)
    for number in range(7):
        key_of(vault, f"patient:{number}")
    turns = itertools.count()
    outcome = vault.epochs.rotate(follower=Watcher(lambda: next(turns) < 2))
    assert outcome is not None
    assert (outcome.finished, outcome.epoch) == (False, 2)
    assert epochs_of(world) == {1, 2}
    assert vault.epochs.overview().rows[0].rewrapped_at is None
    again = world.open().epochs.rotate()
    assert again is not None
    assert (again.begun, again.epoch, again.finished) == (False, 2, True)
    assert epochs_of(world) == {2}
    assert states(vault) == {1: "retiring", 2: "current"}


def test_a_rotation_on_schedule_begins_only_when_it_is_due(vault: Vault) -> None:
    """Not since a time before the current epoch, or at it; behind it, once."""
    began = vault.epochs.overview().rows[0].current_at
    assert began is not None
    assert vault.epochs.rotate(not_since=began) is None
    assert states(vault) == {1: "current"}
    outcome = vault.epochs.rotate(not_since=began + 1)
    assert outcome is not None
    assert outcome.begun
    assert vault.epochs.rotate(not_since=began + 1) is None


def test_a_schedule_finishes_what_was_interrupted_even_when_nothing_is_due(vault: Vault) -> None:
    """I12: an interrupted rotation does not wait for the next one's day."""
    key_of(vault, "patient:A")
    vault.epochs.rotate(follower=Watcher(lambda: False))
    outcome = vault.epochs.rotate(not_since=0)
    assert outcome is not None
    assert outcome.finished
    assert vault.epochs.rotate(not_since=0) is None


def test_a_vault_without_an_epoch_says_what_to_do(tmp_path: Path) -> None:
    """Before ``init`` there is nothing to rotate."""
    with sqlite_world(tmp_path) as world:
        migrate(world.admin(), service_role(world))
        with pytest.raises(NotInitialisedError, match="init"):
            world.open().epochs.rotate()


def test_of_two_that_rotate_at_once_one_is_told_to_wait(world: World, vault: Vault) -> None:
    """While a rotation is under way another process refuses at once, and changes nothing."""
    key_of(vault, "patient:A")
    other = world.open()

    def try_it() -> bool:
        before = states(vault)
        with pytest.raises(BusyError, match="wait"):
            other.epochs.rotate()
        assert states(vault) == before
        return True

    outcome = vault.epochs.rotate(follower=Watcher(try_it))
    assert outcome is not None
    assert outcome.finished
    assert other.epochs.rotate() is not None


def test_even_without_the_lock_two_rotations_do_no_harm(world: World, monkeypatch: Any) -> None:
    """Each transaction holds by itself: the lock only saves work."""
    for number in range(30):
        key_of(world.open(), f"patient:{number}")
    monkeypatch.setattr(database, "only_one", lambda _: threading.Lock())
    monkeypatch.setattr(rotation, "BATCH", 4)
    vaults = [world.open() for _ in range(3)]
    at_once(*(partial(vault.epochs.rotate) for vault in vaults))
    newest = max(states(vaults[0]))
    assert epochs_of(world) == epochs_of(world, "ledger_secrets") == {newest}
    assert list(states(vaults[0]).values()).count("current") == 1
    assert all(status_of(world.open(), row[0]) == "living" for row in world.rows("subject_keys"))


def test_a_keeper_that_has_to_be_waited_for_is_asked_many_things_at_once(
    world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service in the network is; and damage is still told from a keeper that fails."""
    key_ids = [key_of(vault, f"patient:{number}") for number in range(20)]
    world.execute("UPDATE subject_keys SET wrapped_dek = :junk WHERE key_id = :id", junk=b"\x01junk", id=key_ids[0])
    provider = vault._keyring.provider
    wrap, most = provider.wrap, [0]
    inside: list[int] = []

    def take_time(epoch: int, plaintext: bytes, aad: bytes) -> bytes:
        inside.append(epoch)
        most[0] = max(most[0], len(inside))
        time.sleep(0.02)
        inside.pop()
        return wrap(epoch, plaintext, aad)

    monkeypatch.setattr(type(provider), "place", None)
    monkeypatch.setattr(provider, "wrap", take_time)
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert (outcome.rewrapped, outcome.damaged) == (19 + 2 * 20 + 7, 1)
    assert most[0] > 4


# While the service goes on


def test_nothing_is_lost_and_nothing_comes_back_while_all_go_on(world: World, monkeypatch: Any) -> None:
    """I6 to I9: writers, readers and erasers meet rotations and destructions; every key that lives opens at every
    moment, and none that was shredded ever does."""
    monkeypatch.setattr(rotation, "BATCH", 5)
    crowd = Crowd(world)
    crowd.run(rotations=ROUNDS)
    assert crowd.reads > 0
    assert crowd.gone
    checker = world.open()
    current = max(states(checker))
    assert set(crowd.minted) - set(crowd.gone) == {row[0] for row in world.rows("subject_keys")}
    assert epochs_of(world) <= {current}
    for key_id, part in crowd.minted.items():
        view = view_of(checker, key_id)
        assert view is not None
        if key_id in crowd.gone:
            assert view.status == "fenced"
        else:
            assert view.key is not None
            assert view.key.open(part, b"aad")


class Crowd:
    """Writers, readers and erasers of one ledger, each with a vault of its own, as other processes have it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stop = threading.Event()
        self.numbers = itertools.count(1)
        self.names: dict[str, bytes] = {}
        self.minted: dict[bytes, bytes] = {}
        self.gone: dict[bytes, str] = {}
        self.doomed: set[bytes] = set()
        self.lock = threading.Lock()
        self.reads = 0

    def run(self, rotations: int) -> None:
        """Until so many epochs have come and gone."""
        with ThreadPoolExecutor(6) as pool:
            works: list[Future[None]] = [
                pool.submit(work) for work in (self._write, self._write, self._read, self._read, self._erase)
            ]
            try:
                operator = self.world.open()
                for epoch in range(1, rotations + 1):
                    outcome = operator.epochs.rotate()
                    assert outcome is not None
                    assert outcome.finished
                    operator.epochs.note_backup(self.world.clock(), "attested")
                    destroy(operator, epoch)
            finally:
                self.stop.set()
            for work in works:
                work.result()

    def _write(self) -> None:
        vault = self.world.open()
        while not self.stop.is_set():
            name = f"patient:{next(self.numbers)}"
            key_id, part = sealed_by(vault, name)
            with self.lock:
                self.names[name] = key_id
                self.minted[key_id] = part
            self.stop.wait(PAUSE_SECONDS)

    def _read(self) -> None:
        chance = random.Random(1)
        vault = self.world.open()
        while not self.stop.is_set():
            with self.lock:
                known = list(self.minted.items())
                gone_before = set(self.gone)
            for key_id, part in chance.sample(known, min(len(known), 20)):
                view = vault.look_up_keys(LEDGER, [key_id]).get(key_id)
                assert view is not None
                if key_id in gone_before:
                    assert view.status == "fenced"
                elif view.key is not None:
                    assert view.key.open(part, b"aad")
                else:
                    with self.lock:
                        assert key_id in self.doomed, view.status
                    assert view.status in ("fenced", "restricted")
                self.reads += 1
            self.stop.wait(PAUSE_SECONDS)

    def _erase(self) -> None:
        vault = self.world.open()
        number = itertools.count(1)
        while not self.stop.is_set():
            with self.lock:
                alive = [name for name, key_id in self.names.items() if key_id not in self.doomed]
            if not alive:
                time.sleep(0.01)
                continue
            name = random.choice(alive)
            with self.lock:
                self.doomed.add(self.names[name])
            erase(vault, name, next(number))
            with self.lock:
                self.gone[self.names[name]] = name


def destroy(vault: Vault, epoch: int) -> None:
    """Destroy an epoch; the role of the test sees no replicas, which has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keyvault.replicas.require_caught_up", lambda _: None)
        vault.epochs.destroy(epoch)


def test_a_key_that_is_shredded_between_reading_and_rewrapping_stays_gone(
    world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8: the rotation has its new wrap in hand, and puts it nowhere."""
    key_id, other = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    eraser = world.open()
    make = Keyring.rewrapped_key

    def erase_then_make(keyring: Keyring, row: KeyRow, epoch: int) -> KeyRow:
        if row.key_id == key_id:
            erase(eraser, "patient:A")
        return make(keyring, row, epoch)

    monkeypatch.setattr(Keyring, "rewrapped_key", erase_then_make)
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert outcome.finished
    assert [row[0] for row in world.rows("subject_keys")] == [other]
    assert status_of(world.open(), key_id) == "fenced"


def test_a_rotation_does_not_wait_for_a_row_that_others_hold(
    postgres: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the others and comes back to it: waiting in line with erasures could end in a deadlock."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        key_ids = [key_of(vault, f"patient:{number}") for number in range(3)]
        passes = itertools.count(1)
        prove = rotation._prove

        def see(*arguments: Any) -> bool:
            if next(passes) == 1:
                assert [row[0] for row in world.rows("subject_keys") if row[6] == 1] == [key_ids[1]]
                holder.rollback()
            return prove(*arguments)

        monkeypatch.setattr(rotation, "_prove", see)
        with world.admin().connect() as holder:
            holder.execute(
                text("SELECT key_id FROM subject_keys WHERE key_id = :id FOR UPDATE"), {"id": key_ids[1]}
            ).all()
            outcome = vault.epochs.rotate()
        assert outcome is not None
        assert outcome.finished
        assert next(passes) == 3
        assert epochs_of(world) == {2}


def test_a_fence_notes_the_epoch_that_began_while_its_keys_were_being_shredded(
    postgres: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation may rewrap the key until the shredding holds its row: a fence that named the older epoch would call
    the erasure final while a copy is under the newer one. (SQLite has one writer at a time.)"""
    with postgresql_world(postgres, tmp_path) as world:
        vault, operator = set_up(world), world.open()
        key_id = key_of(vault, "patient:A")
        delete = store.delete_keys

        def rotate_then_delete(*arguments: Any) -> None:
            operator.epochs.rotate()
            assert [row[6] for row in world.rows("subject_keys")] == [2]
            delete(*arguments)

        monkeypatch.setattr(store, "delete_keys", rotate_then_delete)
        entry = erase(vault, "patient:A")
        assert entry.epoch == 2
        assert [(row[0], row[7]) for row in world.rows("fences")] == [(key_id, 2)]
        assert world.rows("subject_keys") == []


def test_writers_that_mint_all_the_time_do_not_keep_a_rotation_waiting(
    postgres: PostgresCluster, tmp_path: Path
) -> None:
    """Row locks alone would: whoever takes a row FOR SHARE overtakes the one that waits to change it."""
    with postgresql_world(postgres, tmp_path) as world:
        set_up(world)
        stop, numbers = threading.Event(), itertools.count()

        def mint() -> None:
            vault = world.open()
            while not stop.is_set():
                key_of(vault, f"patient:{next(numbers)}")

        with ThreadPoolExecutor(12) as pool:
            works = [pool.submit(mint) for _ in range(12)]
            time.sleep(0.5)
            began = time.monotonic()
            try:
                outcome = world.open().epochs.rotate()
            finally:
                stop.set()
            for work in works:
                work.result()
        assert outcome is not None
        assert outcome.finished
        assert time.monotonic() - began < 9  # a lock is waited for no longer than 10 seconds


# Rows that do not unwrap


def test_a_damaged_row_is_named_and_left_and_the_others_are_rewrapped(world: World, vault: Vault) -> None:
    """The epoch is then not empty, and says how many rows are left."""
    bad, good = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    world.execute("UPDATE subject_keys SET wrapped_dek = :junk WHERE key_id = :id", junk=b"\x01junk", id=bad)
    watcher = Watcher()
    outcome = vault.epochs.rotate(follower=watcher)
    assert outcome is not None
    assert (outcome.finished, outcome.left, outcome.damaged) == (True, {1: 1}, 1)
    assert watcher.damaged == [(f"the key {bad.hex()}", 1)]
    assert (status_of(vault, bad), status_of(vault, good)) == ("damaged", "living")
    row = vault.epochs.overview().rows[0]
    assert (row.damaged, row.retired_at) == (1, None)
    assert row.rewrapped_at is not None


def test_a_damaged_secret_is_named_and_left(world: World, vault: Vault) -> None:
    """A ledger's own secret is not thrown away either."""
    world.execute(
        "UPDATE ledger_secrets SET wrapped = :junk WHERE kind = 3 AND ledger_id = :id",
        junk=b"\x01junk",
        id=LEDGER if world.url.startswith("postgresql") else LEDGER.bytes,
    )
    watcher = Watcher()
    vault.epochs.rotate(follower=watcher)
    assert watcher.damaged == [(f"the secret of kind 3 of the ledger {LEDGER}", 1)]
    assert epochs_of(world, "ledger_secrets") == {1, 2}
    assert vault.verifying_key(LEDGER)


def test_a_wrap_of_another_key_is_never_made_to_look_whole(world: World, vault: Vault) -> None:
    """A row that holds the wrap of another row's key stays damaged."""
    first, second = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    world.execute(
        "UPDATE subject_keys SET wrapped_dek = (SELECT wrapped_dek FROM subject_keys WHERE key_id = :b) "
        "WHERE key_id = :a",
        a=first,
        b=second,
    )
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert outcome.damaged == 1
    assert status_of(vault, first) == "damaged"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE subject_keys SET wrapped_dek = 'text'",
        "UPDATE subject_keys SET purpose = x'ff'",
        "UPDATE subject_keys SET generation = 'x'",
        "UPDATE subject_keys SET key_id = 'short'",
    ],
)
def test_values_that_no_key_can_have_do_not_stop_a_rotation(tmp_path: Path, damage: str) -> None:
    """SQLite takes a value of any type from a hand."""
    with sqlite_world(tmp_path) as world:
        vault = set_up(world)
        key_of(vault, "patient:A")
        world.execute(damage)
        good = key_of(vault, "patient:B") if "key_id" in damage or "purpose" in damage else key_of(vault, "patient:C")
        outcome = vault.epochs.rotate()
        assert outcome is not None
        assert (outcome.finished, outcome.damaged) == (True, 1)
        assert status_of(vault, good) == "living"


def test_a_mended_row_is_rewrapped_by_the_next_rotation(world: World, vault: Vault) -> None:
    """And its epoch is then proven empty. A rotation that finds nothing more to do leaves the times as they are."""
    bad = key_of(vault, "patient:A")
    (before,) = (row[5] for row in world.rows("subject_keys"))
    world.execute("UPDATE subject_keys SET wrapped_dek = :junk", junk=b"\x01junk")
    vault.epochs.rotate()
    first = vault.epochs.overview().rows[0]
    vault.epochs.rotate()
    second = vault.epochs.overview().rows[0]
    assert (second.rewrapped_at, second.damaged, second.retired_at) == (first.rewrapped_at, 1, None)
    world.execute("UPDATE subject_keys SET wrapped_dek = :wrap", wrap=before)
    vault.epochs.rotate()
    third = vault.epochs.overview().rows[0]
    assert third.damaged == 0
    assert third.retired_at is not None
    assert third.rewrapped_at is not None
    assert first.rewrapped_at is not None
    assert third.rewrapped_at > first.rewrapped_at
    assert status_of(vault, bad) == "living"


def test_a_row_behind_a_fence_is_deleted_and_not_rewrapped(world: World, vault: Vault) -> None:
    """I8: a restored backup or a hand has brought it back."""
    key_id = key_of(vault, "patient:A")
    (row,) = world.rows("subject_keys")
    erase(vault, "patient:A")
    with database.writing(world.admin()) as connection:
        connection.execute(tables.subject_keys.insert(), [dict(zip(tables.subject_keys.c.keys(), row, strict=True))])
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert (outcome.finished, outcome.deleted, outcome.damaged) == (True, 1, 0)
    assert world.rows("subject_keys") == []
    assert status_of(vault, key_id) == "fenced"


def test_a_provider_that_fails_leaves_a_rotation_that_can_go_on(world: World, vault: Vault) -> None:
    """Nothing counts as damaged because its KEK cannot be reached."""
    key_of(vault, "patient:A")
    vault.epochs.rotate(follower=Watcher(lambda: False))
    kek = world.kek_folder / "epoch-1.kek"
    kek.rename(world.kek_folder / "away")
    with pytest.raises(ProviderError):
        world.open().epochs.rotate()
    assert vault.epochs.overview().rows[0].rewrapped_at is None
    (world.kek_folder / "away").rename(kek)
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert (outcome.finished, outcome.damaged) == (True, 0)
