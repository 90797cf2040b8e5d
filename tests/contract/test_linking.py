"""What the key vault promises about forgetting names, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from keyvault import database, link_store, name_store, tables
from keyvault.envelope import LinkKey
from keyvault.errors import (
    BusyError,
    DamagedKeyError,
    EpochRefusedError,
    KeysLiveError,
    KeyVaultError,
    NotErasedError,
    UnknownSubjectError,
    UnlinkedError,
    VaultUnavailableError,
)
from keyvault.journal import Journal
from keyvault.vault import Vault
from tests.contract.vault_world import (
    LEDGER,
    NOW,
    OPERATOR,
    World,
    at_once,
    begin,
    erase,
    key_of,
    postgresql_world,
    set_up,
    sqlite_world,
)

LATER = NOW + 10_000
PERSON, STREAMS = "patient:A", ("patient-A", "case-A")


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A database with a vault that is ready."""
    if request.param == "sqlite":
        with sqlite_world(tmp_path) as made:
            set_up(made)
            yield made
    else:
        with postgresql_world(request.getfixturevalue("postgres"), tmp_path) as made:
            set_up(made)
            yield made


@pytest.fixture
def vault(world: World) -> Vault:
    """A vault that is ready."""
    return world.open()


def known(vault: Vault, name: str = PERSON) -> bytes:
    """Somebody with two streams, and another one with one; gives the first one's ref."""
    streams: dict[str, str | None] = dict.fromkeys(STREAMS, name)
    reservation = vault.reserve(
        LEDGER, {**streams, "patient-B": "patient:B", "ward-1": None}, [(name, ""), ("patient:B", "")], mint=True
    )
    return reservation.subjects[name]


def erased(vault: Vault) -> bytes:
    """The same, erased."""
    ref = known(vault)
    erase(vault, PERSON)
    return ref


def unlink_lines(world: World) -> list[dict[str, Any]]:
    """What the journal says of names that were forgotten."""
    return [dict(line.fields) for line in world.journal() if line.kind == "unlink"]


def others_are_as_before(vault: Vault) -> bool:
    """The one that nobody asked about still has everything."""
    reservation = vault.reserve(LEDGER, {"patient-B": "patient:B"}, [("patient:B", "")], mint=False)
    owner = reservation.streams["patient-B"].owner_ref
    found = vault.subject(LEDGER, owner or b"")
    return reservation.complete and not reservation.refused and found is not None and found.names == 1


# Unlinking


def test_nothing_leads_on_from_the_name(world: World, vault: Vault) -> None:
    """Not to the subject, not to its streams; the subject stays as it is, and says that no name leads to it."""
    ref = erased(vault)
    before = {name: world.rows(name) for name in ("fences", "erasures", "subject_keys")}

    assert vault.unlink(LEDGER, ref, LATER) == LATER

    assert vault.find_subjects(LEDGER, [PERSON, "patient:B"]).keys() == {"patient:B"}
    assert vault.find_streams(LEDGER, [*STREAMS, "patient-B", "ward-1"]).keys() == {"patient-B", "ward-1"}
    assert vault.unlinked_among(LEDGER, [PERSON, "patient:B", "nobody"]) == {PERSON}
    kept = vault.subject(LEDGER, ref)
    assert kept is not None
    assert (kept.state, kept.names, len(kept.key_ids)) == ("erased", 0, 1)
    assert {name: world.rows(name) for name in before} == before
    assert unlink_lines(world) == [{"ledger_id": str(LEDGER), "subject_ref": ref.hex()}]
    assert others_are_as_before(vault)


def remembered_refs(vault: Vault) -> set[bytes]:
    """What the link keys that a vault remembers have opened."""
    entries = list(vault._keyring._cache._entries.values())
    links = [opened for _, _, opened in entries if isinstance(opened, LinkKey)]
    return {refs for link in links for _, refs in link._opened.values()}


def test_what_a_warm_vault_remembers_of_a_name_ends_with_its_link(world: World, vault: Vault) -> None:
    """At once where the name is forgotten; elsewhere it leads nowhere, since the rows are asked for each time."""
    other = world.open()
    wanted = {**dict.fromkeys(STREAMS, PERSON), "patient-B": "patient:B"}
    ref = known(vault)
    # The erasure takes the subject's data key, and the way from the name stays until it is cut.
    erase(vault, PERSON)
    for warm in (vault, other):
        for _ in range(2):
            before = warm.reserve(LEDGER, wanted, [(PERSON, "")], mint=False)
            assert (before.subjects[PERSON], set(before.streams)) == (ref, set(wanted))
        assert any(ref in refs for refs in remembered_refs(warm))

    vault.unlink(LEDGER, ref, LATER)

    assert not any(ref in refs for refs in remembered_refs(vault))
    assert remembered_refs(vault)
    assert any(ref in refs for refs in remembered_refs(other))
    for warm in (vault, other):
        after = warm.reserve(LEDGER, wanted, [(PERSON, "")], mint=False)
        assert (set(after.subjects), set(after.streams)) == ({"patient:B"}, {"patient-B"})
        assert (set(after.unlinked), set(after.unlinked_streams)) == ({PERSON}, set(STREAMS))


def test_late_writers_are_still_refused(vault: Vault) -> None:
    """By name and by the names of streams; nothing is made for them, with minting or without."""
    vault.unlink(LEDGER, erased(vault), LATER)
    for mint in (False, True):
        late = vault.reserve(
            LEDGER,
            {"patient-A": PERSON, "new-A": PERSON, "new-B": "patient:B"},
            [(PERSON, ""), (PERSON, "x")],
            mint=mint,
        )
        assert (late.unlinked, late.unlinked_streams) == ({PERSON}, {"patient-A"})
        assert (late.subjects.keys() - {"patient:B"}, late.keys.keys() & {(PERSON, "")}) == (set(), set())
        assert late.streams.keys() == ({"new-B"} if mint else set())
    with pytest.raises(UnlinkedError):
        begin(vault, PERSON, 2)
    with pytest.raises(UnlinkedError):
        begin(vault, PERSON, 2, block=True)


def test_doing_it_again_changes_nothing(world: World, vault: Vault) -> None:
    """It gives the first time, and writes the line again."""
    ref = erased(vault)
    vault.unlink(LEDGER, ref, LATER)
    before = world.everything()
    assert world.open().unlink(LEDGER, ref, LATER + 1) == LATER
    assert {**world.everything(), "journal_marks": []} == {**before, "journal_marks": []}
    assert len(unlink_lines(world)) == 2


def test_a_name_that_was_blocked_can_be_forgotten(vault: Vault) -> None:
    """Nothing was ever recorded of it."""
    entry = begin(vault, "patient:new", block=True)
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW + 1)
    assert vault.unlink(LEDGER, entry.subject_ref, LATER) == LATER
    assert vault.unlinked_among(LEDGER, ["patient:new"]) == {"patient:new"}


def test_only_the_names_of_the_erased_can_be_forgotten(world: World, vault: Vault) -> None:
    """Not of the living, not during an erasure, not while a key lives, not of nobody; nothing is changed."""
    ref = known(vault)
    key_of(vault, PERSON, "actor")

    def refused(error: type[Exception]) -> None:
        before = world.everything()
        with pytest.raises(error):
            vault.unlink(LEDGER, ref, LATER)
        assert world.everything() == before

    refused(NotErasedError)
    entry = begin(vault, PERSON)
    refused(BusyError)
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW + 1)
    refused(KeysLiveError)
    with pytest.raises(UnknownSubjectError):
        vault.unlink(LEDGER, b"?" * 16, LATER)
    assert unlink_lines(world) == []
    erase(vault, PERSON, 2, ["actor"])
    assert vault.unlink(LEDGER, ref, LATER) == LATER


@pytest.mark.parametrize("step", ["cut_names", "cut_link", "mark_unlinked", "delete_mark", "append"])
def test_a_crash_at_any_step_is_made_good(
    world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """I12: what was begun is finished by the next call, whether the step that failed was persisted or not; a rotation
    in between takes nothing away that is needed."""
    where: Any = Journal if step == "append" else name_store if hasattr(name_store, step) else link_store
    real: Callable[..., Any] = getattr(where, step)
    for number, persisted in enumerate((False, True), start=1):
        name = f"{PERSON}{number}"
        ref = known(vault, name)
        erase(vault, name, number)

        def fail(*arguments: Any, also: bool = persisted, **named: Any) -> Any:
            if also:
                real(*arguments, **named)
            raise VaultUnavailableError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(where, step, fail)
            with pytest.raises(VaultUnavailableError):
                vault.unlink(LEDGER, ref, LATER)
        assert world.open().epochs.rotate() is not None
        assert world.open().unlink(LEDGER, ref, LATER + 1) in (LATER, LATER + 1)
        assert vault.find_subjects(LEDGER, [name]) == {}
        assert vault.unlinked_among(LEDGER, [name]) == {name}
        assert unlink_lines(world)[-1]["subject_ref"] == ref.hex()
        assert [row for row in world.rows("subject_links") if ref in row] == []
    assert others_are_as_before(vault)


# Beginning anew


def reinstate(vault: Vault, at: int = NOW + 5000) -> bytes:
    """Let the name begin anew; gives the new ref."""
    return vault.reinstate(LEDGER, PERSON, reason=None, reinstated_at=at, reinstated_by=OPERATOR).subject_ref


def test_a_forgotten_name_can_begin_anew(vault: Vault) -> None:
    """With new refs; the names of its streams are free again."""
    old = erased(vault)
    streams = vault.find_streams(LEDGER, STREAMS)
    vault.unlink(LEDGER, old, LATER)
    new = reinstate(vault)
    reservation = vault.reserve(LEDGER, dict.fromkeys(STREAMS, PERSON), [(PERSON, "")], mint=True)
    assert (new != old, reservation.subjects, reservation.refused) == (True, {PERSON: new}, {})
    assert {entry.ref for entry in reservation.streams.values()} & {entry.ref for entry in streams.values()} == set()
    assert vault.unlinked_among(LEDGER, [PERSON]) == set()


def test_beginning_anew_cuts_the_old_way(world: World, vault: Vault) -> None:
    """No time and no row says which subject had the name; the old one can then be marked at any later time."""
    old = erased(vault)
    links = len(world.rows("link_keys"))
    at = NOW + 7_654_321
    new = reinstate(vault, at)
    assert len(world.rows("link_keys")) == links
    assert [row for row in world.rows("subjects") if at in row and old in row] == []
    assert vault.unlink(LEDGER, old, LATER) == LATER
    assert vault.find_subjects(LEDGER, [PERSON])[PERSON].ref == new
    assert [line["subject_ref"] for line in unlink_lines(world)] == [old.hex()]


def test_what_was_kept_when_the_name_began_anew_decides_the_time(vault: Vault) -> None:
    """As long as a key lives, what it opens tells the name: it was not forgotten before that key was gone."""
    old = known(vault)
    key_of(vault, PERSON, "actor")
    erase(vault, PERSON)
    reinstate(vault)
    with pytest.raises(KeysLiveError):
        vault.unlink(LEDGER, old, LATER)
    erase(vault, old, 50_000, ["actor"])
    assert vault.unlink(LEDGER, old, LATER) == NOW + 1000 + 50_000


# Races


def test_one_name_makes_one_subject_and_one_link(world: World) -> None:
    """Of concurrent first writers, some of whom block the name, the losers take the winner's."""
    vaults = [world.open() for _ in range(4)]
    reserve = partial(Vault.reserve, ledger_id=LEDGER, streams={"s-A": PERSON}, keys=[(PERSON, "")], mint=True)
    found = at_once(*(partial(reserve, vaults[n % 4]) for n in range(8)))
    assert len({one.subjects[PERSON] for one in found}) == len({one.streams["s-A"].ref for one in found}) == 1
    assert [len(world.rows(name)) for name in ("subjects", "subject_names", "link_keys", "subject_links")] == [1] * 4


def work_of(vault: Vault, what: str, name: str, ref: bytes) -> Callable[[], object]:
    """What somebody else does with the same subject."""
    works: dict[str, Callable[[], object]] = {
        "rotate": vault.epochs.rotate,
        "unlink": partial(vault.unlink, LEDGER, ref, LATER),
        "reinstate": partial(vault.reinstate, LEDGER, name, reason=None, reinstated_at=NOW, reinstated_by=OPERATOR),
        "append": partial(vault.reserve, LEDGER, {"patient-A": name}, [(name, "")], mint=True),
        "erase": partial(begin, vault, ref, 100),
    }
    return works[what]


@pytest.mark.parametrize("other", ["rotate", "unlink", "reinstate", "append", "erase"])
def test_others_at_the_same_time(world: World, other: str) -> None:
    """Whoever comes first: in the end the name leads nowhere, or to somebody new, and every row opens."""
    for number in range(3):
        name, vault = f"patient:{number}", world.open()
        ref = known(vault, name)
        erase(vault, name, number + 1)
        at_once(partial(vault.unlink, LEDGER, ref, LATER), work_of(world.open(), other, name, ref))
        found = vault.find_subjects(LEDGER, [name])
        assert [entry for entry in found.values() if entry.ref == ref] == []
        assert found.keys() == ({name} if other == "reinstate" else set())
    outcome = world.open().epochs.rotate()
    assert outcome is not None
    assert (outcome.damaged, outcome.deleted) == (0, 0)
    assert others_are_as_before(world.open())


# Rotation


def test_link_keys_are_rewrapped_and_stand_in_the_way_of_a_destruction(world: World, vault: Vault) -> None:
    """A row of either side that does not unwrap is named, and an epoch with one left is not destroyed."""
    ref = known(vault)
    vault.epochs.rotate()
    for table in ("link_keys", "subject_links"):
        assert {row[-1] for row in world.rows(table)} == {2}
    world.execute("UPDATE link_keys SET wrapped = :junk", junk=b"\x01junk")
    world.execute("UPDATE subject_links SET wrapped = :junk WHERE subject_ref = :ref", junk=b"\x01junk", ref=ref)
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert outcome.left == {2: 3}
    vault.epochs.note_backup(world.clock(), "made")
    with pytest.raises(EpochRefusedError, match="3 rows under epoch 2 do not unwrap"):
        vault.epochs.destroy(2)


def test_rows_of_a_forgotten_name_that_came_back_are_deleted(world: World, vault: Vault) -> None:
    """I8: a restored backup or a hand brings link keys back; a rotation does not carry them on."""
    ref = erased(vault)
    links = ("link_keys", "subject_links")
    before = {name: world.rows(name) for name in links}
    vault.unlink(LEDGER, ref, LATER)
    kept = {name: world.rows(name) for name in links}
    for name, anchor in (("link_keys", "link_id"), ("subject_links", "subject_ref")):
        for row in before[name]:
            if row not in kept[name]:
                ledger_id = row[0] if world.url.startswith("postgresql") else row[0].bytes
                values = dict(zip("lawe", (ledger_id, *row[1:]), strict=True))
                statement = f"INSERT INTO {name} (ledger_id, {anchor}, wrapped, epoch) VALUES (:l, :a, :w, :e)"
                world.execute(statement, **values)
    assert {name: world.rows(name) for name in links} == before
    outcome = vault.epochs.rotate()
    assert outcome is not None
    assert (outcome.deleted, outcome.damaged) == (2, 0)
    assert [len(world.rows(name)) for name in links] == [len(kept[name]) for name in links]
    assert vault.unlinked_among(LEDGER, [PERSON]) == {PERSON}


def test_a_row_that_no_link_key_can_have_stops_nobody(tmp_path: Path) -> None:
    """SQLite takes a value of any type from a hand: it counts as damaged, and the others are rewrapped."""
    with sqlite_world(tmp_path) as world:
        vault = set_up(world)
        known(vault)
        for ledger_id, link_id in ((LEDGER.bytes, "text"), ("text", b"i" * 32), (7, 7)):
            world.execute(
                "INSERT INTO link_keys (ledger_id, link_id, wrapped, epoch) VALUES (:l, :i, 'text', 1)",
                l=ledger_id,
                i=link_id,
            )
        outcome = vault.epochs.rotate()
        assert outcome is not None
        assert (outcome.left, outcome.rewrapped) == ({1: 3}, 2 + 7 + 2 * 2)
        assert others_are_as_before(world.open())


# Damage


def swap(world: World, table: str, column: str, key: str, one: bytes, other: bytes) -> None:
    """A hand gives each of two rows what the other has."""
    columns = list(tables.metadata.tables[table].columns.keys())
    found = {row[columns.index(key)]: row[columns.index(column)] for row in world.rows(table)}
    for target, source in ((one, other), (other, one)):
        statement = f"UPDATE {table} SET {column} = :value WHERE {key} = :target"
        world.execute(statement, value=found[source], target=target)


def hash_of(vault: Vault, kind: str, name: str) -> bytes:
    """The hash that stands for a name."""
    ledger = vault._ledger_keys(LEDGER)
    return ledger.subject_hash(name) if kind == "subject" else ledger.stream_hash(name)


@pytest.mark.parametrize(
    ("table", "columns", "names"),
    [
        ("subject_names", ["sealed_ref"], ("patient:A", "patient:B")),
        ("subject_names", ["link_id"], ("patient:A", "patient:B")),
        ("subject_names", ["link_id", "sealed_ref"], ("patient:A", "patient:B")),
        ("streams", ["sealed_refs"], ("patient-A", "case-A")),
        ("streams", ["link_id", "sealed_refs"], ("patient-A", "patient-B")),
    ],
)
def test_swapped_rows_are_noticed(
    world: World, vault: Vault, table: str, columns: list[str], names: tuple[str, str]
) -> None:
    """Never another person or stream, never "erased": an integrity error for whoever asks by such a name."""
    known(vault)
    kind = "subject" if table == "subject_names" else "stream"
    one, other = (hash_of(vault, kind, name) for name in names)
    for column in columns:
        swap(world, table, column, "name_hash", one, other)
    find: Any = vault.find_subjects if kind == "subject" else vault.find_streams
    for name in names:
        with pytest.raises(DamagedKeyError):
            find(LEDGER, [name])
        streams: dict[str, str | None] = {name: None} if kind == "stream" else {}
        with pytest.raises(DamagedKeyError):
            vault.reserve(LEDGER, streams, [(name, "")] if kind == "subject" else [], mint=True)
    if kind == "subject":
        with pytest.raises(DamagedKeyError):
            begin(vault, names[0])
        with pytest.raises(DamagedKeyError):
            reinstate(vault)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE subject_names SET sealed_ref = NULL",
        "DELETE FROM link_keys",
        "UPDATE link_keys SET wrapped = :junk",
        "UPDATE link_keys SET epoch = 7",
        "UPDATE subject_names SET sealed_ref = :junk",
        "UPDATE subject_names SET link_id = :junk",
    ],
)
def test_a_row_that_lost_something_is_damaged_and_not_forgotten(world: World, vault: Vault, statement: str) -> None:
    """Only refs and link key together mean that the way was cut."""
    known(vault)
    world.execute(statement, **({"junk": b"\x01junk"} if ":junk" in statement else {}))
    fresh = world.open()
    for ask in (
        lambda: fresh.find_subjects(LEDGER, [PERSON]),
        lambda: fresh.unlinked_among(LEDGER, [PERSON]),
        lambda: fresh.reserve(LEDGER, {}, [(PERSON, "")], mint=True),
    ):
        with pytest.raises((DamagedKeyError, VaultUnavailableError)):
            ask()


def test_a_damaged_way_from_the_ref_is_told_and_never_signed_over(world: World, vault: Vault) -> None:
    """How many names lead to somebody cannot be told then, and nothing is called forgotten; erasing goes on."""
    ref = known(vault)
    swapped = vault.reserve(LEDGER, {}, [("patient:B", "")], mint=False).subjects["patient:B"]
    swap(world, "subject_links", "wrapped", "subject_ref", ref, swapped)
    found = world.open().subject(LEDGER, ref)
    assert found is not None
    assert (found.state, found.names) == ("active", None)
    erase(vault, ref)
    with pytest.raises(DamagedKeyError):
        world.open().unlink(LEDGER, ref, LATER)
    world.execute("DELETE FROM subject_links")
    with pytest.raises(DamagedKeyError):
        world.open().unlink(LEDGER, ref, LATER)
    assert unlink_lines(world) == []


def test_a_way_to_a_subject_that_is_not_there_is_damage(world: World, vault: Vault) -> None:
    """Nobody is made a second time under the same name."""
    known(vault)
    for table in ("subject_keys", "subject_links", "subjects"):
        world.execute(f"DELETE FROM {table}")
    with pytest.raises(DamagedKeyError):
        vault.find_subjects(LEDGER, [PERSON])
    with pytest.raises(DamagedKeyError):
        vault.reserve(LEDGER, {}, [(PERSON, "")], mint=True)


def test_a_link_key_does_not_show_itself() -> None:
    """Not in a repr; and it is never pickled or copied."""
    link = LinkKey.of(bytes(range(32)))
    assert repr(bytes(range(32)))[2:-1] not in repr(link)
    with pytest.raises(TypeError):
        link.__reduce__()


def test_the_order_of_rows_tells_nothing_once_it_was_changed(world: World, vault: Vault) -> None:
    """SQLite keeps the name index in the order of its random keys; PostgreSQL has to be told to, before a dump."""
    for number in range(40):
        key_of(vault, f"patient:{number}")
    database.put_in_random_order(world.admin(), tables.NAME_INDEX)

    def as_they_lie(connection: Connection) -> list[bytes]:
        # All columns, which no index has: so it is the rows themselves that are gone through.
        return [row.name_hash for row in connection.execute(text("SELECT * FROM subject_names"))]

    hashes = database.read(world.admin(), as_they_lie)
    assert hashes == sorted(hashes)
    assert len(hashes) == 40
    key_of(vault, "patient:later")
    if world.admin().dialect.name == "postgresql":
        with pytest.raises(KeyVaultError):
            database.put_in_random_order(vault.engine, tables.NAME_INDEX)
