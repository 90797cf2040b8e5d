"""What the key vault promises about names and keys, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import text

from keyvault import database
from keyvault.errors import (
    DamagedKeyError,
    JournalError,
    KeyVaultError,
    NotInitialisedError,
    ProviderError,
    UnknownLedgerError,
    UnknownSubjectError,
    VaultUnavailableError,
)
from keyvault.migrate import migrate
from keyvault.vault import Vault
from ledger.ports import KeyVault
from tests.contract.vault_world import (
    LEDGER,
    NOW,
    OTHER_LEDGER,
    World,
    at_once,
    begin,
    erase,
    key_of,
    postgresql_world,
    service_role,
    set_up,
    sqlite_world,
    status_of,
    view_of,
)
from tests.support.statements import noted_statements, watching

TABLES = "epochs, ledger_secrets, subjects, subject_names, streams, subject_keys, fences, erasures"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty database."""
    if request.param == "sqlite":
        with sqlite_world(tmp_path) as world:
            yield world
    else:
        with postgresql_world(request.getfixturevalue("postgres"), tmp_path) as world:
            yield world


@pytest.fixture
def world(empty_world: World) -> World:
    """A database with a vault that is ready."""
    set_up(empty_world)
    return empty_world


@pytest.fixture
def vault(world: World) -> Vault:
    """A vault that is ready."""
    return world.open()


def test_the_vault_satisfies_the_ledger_s_port(vault: Vault) -> None:
    """The type checker sees it here; that the methods are there, the run does."""
    port: KeyVault = vault
    for name in (name for name in vars(KeyVault) if not name.startswith("_")):
        assert callable(getattr(port, name))


# Setting up


def test_initialising_again_or_at_once_makes_one_epoch(empty_world: World) -> None:
    """Two processes that initialise at the same time make one epoch, one KEK and one signing key."""
    migrate(empty_world.admin(), service_role(empty_world))
    vaults = [empty_world.open() for _ in range(4)]
    at_once(*(vault.initialise for vault in vaults))
    for vault in vaults:
        vault.initialise()
        vault.check()
    assert [(row[0], row[2]) for row in empty_world.rows("epochs")] == [(1, "current")]
    assert len(empty_world.rows("ledger_secrets")) == 1
    assert {"epoch-created"} == {entry.kind for entry in empty_world.journal()}


@pytest.mark.parametrize(
    "step",
    [
        "keyvault.providers.file.FileProvider.create",
        "keyvault.store.insert_secrets",
        "keyvault.journal.Journal.append",
        "keyvault.epoch_store.make_epoch_current",
    ],
)
def test_initialising_is_repeated_after_a_crash_at_any_step(
    empty_world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: until the last step the epoch is preparing and nothing can be minted; the next call does the rest."""
    migrate(empty_world.admin(), service_role(empty_world))
    vault = empty_world.open()
    with monkeypatch.context() as patch:
        patch.setattr(step, _crash)
        with pytest.raises(InterruptedError):
            vault.initialise()
    with pytest.raises(NotInitialisedError):
        vault.check()
    with pytest.raises(NotInitialisedError):
        vault.create_ledger(LEDGER)
    vault.initialise()
    vault.check()
    vault.create_ledger(LEDGER)
    assert key_of(vault, "patient:A")


def test_a_lost_kek_is_never_made_anew(world: World) -> None:
    """I9: once keys are wrapped under a KEK, its loss is an outage to mend, not a reason for another one."""
    shutil.rmtree(world.kek_folder)
    vault = world.open()
    vault.initialise()
    with pytest.raises(ProviderError):
        vault.check()
    assert not world.kek_folder.exists()


def test_check_sees_what_does_not_work(world: World) -> None:
    """Readiness means: database, the right KEK, and a journal that takes a line."""
    world.open().check()
    (kek := world.kek_folder / "epoch-1.kek").rename(saved := world.folder / "saved")
    world.open()._keyring.provider.create(1)
    with pytest.raises(KeyVaultError):
        world.open().check()
    saved.replace(kek)
    world.open().check()
    world.journal_path.write_bytes(b"nonsense\n")
    with pytest.raises(JournalError):
        world.open().check()


def test_a_ledger_s_secrets_are_made_once(world: World, vault: Vault) -> None:
    """Creating a ledger again, also at the same time, keeps its secrets."""
    before = world.rows("ledger_secrets")
    at_once(
        *(partial(world.open().create_ledger, ledger_id) for ledger_id in (LEDGER, LEDGER, UUID(int=9), UUID(int=9)))
    )
    after = world.rows("ledger_secrets")
    assert set(before) < set(after)
    assert len(before) + 3 == len(after)
    with pytest.raises(ValueError, match="nil UUID"):
        vault.create_ledger(UUID(int=0))


def test_an_unknown_ledger_is_told(vault: Vault) -> None:
    """A ledger without secrets is an error of its own, not an empty answer."""
    unknown = UUID(int=77)
    attempts: list[Callable[[], object]] = [
        lambda: vault.reserve(unknown, {}, [], mint=True),
        lambda: vault.verifying_key(unknown),
        lambda: vault.sign(unknown, b""),
        lambda: vault.derive_ids(unknown, "", [0]),
        lambda: vault.find_streams(unknown, ["s"]),
        lambda: vault.find_subjects(unknown, ["s"]),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownLedgerError):
            attempt()


def test_signatures_verify_under_the_ledger_s_own_key(world: World, vault: Vault) -> None:
    """Each ledger has a signing key of its own, the same in every process."""
    key = Ed25519PublicKey.from_public_bytes(world.open().verifying_key(LEDGER))
    key.verify(vault.sign(LEDGER, b"message"), b"message")
    with pytest.raises(InvalidSignature):
        key.verify(vault.sign(OTHER_LEDGER, b"message"), b"message")


def test_derived_ids_repeat_and_cannot_be_guessed(world: World, vault: Vault) -> None:
    """The same arguments give the same ids in every process; another label, number or ledger gives others."""
    ids = vault.derive_ids(LEDGER, "file", [0, 1, 2])
    assert ids == world.open().derive_ids(LEDGER, "file", [0, 1, 2])
    assert {8} == {one.version for one in ids}
    others = [*vault.derive_ids(LEDGER, "other", [0, 1, 2]), *vault.derive_ids(OTHER_LEDGER, "file", [0, 1, 2])]
    assert len({*ids, *others}) == 9


# Reserving


def test_without_mint_nothing_is_made(world: World, vault: Vault) -> None:
    """A reservation that lacks something says so, and writes nothing."""
    before = world.everything()
    reservation = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [("patient:A", "")], mint=False)
    assert (
        reservation.complete,
        reservation.streams,
        reservation.subjects,
        reservation.keys,
        reservation.refused,
    ) == (False, {}, {}, {}, {})
    assert before == world.everything()


def test_what_is_minted_is_found_again_in_every_process(world: World, vault: Vault) -> None:
    """Refs and keys are the same for whoever asks next, and a stream's owner's key comes along."""
    streams = {"patient-A": "patient:A", "ward-1": None}
    first = vault.reserve(LEDGER, streams, [("doctor:L", "actor")], mint=True)
    second = world.open().reserve(LEDGER, streams, [("doctor:L", "actor")], mint=False)
    assert first.complete
    assert second.complete
    assert (first.streams, first.subjects["doctor:L"]) == (second.streams, second.subjects["doctor:L"])
    owner = first.subjects["patient:A"]
    assert (owner, None) == (first.streams["patient-A"].owner_ref, first.streams["ward-1"].owner_ref)
    assert {(owner, ""), (first.subjects["doctor:L"], "actor")} == set(second.keys)
    for pair, key in first.keys.items():
        assert second.keys[pair].open(key.seal(b"text", b"aad"), b"aad") == b"text"
    assert second.ledger_key.open(first.ledger_key.seal(b"text", b"aad"), b"aad") == b"text"


def test_refs_are_random_and_ledgers_apart(vault: Vault) -> None:
    """I5: one name has unrelated refs and keys in two ledgers."""
    here = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [("patient:A", "")], mint=True)
    there = vault.reserve(OTHER_LEDGER, {"patient-A": "patient:A"}, [("patient:A", "")], mint=True)
    refs = {here.subjects["patient:A"], there.subjects["patient:A"]}
    refs |= {here.streams["patient-A"].ref, there.streams["patient-A"].ref}
    assert (4, {16}) == (len(refs), {len(ref) for ref in refs})
    (key,) = here.keys.values()
    assert status_of(vault, key.key_id) == "living"
    assert vault.look_up_keys(OTHER_LEDGER, [key.key_id]) == {}


def test_nothing_missing_means_nothing_written(world: World, vault: Vault) -> None:
    """With ``mint`` too: readers of existing keys get by while another process holds every write lock."""
    arguments: tuple[Any, ...] = (LEDGER, {"patient-A": "patient:A"}, [("patient:A", "x")])
    vault.reserve(*arguments, mint=True)
    with database.writing(world.admin()) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"LOCK TABLE {TABLES} IN EXCLUSIVE MODE"))
        assert vault.reserve(*arguments, mint=True).complete


def test_the_number_of_statements_does_not_grow_with_the_batch(vault: Vault) -> None:
    """One append of many events asks the vault as often as one of a single event."""
    counts = []
    for size in (1, 400):
        streams = {f"patient-{n}": f"patient:{n}" for n in range(size)}
        keys = [(f"patient:{n}", "") for n in range(size)]
        vault.reserve(LEDGER, streams, keys, mint=True)
        with noted_statements(vault.engine) as statements:
            vault.reserve(LEDGER, streams, keys, mint=True)
        assert all(statement.startswith("SELECT") for statement, _ in statements)
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 5


def test_what_is_known_takes_two_statements(vault: Vault) -> None:
    """From names to refs, and from refs to keys; one if no name is asked for."""
    arguments: tuple[Any, ...] = (LEDGER, {"patient-A": "patient:A"}, [("patient:A", "x"), ("doctor:L", "actor")])
    vault.reserve(*arguments, mint=True)
    with noted_statements(vault.engine) as statements:
        assert vault.reserve(*arguments, mint=True).complete
        assert len(statements) == 2
        assert vault.reserve(LEDGER, {}, [], mint=False).complete
        assert len(statements) == 3


@pytest.mark.parametrize("kind", [2, 3])
def test_a_ledger_s_secrets_are_compared_in_every_call(world: World, vault: Vault, kind: int) -> None:
    """I7, I9: name key and data key are remembered for the work that it saves; what the vault holds now decides."""
    arguments: tuple[Any, ...] = (LEDGER, {"patient-A": "patient:A"}, [("patient:A", "")])
    before = vault.reserve(*arguments, mint=True)
    values = {"ledger": LEDGER if vault.engine.dialect.name == "postgresql" else LEDGER.bytes, "kind": kind}
    place = "WHERE ledger_id = :ledger AND kind = :kind"
    with database.reading(world.admin()) as connection:
        wrapped = connection.execute(text(f"SELECT wrapped FROM ledger_secrets {place}"), values).scalar_one()
    damaged = bytes([*wrapped[:-1], wrapped[-1] ^ 1])
    world.execute(f"UPDATE ledger_secrets SET wrapped = :wrapped {place}", wrapped=damaged, **values)
    for _ in range(2):
        with pytest.raises(DamagedKeyError):
            vault.reserve(*arguments, mint=True)
    world.execute(f"UPDATE ledger_secrets SET wrapped = :wrapped {place}", wrapped=wrapped, **values)
    after = vault.reserve(*arguments, mint=True)
    assert (after.streams, after.subjects, list(after.keys)) == (before.streams, before.subjects, list(before.keys))
    world.execute(f"DELETE FROM ledger_secrets {place}", **values)
    with pytest.raises(UnknownLedgerError):
        vault.reserve(*arguments, mint=True)


def test_names_are_found_under_the_name_key_that_the_vault_has_now(world: World, vault: Vault) -> None:
    """The ledger's secrets were replaced while another process remembered the old ones: no name of the old leads on."""
    vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=True)
    values = {"ledger": LEDGER if vault.engine.dialect.name == "postgresql" else LEDGER.bytes}
    world.execute("DELETE FROM ledger_secrets WHERE ledger_id = :ledger", **values)
    world.open().create_ledger(LEDGER)
    renewed = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=False)
    assert (renewed.complete, renewed.streams, renewed.subjects) == (False, {}, {})
    assert renewed.ledger_key.key_id == world.open().reserve(LEDGER, {}, [], mint=False).ledger_key.key_id


def test_the_mark_counts_every_key_that_was_seen(world: World, vault: Vault) -> None:
    """A key that another process makes between two statements is counted, or is not seen: a vault that is restored to
    before it is noticed."""
    vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=True)
    other, made = world.open(), list[str]()

    def mint(*_: object) -> None:
        purpose = f"p{len(made)}"
        made.append(purpose)
        other.reserve(LEDGER, {}, [("patient:A", purpose)], mint=True)

    wanted = [("patient:A", f"p{number}") for number in range(9)]
    for moment in ("before", "after"):
        with watching(vault.engine, **{moment: mint}):
            found = vault.reserve(LEDGER, {"patient-A": "patient:A"}, wanted, mint=False)
        assert made
        assert found.mark.mints >= 1 + sum(purpose != "" for _, purpose in found.keys)


def test_a_batch_may_be_larger_than_one_statement_takes(vault: Vault) -> None:
    """Thousands of names go in chunks."""
    streams = {f"patient-{n}": f"patient:{n}" for n in range(1201)}
    first = vault.reserve(LEDGER, streams, [], mint=True)
    assert first.complete
    assert len({entry.ref for entry in first.streams.values()}) == 1201
    views = vault.look_up_keys(LEDGER, [key.key_id for key in first.keys.values()])
    assert [view.status for view in views.values()] == ["living"] * 1201


@pytest.mark.parametrize("round_", range(3))
def test_concurrent_first_writers_share_one_key(world: World, round_: int) -> None:
    """Of writers that need the same new names at once, in threads of several processes, exactly one mints."""
    vaults = [world.open(), world.open()]
    streams: dict[str, str | None] = {"patient-A": "patient:A", "patient-B": "patient:B", "ward-1": None}
    keys = [("patient:B", ""), ("patient:A", "x"), ("doctor:L", "actor")]
    works = [partial(vaults[n % 2].reserve, LEDGER, streams, keys[:: 1 if n % 3 else -1], mint=True) for n in range(8)]
    found = at_once(*works)
    assert {True} == {one.complete for one in found}
    assert len({tuple(sorted((pair, key.key_id) for pair, key in one.keys.items())) for one in found}) == 1
    assert len({tuple(sorted((name, entry.ref) for name, entry in one.streams.items())) for one in found}) == 1
    assert tuple(len(world.rows(name)) for name in ("subjects", "subject_names", "streams", "subject_keys")) == (
        3,
        3,
        3,
        4,
    )


def test_the_first_owner_of_a_stream_stays(world: World, vault: Vault) -> None:
    """A stream's owner is fixed: whoever names another one, also at the same time, gets the first one's key."""
    names = [f"patient:{n}" for n in range(6)]
    found = at_once(
        *(partial(world.open().reserve, LEDGER, {"patient-A": name}, [(name, "")], mint=True) for name in names)
    )
    owners = {one.streams["patient-A"].owner_ref for one in found}
    assert len(owners) == 1
    assert all((one.streams["patient-A"].owner_ref, "") in one.keys for one in found)
    later = vault.reserve(LEDGER, {"patient-A": "patient:new"}, [], mint=True)
    assert (found[0].streams, {}) == (later.streams, later.subjects)


def test_many_writers_of_two_processes_queue(world: World) -> None:
    """Writers wait for each other; no "database is locked" and no deadlock ever reaches one of them."""
    vaults = [world.open(), world.open()]

    def write(n: int) -> list[bytes]:
        return [key_of(vaults[n % 2], f"patient:{n % 3}:{i}") for i in range(8)]

    found = at_once(*(partial(write, n) for n in range(6)))
    assert found[:3] == found[3:]
    assert len(world.rows("subject_keys")) == 24


def test_a_subject_has_at_most_sixty_purposes(world: World, vault: Vault) -> None:
    """A SubjectErased event must hold every key of a subject; also writers at the same time cannot get past that."""
    vault.reserve(LEDGER, {}, [("patient:A", f"p{n}") for n in range(58)], mint=True)
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    keys = len(world.rows("subject_keys"))
    asked = vault.reserve(LEDGER, {"new": None}, [("patient:A", f"q{n}") for n in range(3)], mint=True)
    assert asked.refused == {(ref, f"q{n}"): "full" for n in range(3)}
    assert len(world.rows("subject_keys")) == keys

    def one_more(n: int) -> bool:
        return not world.open().reserve(LEDGER, {}, [("patient:A", f"q{n}")], mint=True).refused

    assert sorted(at_once(*(partial(one_more, n) for n in range(6)))) == [False] * 4 + [True] * 2
    assert len(world.rows("subject_keys")) == 60


def test_a_stream_that_never_got_an_event_can_be_forgotten(vault: Vault) -> None:
    """Only the row that still leads to the old ref goes; the name then gets a new ref."""
    first = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=True).streams["patient-A"]
    vault.replace_stream(LEDGER, "patient-A", b"x" * 16)
    assert {"patient-A": first} == vault.find_streams(LEDGER, ["patient-A", "unknown"])
    vault.replace_stream(LEDGER, "patient-A", first.ref)
    assert vault.find_streams(LEDGER, ["patient-A"]) == {}
    second = vault.reserve(LEDGER, {"patient-A": "patient:B"}, [], mint=True).streams["patient-A"]
    assert first.ref != second.ref
    vault.replace_stream(LEDGER, "patient-A", first.ref)
    assert {"patient-A": second} == vault.find_streams(LEDGER, ["patient-A"])


# Looking up


def test_subjects_are_found_by_name_and_ref(vault: Vault) -> None:
    """A subject shows its state, its number of names, and all its keys, living and fenced."""
    keys = sorted([(key_of(vault, "patient:A", purpose), purpose) for purpose in ("", "x", "actor")])
    entry = vault.find_subjects(LEDGER, ["patient:A", "unknown"])["patient:A"]
    assert ("active", 1, tuple(keys)) == (entry.state, entry.names, entry.key_ids)
    assert entry == vault.subject(LEDGER, entry.ref)
    erase(vault, "patient:A")
    after = vault.subject(LEDGER, entry.ref)
    assert after is not None
    assert ("erased", tuple(keys)) == (after.state, after.key_ids)
    assert vault.subject(LEDGER, b"x" * 16) is None
    assert vault.subject(OTHER_LEDGER, entry.ref) is None
    assert vault.find_subjects(LEDGER, []) == {}


def test_each_key_is_shown_as_it_is_now(vault: Vault) -> None:
    """Living, restricted, living again, fenced; the ledger's own; and no view of what the vault never had."""
    key_id = key_of(vault, "patient:A")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    living = view_of(vault, key_id)
    assert living is not None
    assert living.key is not None
    assert ("living", ref, "", key_id) == (living.status, living.subject_ref, living.purpose, living.key.key_id)
    vault.restrict(LEDGER, ref, NOW + 5)
    vault.restrict(LEDGER, ref, NOW + 6)
    restricted = view_of(vault, key_id)
    assert restricted is not None
    assert (restricted.status, restricted.changed_at, restricted.key) == ("restricted", NOW + 5, None)
    vault.lift_restriction(LEDGER, ref, NOW + 7)
    vault.lift_restriction(LEDGER, ref, NOW + 8)
    lifted = view_of(vault, key_id)
    assert lifted is not None
    assert (lifted.status, lifted.changed_at) == ("living", NOW + 7)
    entry = erase(vault, "patient:A")
    fenced = view_of(vault, key_id)
    assert fenced is not None
    assert ("fenced", ref, "", entry.erased_at, entry.erasure_id, None) == (
        fenced.status,
        fenced.subject_ref,
        fenced.purpose,
        fenced.changed_at,
        fenced.erasure_id,
        fenced.key,
    )
    ledger_key = vault.reserve(LEDGER, {}, [], mint=False).ledger_key.key_id
    own = view_of(vault, ledger_key)
    assert own is not None
    assert (own.status, own.subject_ref, own.purpose) == ("living", None, "")
    assert vault.look_up_keys(LEDGER, [b"x" * 32, b""]) == {}
    assert vault.look_up_keys(LEDGER, []) == {}


def test_existence_is_never_remembered(world: World, vault: Vault) -> None:
    """I7: a key that this process has just used is gone for it the moment another process has erased it."""
    key_id = key_of(vault, "patient:A")
    assert status_of(vault, key_id) == "living"
    other = world.open()
    entry = begin(other, "patient:A")
    assert status_of(vault, key_id) == "restricted"
    other.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert status_of(vault, key_id) == "fenced"
    lost = key_of(vault, "patient:B")
    assert status_of(vault, lost) == "living"
    world.execute("DELETE FROM subject_keys")
    assert vault.look_up_keys(LEDGER, [key_id, lost]).keys() == {key_id}


def test_a_restricted_subject_can_be_appended_to(vault: Vault) -> None:
    """Restricting limits reading, not recording: keys are given and minted, and their views say restricted."""
    key_id = key_of(vault, "patient:A")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    vault.restrict(LEDGER, ref, NOW)
    assert key_id == key_of(vault, "patient:A")
    assert status_of(vault, key_of(vault, "patient:A", "new")) == "restricted"
    for change in (vault.restrict, vault.lift_restriction):
        with pytest.raises(UnknownSubjectError):
            change(LEDGER, b"x" * 16, NOW)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE subject_keys SET wrapped_dek = :other_blob WHERE key_id = :key",
        "UPDATE subject_keys SET wrapped_dek = :cut WHERE key_id = :key",
        "UPDATE subject_keys SET subject_ref = :other_ref, purpose = 'moved' WHERE key_id = :key",
        "UPDATE subject_keys SET purpose = 'renamed' WHERE key_id = :key",
        "UPDATE subject_keys SET generation = -1 WHERE key_id = :key",
        "UPDATE subject_keys SET epoch = 99 WHERE key_id = :key",
    ],
)
def test_a_damaged_row_is_shown_as_damaged(world: World, vault: Vault, damage: str) -> None:
    """I9: whatever a hand does to a key's row, it reads as damaged: not living, not erased, and no exception."""
    key_id, other_id = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    values = {
        "key": key_id,
        "other_blob": _wrapped(world, other_id),
        "other_ref": vault.find_subjects(LEDGER, ["patient:B"])["patient:B"].ref,
        "cut": _wrapped(world, key_id)[:-1],
    }
    assert status_of(vault, key_id) == "living"
    world.execute(damage, **{name: value for name, value in values.items() if f":{name}" in damage})
    for opened in (vault, world.open()):
        assert (status_of(opened, key_id), status_of(opened, other_id)) == ("damaged", "living")


@pytest.mark.parametrize(
    "damage",
    [
        "wrapped_dek = 'text'",
        "wrapped_dek = CAST(x'ff00' AS TEXT)",
        "generation = 'one'",
        "epoch = 'one'",
        "purpose = x'ff'",
    ],
)
def test_a_value_of_a_wrong_type_is_damage_too(tmp_path: Path, damage: str) -> None:
    """I9: SQLite takes any value in any column; that row reads as damaged, and the others read as ever."""
    with sqlite_world(tmp_path) as world:
        vault = set_up(world)
        key_id, other_id = key_of(vault, "patient:A"), key_of(vault, "patient:B")
        world.execute(f"UPDATE subject_keys SET {damage} WHERE key_id = :key", key=key_id)
        assert (status_of(vault, key_id), status_of(vault, other_id)) == ("damaged", "living")


def test_a_key_that_is_damaged_is_not_appended_under(world: World, vault: Vault) -> None:
    """I9: an append that needs a damaged key fails loudly; another key is not minted in its place."""
    key_id = key_of(vault, "patient:A")
    world.execute("UPDATE subject_keys SET wrapped_dek = :blob WHERE key_id = :key", blob=b"\x01" * 61, key=key_id)
    with pytest.raises(DamagedKeyError):
        key_of(vault, "patient:A")
    assert len(world.rows("subject_keys")) == 1


# What is down is down


def test_a_provider_that_is_down_is_no_redaction(world: World, vault: Vault) -> None:
    """I9: without KEK nothing living is answered; what is fenced is fenced all the same."""
    key_id, gone = key_of(vault, "patient:A"), key_of(vault, "patient:B")
    erase(vault, "patient:B")
    world.kek_folder.rename(world.folder / "away")
    fresh = world.open()
    assert status_of(fresh, gone) == "fenced"
    for attempt in (lambda: status_of(fresh, key_id), lambda: key_of(fresh, "patient:A"), fresh.check):
        with pytest.raises(VaultUnavailableError):
            attempt()
    (world.folder / "away").rename(world.kek_folder)
    assert status_of(fresh, key_id) == "living"


def test_no_name_is_stored_in_clear(world: World, vault: Vault, request: pytest.FixtureRequest) -> None:
    """I5: neither names nor plain hashes of them stand anywhere in the files, before and after an erasure."""
    names = ["canary:subject-Zoë", "canary:actor", "canary-stream", "canary:never", "canary:blocked"]
    subject, actor, stream, never, blocked = names
    vault.reserve(LEDGER, {stream: subject}, [(subject, ""), (actor, "actor")], mint=True)
    vault.find_subjects(LEDGER, [subject, actor, never])
    begin(vault, blocked, block=True)
    dumps = [_dump(world, request)]
    erase(vault, subject, 2)
    dumps.append(_dump(world, request))
    traces = [b"canary", "Zoë".encode(), *(hashlib.sha256(name.encode()).digest() for name in names)]
    ref = vault.find_subjects(LEDGER, [subject])[subject].ref
    for dump in dumps:
        # That the search finds what is there shows in the ref, which is meant to be.
        assert ref in dump or ref.hex().encode() in dump
        for trace in traces:
            assert trace not in dump
            assert trace.hex().encode() not in dump


def _crash(*_: object, **__: object) -> None:
    raise InterruptedError("killed here")


def _wrapped(world: World, key_id: bytes) -> bytes:
    wrapped: bytes = next(row[5] for row in world.rows("subject_keys") if row[0] == key_id)
    return wrapped


def _dump(world: World, request: pytest.FixtureRequest) -> bytes:
    files = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    if world.url.startswith("sqlite"):
        assert b"SQLite format 3" in files
        return files
    name = world.url.rpartition("/")[2]
    dumped: bytes = request.getfixturevalue("postgres").run("pg_dump", database=name)
    assert b"subject_names" in dumped
    return files + dumped
