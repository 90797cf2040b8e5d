"""What the key vault promises about erasures, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from keyvault.errors import (
    KeyVaultError,
    UnknownErasureError,
    UnknownPurposeError,
    UnknownSubjectError,
    VaultUnavailableError,
)
from keyvault.journal import Journal
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
    erasure_id,
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


def ref_of(vault: Vault, name: str) -> bytes:
    return vault.find_subjects(LEDGER, [name])[name].ref


def state_of(vault: Vault, name: str) -> str:
    return vault.find_subjects(LEDGER, [name])[name].state


# Step 1


def test_an_erasure_lists_every_key_but_the_actor_s(vault: Vault) -> None:
    """The final list holds each living key of the subject in order, and not what the person did as an actor."""
    keys = {purpose: key_of(vault, "patient:A", purpose) for purpose in ("", "research", "actor")}
    entry = begin(vault, "patient:A")
    assert tuple(sorted([(keys[""], ""), (keys["research"], "research")])) == entry.key_ids
    assert (erasure_id(1), LEDGER, ref_of(vault, "patient:A")) == (entry.erasure_id, entry.ledger_id, entry.subject_ref)
    assert (
        entry.ground,
        entry.reference,
        entry.name_commitment,
        entry.requested_at,
        entry.requested_by,
    ) == ("17(1)(b)", "case 1", b"c" * 32, NOW + 1, OPERATOR)
    assert (entry.purposes, entry.erased_at, entry.done) == (None, None, False)
    assert entry == vault.erasure(LEDGER, erasure_id(1))
    assert vault.erasure(OTHER_LEDGER, erasure_id(1)) is None
    assert [entry] == vault.open_erasures()
    assert state_of(vault, "patient:A") == "erasing"


def test_listed_keys_are_restricted_and_the_others_live(vault: Vault) -> None:
    """From step 1 on nothing that will be shredded is read any more; what stays, stays readable."""
    listed, kept = key_of(vault, "patient:A"), key_of(vault, "patient:A", "actor")
    other = key_of(vault, "patient:B")
    begin(vault, "patient:A")
    view = view_of(vault, listed)
    assert view is not None
    assert ("restricted", erasure_id(1), None) == (view.status, view.erasure_id, view.key)
    assert (status_of(vault, kept), status_of(vault, other)) == ("living", "living")


@pytest.mark.parametrize("finished", [False, True])
def test_nothing_is_minted_once_an_erasure_has_begun(world: World, vault: Vault, finished: bool) -> None:
    """I8: no new key, no new stream; what lives (the actor's key) is still given; others are not concerned."""
    key_of(vault, "patient:A")
    actor_key = key_of(vault, "patient:A", "actor")
    ref = ref_of(vault, "patient:A")
    entry = begin(vault, "patient:A")
    if finished:
        vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    keys = world.rows("subject_keys")
    for opened in (vault, world.open()):
        for mint in (False, True):
            reservation = opened.reserve(
                LEDGER, {"patient-A": "patient:A"}, [("patient:A", "new"), ("patient:A", "actor")], mint=mint
            )
            assert reservation.complete
            assert {(ref, "new"): "erased", (ref, ""): "erased"} == reservation.refused
            assert reservation.streams == {}
            assert reservation.keys[ref, "actor"].key_id == actor_key
            assert ((ref, "") in reservation.keys) == (not finished)
    assert keys == world.rows("subject_keys")
    assert opened.reserve(LEDGER, {"patient-B": "patient:B"}, [], mint=True).streams.keys() == {"patient-B"}


def test_other_purposes_wait_for_the_end_of_a_partial_erasure(vault: Vault) -> None:
    """I8: nothing is minted while a part is being erased, but that is no reason to refuse for good."""
    key_of(vault, "patient:A", "x")
    ref = ref_of(vault, "patient:A")
    entry = begin(vault, "patient:A", 1, ["x"])
    waiting = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [("patient:A", "new")], mint=True)
    assert ({(ref, "new"): "erasing", (ref, ""): "erasing"}, {}) == (waiting.refused, waiting.streams)
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    after = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [("patient:A", "new")], mint=True)
    assert ({}, {(ref, "new"), (ref, "")}, {"patient-A"}) == (after.refused, set(after.keys), set(after.streams))


def test_the_open_erasure_is_given_back(vault: Vault) -> None:
    """Whoever asks again, by name or ref and for whatever purposes, gets the erasure that is open."""
    key_of(vault, "patient:A")
    first = begin(vault, "patient:A", 1)
    assert first == begin(vault, "patient:A", 2)
    assert first == begin(vault, ref_of(vault, "patient:A"), 3, ["unheard of"])
    assert [first] == vault.open_erasures()


def test_many_who_ask_at_once_get_one_erasure(world: World, vault: Vault) -> None:
    """Of requests at the same time one begins; all get the same."""
    key_of(vault, "patient:A")
    found = at_once(*(partial(begin, world.open(), "patient:A", n) for n in range(1, 7)))
    assert len(set(found)) == 1
    assert len(world.rows("erasures")) == 1


def test_erasing_twice_gives_the_first_erasure(world: World, vault: Vault) -> None:
    """What is erased is erased: the second request changes nothing and gets the first answer."""
    key_of(vault, "patient:A")
    first = erase(vault, "patient:A", 1)
    before = world.everything()
    assert first == begin(vault, "patient:A", 2) == begin(vault, first.subject_ref, 3)
    assert before == world.everything()
    assert first.done


def test_unknown_subjects_are_told_and_leave_nothing(world: World, vault: Vault) -> None:
    """An unknown name or ref is an error and no erasure; a ref is never made up, whatever is asked."""
    before = world.everything()
    for subject, block in (("patient:X", False), (b"x" * 16, False), (b"x" * 16, True)):
        with pytest.raises(UnknownSubjectError) as raised:
            begin(vault, subject, block=block)
        assert "patient:X" not in str(raised.value)
    with pytest.raises(UnknownPurposeError):
        begin(vault, "patient:X", 1, ["p"], block=True)
    assert before == world.everything()


def test_an_unknown_name_can_be_blocked(vault: Vault) -> None:
    """With ``block_unknown`` the name gets a ref and an erasure of no keys; late writers are refused from then on."""
    entry = begin(vault, "patient:X", block=True)
    assert entry.key_ids == ()
    done = vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert done.done
    reservation = vault.reserve(LEDGER, {"patient-X": "patient:X"}, [("patient:X", "")], mint=True)
    assert ({(entry.subject_ref, ""): "erased"}, {}, {}) == (
        reservation.refused,
        reservation.keys,
        reservation.streams,
    )
    assert done == begin(vault, "patient:X", 2, block=True)


def test_a_name_blocked_and_written_at_once_is_one_subject(world: World) -> None:
    """A first writer and a blocker of the same name meet in one subject: the key is in the list or never made."""
    writer, blocker = world.open(), world.open()

    def write() -> bytes:
        return writer.reserve(LEDGER, {}, [("patient:X", "")], mint=True).subjects["patient:X"]

    refs = at_once(write, lambda: begin(blocker, "patient:X", block=True).subject_ref)
    assert len(set(refs)) == len(world.rows("subjects")) == 1
    (entry,) = blocker.open_erasures()
    assert {key_id for key_id, _ in entry.key_ids} == {row[0] for row in world.rows("subject_keys")}


def test_a_subject_with_actor_keys_only_is_erased_as_well(vault: Vault) -> None:
    """There is nothing to shred, and from then on nothing but the actor's key is given."""
    actor_key = key_of(vault, "doctor:L", "actor")
    entry = erase(vault, "doctor:L")
    assert (entry.done, entry.key_ids) == (True, ())
    assert (state_of(vault, "doctor:L"), status_of(vault, actor_key)) == ("erased", "living")
    assert set(vault.reserve(LEDGER, {}, [("doctor:L", "")], mint=True).refused.values()) == {"erased"}


# Purposes


def test_a_purpose_is_erased_on_its_own(vault: Vault) -> None:
    """Only the purposes asked for go; the subject lives on, its other purposes and new ones too."""
    gone, kept = key_of(vault, "patient:A", "research"), key_of(vault, "patient:A")
    entry = erase(vault, "patient:A", 1, ["research", "research"])
    assert (("research",), ((gone, "research"),)) == (entry.purposes, entry.key_ids)
    assert (status_of(vault, gone), status_of(vault, kept)) == ("fenced", "living")
    assert state_of(vault, "patient:A") == "active"
    ref = ref_of(vault, "patient:A")
    later = vault.reserve(LEDGER, {}, [("patient:A", "research"), ("patient:A", "new")], mint=True)
    assert ({(ref, "research"): "erased"}, {(ref, "new")}) == (later.refused, set(later.keys))


def test_a_stream_is_not_made_for_an_owner_whose_own_purpose_is_fenced(vault: Vault) -> None:
    """A stream's name is sealed under its owner's key of purpose "": without it no event could ever stand in it."""
    key_of(vault, "patient:A")
    erase(vault, "patient:A", 1, [""])
    reservation = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=True)
    assert ({}, {(ref_of(vault, "patient:A"), ""): "erased"}) == (reservation.streams, reservation.refused)


def test_an_existing_stream_shows_that_its_owner_is_erased(vault: Vault) -> None:
    """The stream keeps its ref, and its owner's key is refused."""
    stream = vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=True).streams["patient-A"]
    erase(vault, "patient:A")
    for owner in ("patient:A", "patient:B", None):
        reservation = vault.reserve(LEDGER, {"patient-A": owner}, [], mint=True)
        assert ({"patient-A": stream}, {(stream.owner_ref, ""): "erased"}) == (reservation.streams, reservation.refused)


def test_actor_data_goes_when_it_is_asked_for(vault: Vault) -> None:
    """Named explicitly, ``actor`` is a purpose like any other, also of a subject that is erased already."""
    actor_key = key_of(vault, "patient:A", "actor")
    key_of(vault, "patient:A")
    whole = erase(vault, "patient:A", 1)
    part = erase(vault, "patient:A", 2, ["actor"])
    assert (status_of(vault, actor_key), state_of(vault, "patient:A")) == ("fenced", "erased")
    assert whole == begin(vault, "patient:A", 3)
    assert part == begin(vault, "patient:A", 4, ["actor"])


def test_purposes_that_are_all_fenced_give_the_newest_erasure(vault: Vault) -> None:
    """What has been shredded is answered by the erasure that shredded it, the newest if there were several."""
    for purpose in ("a", "b", "c"):
        key_of(vault, "patient:A", purpose)
    first, second = erase(vault, "patient:A", 1, ["a"]), erase(vault, "patient:A", 2, ["b"])
    assert first == begin(vault, "patient:A", 3, ["a"])
    assert second == begin(vault, "patient:A", 4, ["b", "a"])
    third = begin(vault, "patient:A", 5, ["a", "c"])
    assert (erasure_id(5), ["c"]) == (third.erasure_id, [purpose for _, purpose in third.key_ids])


def test_unknown_purposes_are_told(world: World, vault: Vault) -> None:
    """A purpose without key or fence is an error that lists it; no purpose at all is the caller's mistake."""
    key_of(vault, "patient:A")
    before = world.everything()
    with pytest.raises(UnknownPurposeError) as raised:
        begin(vault, "patient:A", 1, ["", "z", "y"])
    assert raised.value.purposes == ("y", "z")
    with pytest.raises(ValueError, match="no purposes"):
        begin(vault, "patient:A", 1, [])
    assert before == world.everything()


def test_a_restriction_survives_the_erasure_of_a_part(vault: Vault) -> None:
    """A restricted subject stays restricted during and after; restricting in between counts from the end on."""
    kept = key_of(vault, "patient:A")
    key_of(vault, "patient:A", "x")
    key_of(vault, "patient:A", "y")
    ref = ref_of(vault, "patient:A")
    vault.restrict(LEDGER, ref, NOW)
    entry = begin(vault, "patient:A", 1, ["x"])
    assert status_of(vault, kept) == "restricted"
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert (status_of(vault, kept), state_of(vault, "patient:A")) == ("restricted", "restricted")
    entry = begin(vault, "patient:A", 2, ["y"])
    vault.lift_restriction(LEDGER, ref, NOW)
    assert (status_of(vault, kept), state_of(vault, "patient:A")) == ("living", "erasing")
    vault.restrict(LEDGER, ref, NOW)
    vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert (status_of(vault, kept), state_of(vault, "patient:A")) == ("restricted", "restricted")


# Steps 3 and 4


def test_finishing_deletes_the_key_rows_and_nothing_else(world: World, vault: Vault) -> None:
    """I6: fences in, key rows out, state settled, a line in the journal; every other row stays as it was."""
    shredded = [key_of(vault, "patient:A"), key_of(vault, "patient:A", "x")]
    key_of(vault, "patient:A", "actor")
    key_of(vault, "patient:B")
    vault.reserve(LEDGER, {"patient-A": "patient:A"}, [], mint=True)
    before = world.everything()
    entry = erase(vault, "patient:A")
    after = world.everything()
    assert [row for row in before["subject_keys"] if row[0] not in shredded] == after["subject_keys"]
    expected = {
        (key_id, LEDGER, entry.subject_ref, purpose, 1, NOW + 1001, entry.erasure_id, 1)
        for key_id, purpose in entry.key_ids
    }
    assert expected == set(after["fences"])
    for name in ("subject_names", "streams", "ledger_secrets", "epochs"):
        assert before[name] == after[name]
    assert (entry.done, entry.erased_at) == (True, NOW + 1001)
    line = world.journal()[-1]
    assert line.kind == "shred"
    assert line.fields == {
        "ledger_id": str(LEDGER),
        "erasure_id": str(entry.erasure_id),
        "subject_ref": entry.subject_ref.hex(),
        "key_ids": [key_id.hex() for key_id, _ in entry.key_ids],
        "purposes": [purpose for _, purpose in entry.key_ids],
        "requested": None,
        "next_state": "erased",
        "requested_at": entry.requested_at,
        "requested_by": str(entry.requested_by),
        "erased_at": NOW + 1001,
    }


def test_finishing_again_changes_nothing(world: World, vault: Vault) -> None:
    """Neither rows nor journal change, and the first time of erasure stays."""
    key_of(vault, "patient:A")
    entry = erase(vault, "patient:A")
    before, lines = world.everything(), world.journal()
    assert entry == vault.finish_erasure(LEDGER, entry.erasure_id, NOW + 5)
    assert (before, lines) == (world.everything(), world.journal())


def test_an_erasure_that_was_never_begun_cannot_be_finished(vault: Vault) -> None:
    """An id that the ledger does not have is an error, also when another ledger has it."""
    key_of(vault, "patient:A")
    entry = begin(vault, "patient:A")
    for ledger_id, wrong in ((LEDGER, erasure_id(9)), (OTHER_LEDGER, entry.erasure_id)):
        with pytest.raises(UnknownErasureError):
            vault.finish_erasure(ledger_id, wrong, NOW)
    assert status_of(vault, entry.key_ids[0][0]) == "restricted"


@pytest.mark.parametrize(
    "step",
    ["store.delete_keys", "name_store.set_subject_state", "erasure_store.mark_shredded"],
)
def test_a_crash_inside_step_3_leaves_step_1(
    world: World, vault: Vault, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: fences, rows and state go together or not at all; the next call does it."""
    key_id = key_of(vault, "patient:A")
    entry = begin(vault, "patient:A")
    before = world.everything()
    with monkeypatch.context() as patch:
        patch.setattr(f"keyvault.{step}", _crash)
        with pytest.raises(InterruptedError):
            vault.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert before == world.everything()
    assert [entry] == world.open().open_erasures()
    assert world.open().finish_erasure(LEDGER, entry.erasure_id, NOW).done
    assert (status_of(vault, key_id), len(world.journal())) == ("fenced", 2)


@pytest.mark.parametrize(("step", "lines"), [("journal.Journal.append", 1), ("erasure_store.mark_done", 2)])
def test_a_crash_around_the_journal_line_is_repaired(
    world: World, vault: Vault, step: str, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: the keys are gone, the erasure is open, and the next call writes the line (again) with the first time."""
    key_id = key_of(vault, "patient:A")
    entry = begin(vault, "patient:A")
    with monkeypatch.context() as patch:
        patch.setattr(f"keyvault.{step}", _crash)
        with pytest.raises(InterruptedError):
            vault.finish_erasure(LEDGER, entry.erasure_id, NOW + 1)
    assert status_of(vault, key_id) == "fenced"
    (shredded,) = world.open().open_erasures()
    assert (entry.erasure_id, NOW + 1, False) == (shredded.erasure_id, shredded.erased_at, shredded.done)
    assert shredded == begin(vault, "patient:A", 2)
    done = world.open().finish_erasure(LEDGER, entry.erasure_id, NOW + 2)
    assert (done.done, done.erased_at, list(vault.open_erasures())) == (True, NOW + 1, [])
    shreds = [line.fields for line in world.journal() if line.kind == "shred"]
    assert lines == len(shreds)
    assert all(fields == shreds[0] for fields in shreds)


def test_a_journal_that_is_down_leaves_the_erasure_open(world: World, vault: Vault) -> None:
    """Without its line no erasure is acknowledged; the keys are gone all the same."""
    key_id = key_of(vault, "patient:A")
    entry = begin(vault, "patient:A")
    broken = Vault(vault.engine, vault._keyring.provider, Journal(world.folder / "missing" / "journal"), world.clock)
    with pytest.raises(VaultUnavailableError):
        broken.finish_erasure(LEDGER, entry.erasure_id, NOW)
    assert (status_of(vault, key_id), len(vault.open_erasures())) == ("fenced", 1)
    assert vault.finish_erasure(LEDGER, entry.erasure_id, NOW).done


def test_two_who_finish_at_once_both_succeed(world: World, vault: Vault) -> None:
    """A worker that resumes and the request that still runs do not disturb each other."""
    key_of(vault, "patient:A")
    entry = begin(vault, "patient:A")
    done = at_once(*(partial(world.open().finish_erasure, LEDGER, entry.erasure_id, NOW + n) for n in range(4)))
    assert len(set(done)) == 1
    assert {line.kind for line in world.journal()} == {"epoch-created", "shred"}
    assert len(world.rows("fences")) == 1


# No resurrection


@pytest.mark.parametrize("round_", range(4))
def test_racing_writers_bring_no_key_back(world: World, round_: int) -> None:
    """I8: however writers race an eraser, each key they got is in its list, and none lives after it."""
    writers, eraser = [world.open() for _ in range(3)], world.open()
    key_of(eraser, "patient:A")

    def write(vault: Vault, n: int) -> set[bytes]:
        got = set()
        for i in range(6):
            found = vault.reserve(LEDGER, {}, [("patient:A", f"p{n}.{i}"), ("patient:A", "")], mint=True)
            got |= {key.key_id for key in found.keys.values()}
        return got

    def shred() -> set[bytes]:
        return {key_id for key_id, _ in erase(eraser, "patient:A").key_ids}

    *handed_out, listed = at_once(*(partial(write, vault, n) for n, vault in enumerate(writers)), shred)
    assert set().union(*handed_out) <= listed
    assert world.rows("subject_keys") == []
    assert {row[0] for row in world.rows("fences")} == listed


def test_a_row_that_comes_back_from_a_backup_stays_dead(world: World, vault: Vault) -> None:
    """I8: while the fence stands, a restored key row is neither shown as living nor given to a writer."""
    key_id = key_of(vault, "patient:A")
    row = world.rows("subject_keys")[0]
    erase(vault, "patient:A", 1, [""])
    names = ["key_id", "ledger_id", "subject_ref", "purpose", "generation", "wrapped_dek", "epoch", "created_at"]
    values = dict(zip(names, row, strict=True))
    values["ledger_id"] = LEDGER.bytes if world.url.startswith("sqlite") else LEDGER
    places = ", ".join(f":{name}" for name in names)
    world.execute(f"INSERT INTO subject_keys ({', '.join(names)}) VALUES ({places})", **values)
    for opened in (vault, world.open()):
        assert status_of(opened, key_id) == "fenced"
        reservation = opened.reserve(LEDGER, {}, [("patient:A", "")], mint=True)
        assert (reservation.keys, list(reservation.refused.values())) == ({}, ["erased"])


@pytest.mark.parametrize("purposes", [None, [""]])
def test_a_forged_fence_does_not_keep_a_key_from_being_shredded(
    world: World, vault: Vault, purposes: list[str] | None
) -> None:
    """I6: whoever takes the fence away afterwards must not find the key behind it."""
    key_id = key_of(vault, "patient:A")
    world.execute(
        "INSERT INTO fences (key_id, ledger_id, subject_ref, purpose, generation, shredded_at, erasure_id, epoch) "
        "SELECT key_id, ledger_id, subject_ref, purpose, generation, 1, ledger_id, epoch FROM subject_keys"
    )
    assert erase(vault, "patient:A", 1, purposes).key_ids == ((key_id, ""),)
    assert world.rows("subject_keys") == []
    assert status_of(vault, key_id) == "fenced"


def test_a_fence_of_no_erasure_answers_no_request(world: World, vault: Vault) -> None:
    """The key row is gone by a hand, too: what is asked for is an erasure of its own, with nothing left to shred."""
    key_of(vault, "patient:A")
    world.execute(
        "INSERT INTO fences (key_id, ledger_id, subject_ref, purpose, generation, shredded_at, erasure_id, epoch) "
        "SELECT key_id, ledger_id, subject_ref, purpose, generation, 1, ledger_id, epoch FROM subject_keys"
    )
    world.execute("DELETE FROM subject_keys")
    done = erase(vault, "patient:A", 1, [""])
    assert (done.erasure_id, done.key_ids, done.done) == (erasure_id(1), (), True)


@pytest.mark.parametrize("statement", ["UPDATE fences SET purpose = 'other'", "DELETE FROM fences"])
def test_fences_cannot_be_changed(world: World, vault: Vault, statement: str) -> None:
    """I8: the database itself forbids it, to its owner too."""
    key_of(vault, "patient:A")
    erase(vault, "patient:A")
    before = world.rows("fences")
    with pytest.raises(KeyVaultError):
        world.execute(statement)
    assert before == world.rows("fences")


def test_the_shredded_wrap_leaves_the_files(world: World, vault: Vault) -> None:
    """On SQLite not even the wrapped key is left in the files once the erasure is done."""
    key_of(vault, "patient:A")
    kept = key_of(vault, "patient:B")
    wraps = {row[0] == kept: row[5] for row in world.rows("subject_keys")}
    assert len(wraps) == 2
    erase(vault, "patient:A")
    (live,) = world.rows("subject_keys")
    assert live[5] == wraps[True]
    if world.url.startswith("sqlite"):
        files = b"".join(path.read_bytes() for path in world.folder.glob("keyvault.db*"))
        assert (wraps[False] in files, wraps[True] in files) == (False, True)


# Listing


def test_erasures_are_listed_in_order(vault: Vault) -> None:
    """By id, in pages, by reference and state; open ones by time, of all ledgers."""
    for n in (3, 1, 2, 4):
        key_of(vault, f"patient:{n}")
        begin(vault, f"patient:{n}", n)
    vault.finish_erasure(LEDGER, erasure_id(2), NOW)

    def listed(
        *, reference: str | None = None, done: bool | None = None, after: int | None = None, limit: int = 100
    ) -> list[int]:
        found = vault.erasures(
            LEDGER,
            reference=reference,
            done=done,
            after=None if after is None else erasure_id(after),
            limit=limit,
        )
        return [entry.erasure_id.int & 0xFF for entry in found]

    assert listed() == [1, 2, 3, 4]
    assert listed(limit=2) == [1, 2]
    assert listed(after=2, limit=1) == [3]
    assert listed(done=True) == [2]
    assert listed(done=False, after=1) == [3, 4]
    assert listed(reference="case 1") == [1, 2, 3, 4]
    assert listed(reference="case 2") == []
    assert vault.erasures(OTHER_LEDGER, reference=None, done=None, after=None, limit=10) == []
    assert [entry.erasure_id for entry in vault.open_erasures()] == [erasure_id(n) for n in (1, 3, 4)]


def _crash(*_: object, **__: object) -> None:
    raise InterruptedError("killed here")
