"""What a drill asks of the vault: keys while they live, and afterwards whether any KEK brings them back."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault import envelope
from keyvault.errors import JournalError, NotAuthenticError, UnknownSubjectError
from keyvault.inspection import Exhibit
from keyvault.vault import Vault
from tests.contract.vault_world import (
    LEDGER,
    OTHER_LEDGER,
    World,
    erase,
    key_of,
    postgresql_world,
    service_role,
    set_up,
    sqlite_world,
)

NAME = "patient:A"


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty database."""
    if request.param == "sqlite":
        with sqlite_world(tmp_path) as world:
            yield world
    else:
        with postgresql_world(request.getfixturevalue("postgres"), tmp_path) as world:
            yield world


@pytest.fixture
def vault(world: World) -> Vault:
    """With somebody in it."""
    vault = set_up(world)
    key_of(vault, NAME)
    key_of(vault, NAME, "contact")
    key_of(vault, "patient:B")
    return vault


def exhibit_of(vault: Vault) -> Exhibit:
    """Of the person who will be erased."""
    return vault.inspection.exhibit(LEDGER, vault.find_subjects(LEDGER, [NAME])[NAME].ref)


def wraps_of(exhibit: Exhibit) -> list[bytes]:
    """The wrapped keys as they were."""
    return [row.wrapped for row in exhibit.rows]


def test_an_exhibit_has_the_keys_of_one_subject_and_shows_none(vault: Vault) -> None:
    """What it gives out raw is what the key ids commit to; it cannot be copied, and its repr says nothing."""
    exhibit = exhibit_of(vault)
    assert sorted(map(envelope.key_id_of, exhibit.raw_keys)) == sorted(exhibit.key_ids)
    assert {row.purpose for row in exhibit.rows} == {"", "contact"}
    assert [key.key_id for key in exhibit.data_keys] == list(exhibit.key_ids)
    assert all(key.hex() not in repr(exhibit) and repr(key) not in repr(exhibit) for key in exhibit.raw_keys)
    for let_out in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            let_out(exhibit)


def test_somebody_without_keys_is_no_exhibit(vault: Vault) -> None:
    """Whoever would search for nothing would find nothing."""
    with pytest.raises(UnknownSubjectError):
        vault.inspection.exhibit(LEDGER, b"\x00" * 16)
    ref = vault.find_subjects(LEDGER, [NAME])[NAME].ref
    erase(vault, NAME)
    with pytest.raises(UnknownSubjectError):
        vault.inspection.exhibit(LEDGER, ref)


def test_old_wraps_open_as_long_as_their_kek_is_there_and_again_when_it_is_back(world: World, vault: Vault) -> None:
    """Also after a rotation; not any more after the destruction; again with a KEK that was put back, whatever the
    tables say of its epoch."""
    exhibit, inspection = exhibit_of(vault), vault.inspection
    wraps = wraps_of(exhibit)
    shutil.copytree(world.kek_folder, world.folder / "copy")
    erase(vault, NAME)
    vault.epochs.rotate()
    assert {key.key_id for key in inspection.keys_opened_by(exhibit, wraps)} == set(exhibit.key_ids)
    assert inspection.keys_opened_by(exhibit, []) == []
    assert inspection.keys_opened_by(exhibit, [b"", b"\x01", b"\x01" + bytes(60), wraps[0][:-1] + b"!"]) == []

    if role := service_role(world):
        world.execute(f'GRANT pg_read_all_stats TO "{role}"')
    vault.epochs.note_backup(world.clock() + 10**9, "attested")
    vault.epochs.destroy(1)
    assert inspection.kept_epochs() == {2}
    assert inspection.keys_opened_by(exhibit, wraps) == []
    shutil.copy2(world.folder / "copy" / "epoch-1.kek", world.kek_folder / "epoch-1.kek")
    assert inspection.kept_epochs() == {1, 2}
    (opened,) = inspection.keys_opened_by(exhibit, wraps[:1])
    assert opened.key_id == exhibit.rows[0].key_id


def test_a_key_that_was_rewrapped_is_told_too(vault: Vault) -> None:
    """Its blob is another one, under another epoch."""
    exhibit = exhibit_of(vault)
    vault.epochs.rotate()
    rewrapped = wraps_of(exhibit_of(vault))
    assert set(rewrapped).isdisjoint(wraps_of(exhibit))
    assert len(vault.inspection.keys_opened_by(exhibit, rewrapped)) == 2


def test_the_keys_of_a_ledger_are_all_that_live(vault: Vault) -> None:
    """Its own, and those of its subjects; of another ledger's none."""
    own = vault.reserve(LEDGER, {}, (), mint=False).ledger_key.key_id
    living = {key.key_id for key in vault.inspection.keys_of_ledger(LEDGER)}
    assert own in living
    assert len(living) == 4
    erase(vault, NAME)
    assert len(vault.inspection.keys_of_ledger(LEDGER)) == 2
    assert len(vault.inspection.keys_of_ledger(OTHER_LEDGER)) == 1


def test_a_signature_is_the_ledgers_own_and_of_this_text(vault: Vault) -> None:
    """Else it raises."""
    signature = vault.sign(LEDGER, b"text")
    vault.inspection.verify(LEDGER, b"text", signature)
    for ledger_id, text in ((LEDGER, b"other"), (OTHER_LEDGER, b"text")):
        with pytest.raises(NotAuthenticError):
            vault.inspection.verify(ledger_id, text, signature)


def test_the_journal_is_read_verified(world: World, vault: Vault) -> None:
    """Line by line, or not at all."""
    erase(vault, NAME)
    assert [line.kind for line in vault.inspection.journal_lines()] == [line.kind for line in world.journal()]
    world.journal_path.write_bytes(world.journal_path.read_bytes().replace(b'"kind":"shred"', b'"kind":"lift"'))
    with pytest.raises(JournalError):
        list(vault.inspection.journal_lines())
