"""Destroying an epoch: every reason to refuse, and what it does, on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from keyvault import database, epoch_store, replicas
from keyvault.errors import DamagedKeyError, EpochRefusedError, ProviderError
from keyvault.vault import Vault
from tests.contract.vault_world import (
    LEDGER,
    World,
    key_of,
    postgresql_world,
    service_role,
    set_up,
    sqlite_world,
    status_of,
    view_of,
)
from tests.support.postgres import PostgresCluster, Standby


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A database with a vault that is ready, and a role that may see the replicas."""
    if request.param == "sqlite":
        with sqlite_world(tmp_path) as world:
            set_up(world)
            yield world
    else:
        with postgresql_world(request.getfixturevalue("postgres"), tmp_path) as world:
            set_up(world)
            let_see_replicas(world)
            yield world


@pytest.fixture
def vault(world: World) -> Vault:
    """A vault that is ready."""
    return world.open()


def let_see_replicas(world: World) -> None:
    """What the refusal says to do."""
    world.execute(f'GRANT pg_read_all_stats TO "{service_role(world)}"')


def back_up(world: World, vault: Vault) -> None:
    """A backup that is newer than all there is."""
    vault.epochs.note_backup(world.clock(), "made")


def refusal(vault: Vault, epoch: int, **options: bool) -> str:
    """Why it may not be destroyed; nothing has changed then."""
    before = vault.epochs.overview()
    with pytest.raises(EpochRefusedError) as caught:
        vault.epochs.destroy(epoch, **options)
    assert before == vault.epochs.overview()
    return caught.value.reason


def test_a_destroyed_epoch_opens_nothing_and_the_living_open_as_before(world: World, vault: Vault) -> None:
    """An older copy of a row, with every KEK that still exists, is noise; the journal says why."""
    key_id = key_of(vault, "patient:A")
    (old,) = world.rows("subject_keys")
    vault.epochs.rotate()
    back_up(world, vault)
    row = vault.epochs.destroy(1)
    assert row.state == "destroyed"
    assert row.destroyed_at is not None
    assert row.gone_at is not None
    assert row.destroyed_at < row.gone_at
    assert status_of(world.open(), key_id) == "living"
    assert not (world.kek_folder / "epoch-1.kek").exists()
    world.execute("UPDATE subject_keys SET epoch = 1, wrapped_dek = :wrap", wrap=old[5])
    assert status_of(world.open(), key_id) == "damaged"
    last = world.journal()[-1]
    assert (last.kind, last.fields) == ("epoch-destroyed", {"epoch": 1})


def test_destroying_again_changes_nothing(world: World, vault: Vault) -> None:
    """Not even a line of the journal."""
    vault.epochs.rotate()
    back_up(world, vault)
    first = vault.epochs.destroy(1)
    lines = len(world.journal())
    assert vault.epochs.destroy(1) == first
    assert len(world.journal()) == lines


def test_a_kek_that_came_back_is_destroyed_again(world: World, vault: Vault) -> None:
    """And from then on it counts as gone, not from before."""
    vault.epochs.rotate()
    shutil.copy(world.kek_folder / "epoch-1.kek", world.folder / "copy")
    back_up(world, vault)
    first = vault.epochs.destroy(1)
    shutil.copy(world.folder / "copy", world.kek_folder / "epoch-1.kek")
    again = vault.epochs.destroy(1)
    assert first.gone_at is not None
    assert again.gone_at is not None
    assert again.gone_at > first.gone_at
    assert again.destroyed_at == first.destroyed_at
    assert not (world.kek_folder / "epoch-1.kek").exists()


def test_the_current_epoch_and_one_that_is_not_there_are_refused(vault: Vault) -> None:
    """Also a new one that a rotation has only begun."""
    assert refusal(vault, 1) == "in-use"
    assert refusal(vault, 2) == "unknown"


def test_an_epoch_that_is_being_prepared_is_refused(world: World, vault: Vault) -> None:
    """Its KEK is about to be needed."""
    world.execute("INSERT INTO epochs (epoch, provider, state, prepared_at) VALUES (2, 'file', 'preparing', 1)")
    back_up(world, vault)
    assert refusal(vault, 2) == "in-use"


def test_an_epoch_that_a_rotation_has_not_left_is_refused(world: World, vault: Vault) -> None:
    """Keys are still under it."""
    key_of(vault, "patient:A")
    vault.epochs.rotate(follower=Stopping())
    back_up(world, vault)
    assert refusal(vault, 1) == "not-rewrapped"


class Stopping:
    """Stops a rotation before its first batch."""

    def begins(self, _epoch: int, _rows: int) -> None:
        """Say nothing."""

    def moves(self, _rows: int) -> None:
        """Say nothing."""

    def finds_damaged(self, what: str, epoch: int) -> None:
        """Nothing is damaged here."""
        raise AssertionError(f"{what} under epoch {epoch}")

    def goes_on(self) -> bool:
        """Stop."""
        return False


def test_without_a_newer_backup_it_is_refused(world: World, vault: Vault) -> None:
    """One from before the rewrap does not count: it opens nothing once the KEK is gone."""
    key_of(vault, "patient:A")
    back_up(world, vault)
    vault.epochs.rotate()
    assert refusal(vault, 1) == "no-backup"
    rewrapped_at = vault.epochs.overview().rows[0].rewrapped_at
    assert rewrapped_at is not None
    vault.epochs.note_backup(rewrapped_at, "attested")
    assert refusal(vault, 1) == "no-backup"
    vault.epochs.note_backup(rewrapped_at + 1, "attested")
    assert vault.epochs.destroy(1).state == "destroyed"


def test_a_backup_from_before_the_rewrap_does_not_count_though_its_clock_was_ahead(world: World, vault: Vault) -> None:
    """Two machines need not agree about the time for that."""
    key_of(vault, "patient:A")
    vault.epochs.note_backup(world.clock() + 3_600_000_000, "made")
    vault.epochs.rotate()
    assert refusal(vault, 1) == "no-backup"


def test_rows_that_came_back_under_the_epoch_stop_it(world: World, vault: Vault) -> None:
    """The proof is made again under the lock; a rotation rewraps what came back."""
    key_id = key_of(vault, "patient:A")
    (old,) = world.rows("subject_keys")
    vault.epochs.rotate()
    back_up(world, vault)
    world.execute("UPDATE subject_keys SET epoch = 1, wrapped_dek = :wrap", wrap=old[5])
    assert refusal(vault, 1) == "not-empty"
    vault.epochs.rotate()
    assert refusal(vault, 1) == "no-backup"
    back_up(world, vault)
    assert vault.epochs.destroy(1).state == "destroyed"
    assert status_of(world.open(), key_id) == "living"


def test_damaged_keys_are_given_up_only_when_that_is_said(world: World, vault: Vault) -> None:
    """I9: what they seal is then unreadable, never erased and never a 503; others read and write as before."""
    bad, good = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    world.execute("UPDATE subject_keys SET wrapped_dek = :junk WHERE key_id = :id", junk=b"\x01junk", id=bad)
    vault.epochs.rotate()
    back_up(world, vault)
    assert refusal(vault, 1) == "damaged"
    assert vault.epochs.destroy(1, abandon_damaged=True).state == "destroyed"
    later = world.open()
    assert (status_of(later, bad), status_of(later, good)) == ("damaged", "living")
    with pytest.raises(DamagedKeyError):
        key_of(later, "patient:A")
    assert key_of(later, "patient:B") == good


def test_what_was_given_up_is_damaged_from_the_order_on(
    world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: a crash right behind the end of the KEK does not turn a page with such a key into an error."""
    bad, good = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    ledger_key = vault.reserve(LEDGER, {}, (), mint=False).ledger_key.key_id
    world.execute("UPDATE subject_keys SET wrapped_dek = :junk WHERE key_id = :id", junk=b"\x01junk", id=bad)
    world.execute("UPDATE ledger_secrets SET wrapped = :junk WHERE key_id = :id", junk=b"\x01junk", id=ledger_key)
    vault.epochs.rotate()
    back_up(world, vault)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(epoch_store, "mark_destroyed", die)
        with pytest.raises(KeyboardInterrupt):
            vault.epochs.destroy(1, abandon_damaged=True)
    assert not (world.kek_folder / "epoch-1.kek").exists()
    views = world.open().look_up_keys(LEDGER, [bad, good, ledger_key])
    assert {key_id: view.status for key_id, view in views.items()} == {
        bad: "damaged",
        good: "living",
        ledger_key: "damaged",
    }


def test_a_key_that_was_mended_is_not_given_up(world: World, vault: Vault) -> None:
    """What was counted as damaged is looked at again before it is lost for good."""
    key_id = key_of(vault, "patient:A")
    (row,) = world.rows("subject_keys")
    world.execute("UPDATE subject_keys SET wrapped_dek = :junk", junk=b"\x01junk")
    vault.epochs.rotate()
    back_up(world, vault)
    world.execute("UPDATE subject_keys SET wrapped_dek = :wrap", wrap=row[5])
    with pytest.raises(EpochRefusedError) as caught:
        vault.epochs.destroy(1, abandon_damaged=True)
    assert caught.value.reason == "no-backup"
    back_up(world, vault)
    vault.epochs.destroy(1, abandon_damaged=True)
    assert status_of(world.open(), key_id) == "living"


def test_a_row_that_was_read_before_the_rewrap_is_read_again(world: World, vault: Vault, monkeypatch: Any) -> None:
    """A reader that was slow enough to see the old wrap and find its KEK destroyed answers all the same."""
    key_id = key_of(vault, "patient:A")
    slow, operator = world.open(), world.open()
    unwrap = slow._keyring.provider.unwrap
    waited: list[int] = []

    def wait(epoch: int, blob: bytes, aad: bytes) -> bytes:
        if not waited:
            waited.append(epoch)
            operator.epochs.rotate()
            back_up(world, operator)
            operator.epochs.destroy(1)
        return unwrap(epoch, blob, aad)

    monkeypatch.setattr(slow._keyring.provider, "unwrap", wait)
    assert status_of(slow, key_id) == "living"
    assert waited == [1]


def test_a_kek_that_cannot_be_reached_stays_unavailable(world: World, vault: Vault) -> None:
    """I9: only a destroyed epoch makes a key damaged; any other KEK may come back."""
    key_id = key_of(vault, "patient:A")
    (world.kek_folder / "epoch-1.kek").rename(world.folder / "away")
    with pytest.raises(ProviderError):
        view_of(world.open(), key_id)


def test_an_interrupted_destruction_is_completed(world: World, vault: Vault, monkeypatch: Any) -> None:
    """I12: the order stands, and whoever looks carries it out."""
    vault.epochs.rotate()
    back_up(world, vault)
    broken = world.open()

    def fail(_epoch: int) -> None:
        raise ProviderError("the keeper is not there")

    monkeypatch.setattr(broken._keyring.provider, "destroy", fail)
    with pytest.raises(ProviderError):
        broken.epochs.destroy(1)
    assert vault.epochs.overview().rows[0].ordered
    assert (world.kek_folder / "epoch-1.kek").exists()
    assert vault.epochs.complete_destructions() == (1,)
    assert vault.epochs.complete_destructions() == ()
    assert not (world.kek_folder / "epoch-1.kek").exists()
    assert [line.kind for line in world.journal()].count("epoch-destroyed") == 2


def test_a_keeper_that_takes_its_time_says_when(world: World, vault: Vault, monkeypatch: Any) -> None:
    """``gone_at`` is its word, not the clock's."""
    vault.epochs.rotate()
    back_up(world, vault)
    later = world.clock() + 7 * 86_400_000_000
    monkeypatch.setattr(vault._keyring.provider, "destroy", lambda _: later)
    assert vault.epochs.destroy(1).gone_at == later


# Replicas


def test_a_role_that_cannot_see_the_replicas_is_told_what_it_lacks(postgres: PostgresCluster, tmp_path: Path) -> None:
    """Nobody would know whether one is behind."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        vault.epochs.rotate()
        back_up(world, vault)
        with pytest.raises(EpochRefusedError, match="GRANT pg_read_all_stats") as caught:
            vault.epochs.destroy(1)
        assert caught.value.reason == "replicas-unseen"
        let_see_replicas(world)
        assert vault.epochs.destroy(1).state == "destroyed"


def test_a_replication_slot_without_a_replica_is_refused(own_postgres: PostgresCluster, tmp_path: Path) -> None:
    """Somebody may bring its replica back, and it may lack the rewrap."""
    with postgresql_world(own_postgres, tmp_path) as world:
        vault = set_up(world)
        let_see_replicas(world)
        vault.epochs.rotate()
        back_up(world, vault)
        with database.reading(world.admin()) as connection:
            connection.execute(text("SELECT pg_create_physical_replication_slot('standby')"))
        with pytest.raises(EpochRefusedError, match="standby") as caught:
            vault.epochs.destroy(1)
        assert caught.value.reason == "replica-away"
        with database.reading(world.admin()) as connection:
            connection.execute(text("SELECT pg_drop_replication_slot('standby')"))
        assert vault.epochs.destroy(1).state == "destroyed"


def test_a_replica_that_is_behind_is_waited_for_and_then_refused(
    own_postgres: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real standby whose replay is paused, and that catches up."""
    monkeypatch.setattr(replicas, "PATIENCE_SECONDS", 0.5)
    with postgresql_world(own_postgres, tmp_path) as world, Standby(own_postgres) as standby:
        vault = set_up(world)
        let_see_replicas(world)
        key_id = key_of(vault, "patient:A")
        standby.query("SELECT pg_wal_replay_pause()")
        vault.epochs.rotate()
        back_up(world, vault)
        with pytest.raises(EpochRefusedError, match="have not replayed") as caught:
            vault.epochs.destroy(1)
        assert caught.value.reason == "replica-behind"
        assert vault.epochs.overview().rows[0].state == "retiring"
        standby.query("SELECT pg_wal_replay_resume()")
        monkeypatch.setattr(replicas, "PATIENCE_SECONDS", 30.0)
        assert vault.epochs.destroy(1).state == "destroyed"
        assert status_of(vault, key_id) == "living"
        assert vault.verifying_key(LEDGER)
