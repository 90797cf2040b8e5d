"""What the key vault promises about restrictions and reinstatements, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyvault.errors import BusyError, NotErasedError, UnknownSubjectError
from keyvault.journal import Journal
from keyvault.values import Reinstatement
from keyvault.vault import Vault
from tests.contract.vault_world import (
    LEDGER,
    NOW,
    OPERATOR,
    OTHER_LEDGER,
    World,
    at_once,
    begin,
    erase,
    key_of,
    postgresql_world,
    set_up,
    sqlite_world,
    status_of,
    view_of,
)


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


def reinstate(vault: Vault, name: str = "patient:A") -> Reinstatement:
    """Let a name begin anew."""
    return vault.reinstate(LEDGER, name, reason="case 2", reinstated_at=NOW + 5000, reinstated_by=OPERATOR)


def lines(world: World, *kinds: str) -> list[tuple[str, bytes]]:
    """The journal's lines of these kinds: kind and ref."""
    return [(line.kind, bytes.fromhex(line.fields["subject_ref"])) for line in world.journal() if line.kind in kinds]


def test_a_name_begins_anew_and_nothing_leads_to_the_old(world: World, vault: Vault) -> None:
    """A new ref, new keys, new streams; the old subject, its fences and its erasure stay as they are."""
    first = vault.reserve(LEDGER, {"patient-A": "patient:A", "patient-B": "patient:B"}, [], mint=True)
    old, old_stream = first.subjects["patient:A"], first.streams["patient-A"]
    old_key = key_of(vault, "patient:A")
    erase(vault, "patient:A")
    before = {name: world.rows(name) for name in ("fences", "erasures")}

    made = reinstate(vault)

    assert made == Reinstatement(LEDGER, made.subject_ref, "case 2", NOW + 5000, OPERATOR)
    found = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"]
    assert (found.ref, found.state, found.names, found.key_ids) == (made.subject_ref, "active", 1, ())
    kept = vault.subject(LEDGER, old)
    assert kept is not None
    assert (kept.state, kept.names, kept.key_ids) == ("erased", 0, ((old_key, ""),))
    assert {name: world.rows(name) for name in before} == before
    assert vault.find_streams(LEDGER, ["patient-A", "patient-B"]) == {"patient-B": first.streams["patient-B"]}
    again = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [("patient:A", "")], mint=True)
    assert again.refused == {}
    assert again.streams["patient-A"].owner_ref == made.subject_ref
    assert again.streams["patient-A"].ref != old_stream.ref
    assert again.keys[made.subject_ref, ""].key_id != old_key
    assert status_of(vault, old_key) == "fenced"
    for name in ("subject_names", "streams", "reinstatements"):
        assert old.hex() not in repr(
            [[value.hex() if isinstance(value, bytes) else value for value in row] for row in world.rows(name)]
        )


def test_only_an_erasure_of_everything_that_is_done_lets_a_name_begin_anew(vault: Vault) -> None:
    """Unknown, active, restricted, erased in part, being erased: each says what it is."""
    with pytest.raises(UnknownSubjectError):
        reinstate(vault, "nobody")
    key_of(vault, "patient:A")
    key_of(vault, "patient:A", "medical")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    with pytest.raises(NotErasedError, match="nothing to reinstate"):
        reinstate(vault)
    erase(vault, "patient:A", 1, ["medical"])
    vault.restrict(LEDGER, ref, NOW)
    with pytest.raises(NotErasedError):
        reinstate(vault)
    entry = begin(vault, "patient:A", 2)
    with pytest.raises(BusyError):
        reinstate(vault)
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW + 9)
    assert reinstate(vault).subject_ref != ref
    with pytest.raises(UnknownSubjectError):
        vault.reinstate(OTHER_LEDGER, "patient:A", reason=None, reinstated_at=NOW, reinstated_by=OPERATOR)


def test_an_erasure_whose_journal_line_is_missing_is_not_done(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The erasure goes to its end first."""
    key_of(vault, "patient:A")
    entry = begin(vault, "patient:A")

    def crash(*_: object, **__: object) -> int:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", crash)
        with pytest.raises(RuntimeError):
            vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    with pytest.raises(BusyError):
        reinstate(vault)


def test_a_blocked_name_can_begin_too(vault: Vault) -> None:
    """It never had a key."""
    entry = begin(vault, "late:1", block=True)
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert vault.reserve(LEDGER, {}, [("late:1", "")], mint=True).refused != {}
    reinstate(vault, "late:1")
    assert vault.reserve(LEDGER, {}, [("late:1", "")], mint=True).refused == {}


def test_of_two_at_once_one_makes_a_subject(world: World, vault: Vault) -> None:
    """Both get the same; a third, when nothing is left to be said, is told that the name is in use."""
    key_of(vault, "patient:A")
    erase(vault, "patient:A")
    peers = [world.open() for _ in range(4)]
    made = at_once(*(lambda peer=peer: reinstate(peer) for peer in peers))
    assert len(set(made)) == 1
    assert len(world.rows("subjects")) == 2
    assert list(vault.open_reinstatements()) == [made[0]]
    for _ in range(2):
        vault.finish_reinstatement(LEDGER, made[0].subject_ref)
    assert list(vault.open_reinstatements()) == []
    assert lines(world, "reinstate") == [("reinstate", made[0].subject_ref)]
    with pytest.raises(NotErasedError):
        reinstate(vault)


def test_writers_and_a_reinstatement_at_once_agree(world: World) -> None:
    """I8: who gets a key gets the new subject's; who comes too early is refused. One key, never two."""
    for number in range(8):
        name, stream = f"patient:{number}", f"patient-{number}"
        vault = world.open()
        vault.reserve(LEDGER, {stream: name}, [(name, "")], mint=True)
        old = vault.find_subjects(LEDGER, [name])[name].ref
        erase(vault, name, number + 1)
        peers = [world.open() for _ in range(3)]

        def write(peer: Vault, name: str = name, stream: str = stream) -> set[bytes]:
            reservation = peer.reserve(LEDGER, {stream: name}, [(name, "")], mint=True)
            return {key.key_id for key in reservation.keys.values()}

        def anew(vault: Vault = vault, name: str = name) -> set[bytes]:
            reinstate(vault, name)
            return set()

        minted = set[bytes]().union(*at_once(anew, *(lambda peer=peer: write(peer) for peer in peers)))
        minted |= write(vault)
        assert len(minted) == 1
        view = view_of(vault, minted.pop())
        assert view is not None
        assert view.subject_ref not in (None, old)


def test_an_erasure_and_a_reinstatement_at_once_leave_one_or_the_other(world: World, vault: Vault) -> None:
    """The new subject is erased like any other; the next reinstatement makes a third."""
    key_of(vault, "patient:A")
    erase(vault, "patient:A")
    made = reinstate(vault)
    key_of(vault, "patient:A")
    entry = erase(vault, "patient:A", 2)
    assert entry.subject_ref == made.subject_ref
    outcomes = at_once(lambda: begin(world.open(), "patient:A", 3).done, lambda: bool(reinstate(world.open())))
    assert outcomes[1]
    third = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"]
    assert third.ref != made.subject_ref
    # The erasure came first, and found all that it asks for done; or it came second, and is the new subject's.
    assert third.state == ("active" if outcomes[0] else "erasing")


def test_the_journal_s_last_line_is_what_holds(world: World, vault: Vault) -> None:
    """Also when two change it at once; what says nothing new is a line that says nothing new."""
    key_of(vault, "patient:A")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    vault.restrict(LEDGER, ref, NOW)
    vault.lift_restriction(LEDGER, ref, NOW)
    assert lines(world, "restrict", "lift") == [("restrict", ref), ("lift", ref)]
    one, other = world.open(), world.open()
    for _ in range(5):
        at_once(lambda: one.restrict(LEDGER, ref, NOW), lambda: other.lift_restriction(LEDGER, ref, NOW))
        entry = vault.subject(LEDGER, ref)
        assert entry is not None
        holds = {"restricted": "restrict", "active": "lift"}[entry.state]
        assert lines(world, "restrict", "lift")[-1] == (holds, ref)


def test_a_restriction_while_a_part_is_erased_says_what_comes(world: World, vault: Vault) -> None:
    """It counts from the end of the erasure on, and the journal has it at once."""
    key_of(vault, "patient:A")
    key_of(vault, "patient:A", "medical")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    begin(vault, "patient:A", 1, ["medical"])
    vault.restrict(LEDGER, ref, NOW)
    entry = vault.subject(LEDGER, ref)
    assert entry is not None
    assert (entry.state, entry.next_state) == ("erasing", "restricted")
    assert lines(world, "restrict", "lift") == [("restrict", ref)]


def test_a_restriction_after_the_shredding_of_a_part_is_not_hidden_by_it(
    world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure has led to its state, and only its journal line is missing: the new state is what the line says."""
    key_of(vault, "patient:A")
    key_of(vault, "patient:A", "medical")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    entry = begin(vault, "patient:A", 1, ["medical"])

    def crash(*_: object, **__: object) -> int:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", crash)
        with pytest.raises(RuntimeError):
            vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    vault.restrict(LEDGER, ref, NOW)
    assert lines(world, "restrict", "lift") == [("restrict", ref)]
    found = vault.subject(LEDGER, ref)
    assert found is not None
    assert (found.state, found.next_state) == ("restricted", "restricted")


def test_a_restricted_key_is_given_for_recording_alone(vault: Vault) -> None:
    """And one that is being shredded not even for that."""
    kept, listed = key_of(vault, "patient:A"), key_of(vault, "patient:A", "medical")
    ref = vault.find_subjects(LEDGER, ["patient:A"])["patient:A"].ref
    vault.restrict(LEDGER, ref, NOW)
    assert status_of(vault, kept) == "restricted"
    assert vault.look_up_keys(LEDGER, [kept], recording=True)[kept].status == "living"
    begin(vault, "patient:A", 1, ["medical"])
    views = vault.look_up_keys(LEDGER, [kept, listed], recording=True)
    assert (views[kept].status, views[listed].status) == ("living", "restricted")
