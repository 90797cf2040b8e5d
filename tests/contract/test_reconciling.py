"""I8: what comes back from an older copy is noticed, and what that has undone is done again before all else."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from api.cli import cli
from api.commands.errors import CommandError
from api.guard import DOUBTS, Guard
from api.readiness import NotReadyError
from api.receipts import ReceiptError, read_receipts
from api.rendering import render_receipt
from keyvault import tables as vault_tables
from keyvault.errors import EpochRefusedError, UnknownSubjectError
from keyvault.values import Reservation
from ledger.domain.encoding import leaf_of
from ledger.domain.merkle import hash_leaf
from ledger.domain.query import NameOrRef
from ledger.errors import RestoredError, SubjectErasedError
from ledger.services.dependencies import Dependencies
from ledger.services.reconciling.going_on import go_on, lead_to_streams_again, lost_keys, record_erasures_again
from ledger.services.reconciling.looking import look
from ledger.services.reconciling.mending import Mended, mend
from ledger.services.reinstating import reinstate_subject
from ledger.services.restricting import lift_restriction, restrict_subject
from ledger.services.verifying.published import SIGNED
from ledger.storage import tables
from tests.contract.old_copies import OldCopies, Part, service_with_old_copies
from tests.support import rows
from tests.support.ledgers import PRIVACY_OFFICER, a_fact, a_visit, reasons
from tests.support.postgres import PostgresCluster
from tests.support.restoring import Databases, SqliteFiles, Templates

AS_SERVED = DOUBTS
ALICE = "patient:A"
BOB = "patient:B"


@pytest.fixture(params=["sqlite", "postgresql"])
def copies(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OldCopies]:
    """A service of its own, on each engine in turn. Nobody else is at work, so nothing is looked at for long."""
    monkeypatch.setattr("api.guard.DOUBTS", (0.01,))
    home, folder = tmp_path / "home", tmp_path / "copies"
    home.mkdir(mode=0o700)
    folder.mkdir()
    databases: Databases
    if request.param == "sqlite":
        databases = SqliteFiles(home)
    else:
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        databases = Templates(cluster)
    with service_with_old_copies(databases, home, folder) as made:
        yield made


def restrict(copies: OldCopies, name: str) -> None:
    """As the privacy team does."""
    ledger = copies.ledger
    restrict_subject(ledger.deps, ledger.ledger_id, NameOrRef(name, None), reason=None, requested_by=PRIVACY_OFFICER)


def lift(copies: OldCopies, name: str) -> None:
    """As the privacy team does."""
    ledger = copies.ledger
    lift_restriction(ledger.deps, ledger.ledger_id, NameOrRef(name, None), reason=None, requested_by=PRIVACY_OFFICER)


def shown(copies: OldCopies, position: int = 0) -> str | None:
    """Why the data of an event is not shown; None: it is."""
    return reasons(copies.ledger.event_at(position)).get("/data")


def contradictions(copies: OldCopies) -> list[str]:
    """What verify finds: a ledger that went on from an older copy is not the one of which a checkpoint was signed."""
    return [finding.what for finding in copies.ledger.verify().findings]


@pytest.mark.parametrize("old", [("vault",), ("vault", "journal"), ("vault", "ledger")], ids=" and ".join)
def test_an_erasure_since_is_carried_out_again(copies: OldCopies, old: tuple[Part, ...]) -> None:
    """From whichever of ledger and journal still knows of it; nobody is asked, and the ledger says that it happened."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    key_id = copies.ledger.key_of(ALICE)
    copies.keep(*old)
    outcome = copies.ledger.erase(ALICE)
    copies.put_back(*old)
    assert copies.ledger.deps.vault.look_up_keys(copies.ledger.ledger_id, [key_id])[key_id].status == "living"
    assert copies.found() == set()
    assert copies.ledger.deps.vault.look_up_keys(copies.ledger.ledger_id, [key_id])[key_id].status == "fenced"
    assert (shown(copies, 0), shown(copies, 1)) == ("erased", None)
    with pytest.raises(SubjectErasedError):
        copies.ledger.append(a_visit("A"))
    entry = copies.service.vault.erasure(copies.ledger.ledger_id, outcome.erasure.entry.erasure_id)
    assert entry is not None
    assert (entry.done, entry.key_ids) == (True, outcome.erasure.entry.key_ids)
    assert [said["erased_again"] for said in copies.said()] == [1]
    assert copies.found() == set()
    assert len(copies.said()) == 1
    copies.ledger.append(a_visit("B"))
    assert contradictions(copies) == ([SIGNED] if "ledger" in old else [])


@pytest.mark.parametrize("old", [("vault",), ("vault", "journal"), ("vault", "ledger")], ids=" and ".join)
def test_an_erasure_of_one_purpose_leaves_the_others(copies: OldCopies, old: tuple[Part, ...]) -> None:
    """What is erased again is what was asked for, and nothing else."""
    copies.ledger.append(a_visit("A"), a_visit("A", purpose="research"))
    copies.keep(*old)
    erasure_id = copies.ledger.erase(ALICE, ["research"]).erasure.entry.erasure_id
    copies.put_back(*old)
    assert copies.found() == set()
    entry = copies.service.vault.erasure(copies.ledger.ledger_id, erasure_id)
    assert entry is not None
    assert (entry.purposes, entry.next_state) == (("research",), "active")
    assert (shown(copies, 0), shown(copies, 1)) == (None, "erased")
    copies.ledger.append(a_visit("A"))
    with pytest.raises(SubjectErasedError):
        copies.ledger.append(a_visit("A", purpose="research"))


def test_whoever_came_and_went_since_stays_away(copies: OldCopies) -> None:
    """The vault has never heard of somebody who was first seen, and erased, since: the ref and the key stay dead."""
    copies.ledger.append(a_visit("A"))
    copies.keep("vault")
    copies.ledger.append(a_visit("B"))
    ref, key_id = copies.ledger.subject_ref(BOB), copies.ledger.key_of(BOB)
    copies.ledger.erase(BOB)
    copies.put_back("vault")
    assert copies.found() == {"vault-behind"}
    subject = copies.service.vault.subject(copies.ledger.ledger_id, ref)
    assert subject is not None
    assert (subject.state, subject.key_ids, subject.names) == ("erased", ((key_id, ""),), 0)
    copies.service.vault.unlink(copies.ledger.ledger_id, ref, copies.ledger.deps.clock())
    assert list(lost_keys(copies.ledger.deps, copies.ledger.ledger_id)) == []


@pytest.mark.parametrize("old", [("vault",), ("vault", "journal")], ids=" and ".join)
def test_restrictions_since_hold_again(copies: OldCopies, old: tuple[Part, ...]) -> None:
    """And who was restricted and is not any more can be read, where a signed line of the journal says so."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    restrict(copies, BOB)
    copies.keep(*old)
    restrict(copies, ALICE)
    lift(copies, BOB)
    copies.put_back(*old)
    assert (shown(copies, 0), shown(copies, 1)) == (None, "restricted")
    # Lines that are gone with the journal may have said more than what the ledger knows: somebody has to know that.
    assert copies.found() == ({"vault-behind"} if "journal" in old else set())
    assert (shown(copies, 0), shown(copies, 1)) == ("restricted", "restricted" if "journal" in old else None)
    assert len(copies.said()) == 1


def test_a_vault_that_is_ahead_of_the_log_is_no_older_one(copies: OldCopies) -> None:
    """A restriction was lifted, and the process died before the ledger recorded that: it stays lifted."""
    copies.ledger.append(a_visit("A"))
    copies.note()
    restrict(copies, ALICE)
    vault, ledger_id = copies.service.vault, copies.ledger.ledger_id
    vault.lift_restriction(ledger_id, copies.ledger.subject_ref(ALICE), copies.service.deps.clock())
    assert copies.found() == set()
    assert (shown(copies), copies.said()) == (None, [])


def test_counts_that_a_hand_has_put_there_do_not_stop_a_ledger_for_good(copies: OldCopies) -> None:
    """Larger than any can be: whoever says that all is well goes on from the vault's own count."""
    copies.ledger.append(a_visit("A"))
    copies.ledger.backend.tamper(sa.update(tables.heads).values(vault_mints=2**63 - 1))
    assert copies.found() == {"vault-behind"}
    go_on(copies.ledger.deps)
    assert copies.found() == set()
    copies.ledger.append(a_visit("B"))


def test_nobody_can_lift_a_restriction_in_the_ledgers_database(copies: OldCopies) -> None:
    """Not by a made-up event, and not by an old one that is put behind a newer restriction."""
    copies.ledger.append(a_visit("A"))
    for change in (restrict, lift, restrict):
        change(copies, ALICE)
    copies.note()
    size = copies.ledger.size()
    lifted = copies.ledger.recorded()[2]
    assert lifted.envelope.event_type == "SubjectUnrestricted"
    again = replace(lifted, position=size, stream_version=4, envelope=replace(lifted.envelope, event_id=uuid4()))
    row = rows.event_row(replace(again, leaf_hash=hash_leaf(leaf_of(again))))
    heads = sa.update(tables.heads).values(size=size + 1)
    copies.ledger.backend.tamper(sa.insert(tables.events).values(**row), heads)
    copies.found()
    assert shown(copies) == "restricted"


def test_a_restriction_that_somebody_made_up_in_the_ledger_restricts_nobody(copies: OldCopies) -> None:
    """What is sealed in the event has to name the subject."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    restrict(copies, BOB)
    copies.note()
    size, ref = copies.ledger.size(), copies.ledger.subject_ref(ALICE)
    theirs = copies.ledger.recorded()[2]
    forged = replace(theirs, position=size, envelope=replace(theirs.envelope, event_id=uuid4(), stream_ref=ref))
    row = rows.event_row(replace(forged, leaf_hash=hash_leaf(leaf_of(forged))))
    heads = sa.update(tables.heads).values(size=size + 1)
    copies.ledger.backend.tamper(sa.insert(tables.events).values(**row), heads)
    copies.found()
    assert (shown(copies, 0), shown(copies, 1)) == (None, "restricted")


def test_lost_keys_are_listed_and_nothing_goes_on_before_somebody_says_so(copies: OldCopies) -> None:
    """A key that was made since is gone with the newer vault; a newer copy would bring it back."""
    copies.ledger.append(a_visit("A"))
    copies.keep("vault")
    copies.ledger.append(a_visit("A"), a_visit("B"), a_visit("B"))
    key_id = copies.ledger.key_of(BOB)
    copies.put_back("vault")
    guard = copies.guard()
    assert [finding.trouble for finding in guard.start()] == ["vault-behind"]
    with pytest.raises(NotReadyError):
        guard.require()
    with pytest.raises(RestoredError):
        copies.ledger.append(a_visit("A"))
    (lost,) = lost_keys(copies.ledger.deps, copies.ledger.ledger_id)
    assert (lost.key_id, lost.usage.events, lost.usage.first, lost.usage.last) == (key_id, 2, 2, 3)
    go_on(copies.ledger.deps)
    assert copies.found() == set()
    copies.ledger.append(a_visit("A"), a_visit("B"))
    assert (shown(copies, 1), shown(copies, 2), shown(copies, 5)) == (None, "unreadable", None)


def test_a_stream_alone_is_enough_to_notice(copies: OldCopies) -> None:
    """No key was made since, only the ref of a stream: it would have begun anew, beside itself."""
    copies.ledger.append(a_visit("A"))
    copies.keep("vault")
    copies.ledger.append(a_visit("A", stream="visit-2"))
    copies.put_back("vault")
    with pytest.raises(RestoredError):
        copies.ledger.append(a_visit("A", stream="visit-2"))
    assert copies.found() == {"vault-behind"}
    assert lead_to_streams_again(copies.ledger.deps, copies.ledger.ledger_id) == 1
    assert lead_to_streams_again(copies.ledger.deps, copies.ledger.ledger_id) == 0
    go_on(copies.ledger.deps)
    assert copies.found() == set()
    assert copies.ledger.append_one(a_visit("A", stream="visit-2")).stream_version == 2


def test_a_name_that_was_forgotten_since_is_forgotten_again(copies: OldCopies) -> None:
    """Behind the erasure, which is carried out again first."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    copies.keep("vault")
    ref = copies.ledger.erase(ALICE).erasure.entry.subject_ref
    since = copies.service.vault.unlink(copies.ledger.ledger_id, ref, copies.ledger.deps.clock())
    copies.put_back("vault")
    assert copies.ledger.subject_ref(ALICE) == ref
    assert copies.found() == set()
    assert copies.service.vault.find_subjects(copies.ledger.ledger_id, [ALICE]) == {}
    assert copies.service.vault.unlink(copies.ledger.ledger_id, ref, since) >= since
    with pytest.raises(SubjectErasedError):
        copies.ledger.append(a_visit("A"))
    copies.ledger.append(a_visit("B"))


def test_a_name_that_began_anew_since_is_noticed(copies: OldCopies) -> None:
    """It leads to the erased again; who it leads to now is nowhere but in the newer vault."""
    copies.ledger.append(a_visit("A"))
    copies.ledger.erase(ALICE)
    copies.keep("vault")
    deps, ledger_id = copies.ledger.deps, copies.ledger.ledger_id
    reinstate_subject(deps, ledger_id, ALICE, reason=None, requested_by=PRIVACY_OFFICER)
    copies.put_back("vault")
    assert copies.found() == {"vault-behind"}


def test_an_older_ledger_records_its_erasures_again(copies: OldCopies) -> None:
    """Its events are gone; that people were erased is said again, before anybody reads."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    copies.keep("ledger")
    copies.ledger.erase(ALICE)
    copies.ledger.append(a_visit("B"))
    copies.note()
    copies.put_back("ledger")
    assert copies.found() == {"ledger-behind"}
    with pytest.raises(RestoredError):
        copies.ledger.append(a_visit("B"))
    assert record_erasures_again(copies.ledger.deps, copies.ledger.ledger_id) == 1
    assert copies.found() == {"ledger-behind"}
    go_on(copies.ledger.deps)
    assert copies.found() == set()
    assert (shown(copies, 0), shown(copies, 1)) == ("erased", None)
    copies.ledger.append(a_visit("B"))
    assert contradictions(copies) == [SIGNED]


def test_a_ledger_that_went_another_way_is_noticed(copies: OldCopies) -> None:
    """As long as before, or longer, but not the same: somebody has appended to an older copy."""
    copies.ledger.append(a_visit("A"))
    copies.keep("ledger")
    copies.ledger.append(a_fact(), a_fact())
    copies.note()
    copies.put_back("ledger")
    aside = copies.ledger.with_parts(vault=_Forgetful(copies))
    aside.append(a_fact(), a_fact(), a_fact())
    assert copies.found() == {"ledger-changed"}


class _Forgetful:
    """A vault that has never seen the ledger: that of an older version of the service, say."""

    def __init__(self, copies: OldCopies) -> None:
        self._vault = copies.service.vault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def reserve(self, *arguments: Any, **named: Any) -> Reservation:
        """As the vault does, but for the ledger's size."""
        reservation = self._vault.reserve(*arguments, **named)
        return replace(reservation, mark=replace(reservation.mark, size=0))


def test_all_of_them_old_is_told_by_receipts(copies: OldCopies, tmp_path: Path) -> None:
    """Ledger, vault and journal fit each other; a receipt that was kept elsewhere erases again what it speaks of."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    copies.keep("vault", "ledger", "journal")
    outcome = copies.ledger.erase(ALICE)
    kept = tmp_path / "receipts"
    kept.mkdir()
    (kept / "1.json").write_text(json.dumps(render_receipt(outcome.receipt)))
    copies.put_back("vault", "ledger", "journal")
    assert copies.found() == set()
    assert shown(copies, 0) is None
    mended = mend(copies.ledger.deps, read_receipts(copies.service, kept))
    assert [lost.erasure_id for lost in mended.erased] == [outcome.erasure.entry.erasure_id]
    assert (shown(copies, 0), shown(copies, 1)) == ("erased", None)
    assert copies.found() == set()
    again = copies.service.vault.erasure(copies.ledger.ledger_id, outcome.erasure.entry.erasure_id)
    assert again is not None
    assert again.name_commitment == outcome.erasure.entry.name_commitment
    assert mend(copies.ledger.deps, read_receipts(copies.service, kept)).erased == []


def test_nobody_is_erased_on_a_forged_receipt(copies: OldCopies, tmp_path: Path) -> None:
    """Every file is checked before anything is done."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    receipt = render_receipt(copies.ledger.erase(ALICE).receipt)
    ref, key_id = copies.ledger.subject_ref(BOB), copies.ledger.key_of(BOB)
    payload = {**receipt["payload"], "subject_ref": f"sub_{ref.hex()}", "key_ids": [key_id.hex()]}
    forged = {**receipt, "payload": payload}
    surrogate = json.dumps({**receipt, "payload": {**receipt["payload"], "leaf": "\ud800"}})
    unsigned = json.dumps({**receipt, "signature": "AAAA"})
    for content in (json.dumps(forged), "{}", "[]", "no json", "[" * 100_000, surrogate, unsigned):
        (tmp_path / "receipt.json").write_text(content)
        with pytest.raises(ReceiptError, match=r"receipt\.json"):
            read_receipts(copies.service, tmp_path)
    (tmp_path / "receipt.json").unlink()
    os.mkfifo(tmp_path / "receipt.json")
    assert read_receipts(copies.service, tmp_path) == []
    with pytest.raises(ReceiptError, match="cannot look into"):
        read_receipts(copies.service, tmp_path / "missing")
    assert shown(copies, 1) is None


@pytest.mark.parametrize("persisted", [False, True], ids=["failed", "persisted"])
@pytest.mark.parametrize("step", ["begin_again", "note_ledgers", "settle", "destroy_returned_keks"])
def test_mending_that_was_cut_short_is_finished_by_the_next(
    copies: OldCopies, monkeypatch: pytest.MonkeyPatch, step: str, persisted: bool
) -> None:
    """I12: each of its writes once not done, and once done with nobody left to hear of it."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    copies.keep("vault")
    copies.ledger.erase(ALICE)
    restrict(copies, BOB)
    copies.put_back("vault")
    guard = copies.service.vault.guard
    works: Callable[..., object] = getattr(guard, step)

    def die(*arguments: object, **named: object) -> object:
        if persisted:
            works(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(guard, step, die)
        with pytest.raises(KeyboardInterrupt):
            copies.guard().start()
    assert copies.found() == set()
    assert (shown(copies, 0), shown(copies, 1)) == ("erased", "restricted")


def test_a_line_that_a_crash_left_behind_the_mark_is_no_alarm(
    copies: OldCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's line was written, and nobody lived to note that: the line is true, and the mark goes on."""
    copies.ledger.append(a_visit("A"))
    with monkeypatch.context() as patch:
        patch.setattr("keyvault.mark_store.note_journal", lambda *_: None)
        copies.ledger.erase(ALICE)
    before = copies.service.vault.guard.marks().journal
    assert look(copies.ledger.deps, thorough=True) == []
    assert copies.service.vault.guard.marks().journal.n == before.n + 1
    assert copies.said() == []


def test_a_line_never_hides_those_before_it(copies: OldCopies) -> None:
    """An older vault that writes a line goes on knowing that it has not seen the lines before that."""
    copies.ledger.append(a_visit("A"), a_visit("B"))
    copies.keep("vault")
    copies.ledger.erase(ALICE)
    copies.put_back("vault")
    restrict(copies, BOB)
    assert {finding.trouble for finding in look(copies.ledger.deps, thorough=False)} == {"erasures-undone"}
    assert copies.found() == set()
    assert (shown(copies, 0), shown(copies, 1)) == ("erased", "restricted")


def test_many_at_work_raise_no_alarm(copies: OldCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers of new people, erasers, restricters and rotations beside each other: nobody is ever told to wait."""
    monkeypatch.setattr("api.guard.DOUBTS", AS_SERVED)
    guard, stop = copies.guard(), threading.Event()
    failures: list[Exception] = []
    names = iter(range(10**6))

    def forever(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            while not stop.is_set():
                try:
                    work()
                except Exception as error:  # noqa: BLE001 - told to the test
                    failures.append(error)
                    return

        return run

    def come_and_go() -> None:
        name = f"n{next(names)}"
        copies.ledger.append(a_visit(name))
        restrict(copies, f"patient:{name}")
        lift(copies, f"patient:{name}")
        copies.ledger.erase(f"patient:{name}")

    def ask() -> None:
        guard._looked_at = 0.0
        guard.require()
        copies.guard().require()

    def note() -> None:
        copies.guard().finish()
        copies.service.vault.guard.write_checkpoint([copies.ledger.ledger_id])

    works = (come_and_go, come_and_go, ask, note, copies.service.vault.epochs.rotate)
    threads = [threading.Thread(target=forever(work)) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(4)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert copies.found() == set()
    assert copies.said() == []
    assert next(names) > 4


def test_a_ledger_that_the_vault_has_never_heard_of_is_noticed(copies: OldCopies) -> None:
    """It was made since the copy: nothing in it can be read, and nothing appended, until somebody goes on without."""
    copies.keep("vault")
    younger = copies.ledger.backend.new_ledger()
    younger.append(a_fact())
    copies.put_back("vault")
    found = {(finding.trouble, finding.ledger_id) for finding in copies.guard().start()}
    assert found == {("ledger-unknown", younger.ledger_id)}
    assert lead_to_streams_again(copies.ledger.deps, younger.ledger_id) == 0
    go_on(copies.ledger.deps)
    assert copies.found() == set()
    younger.append(a_fact())


def test_a_ledger_that_is_gone_is_noticed(copies: OldCopies) -> None:
    """The database came back from before it was made."""
    copies.keep("ledger")
    younger = copies.ledger.backend.new_ledger()
    younger.append(a_visit("A"))
    copies.note()
    copies.put_back("ledger")
    found = {(finding.trouble, finding.ledger_id) for finding in copies.guard().start()}
    assert found == {("ledger-missing", younger.ledger_id)}
    go_on(copies.ledger.deps)
    assert copies.found() == set()


def test_nothing_is_said_of_a_ledger_whose_making_was_cut_short(copies: OldCopies) -> None:
    """Secrets without a ledger are what a crash leaves."""
    copies.service.vault.create_ledger(UUID("0193a5e0-7c00-7000-8000-00000000dead"))
    assert copies.found() == set()


def test_a_name_that_was_blocked_since_is_noticed(copies: OldCopies) -> None:
    """It has no data and stands in no line: it has to be blocked again, and somebody has to know that."""
    copies.ledger.append(a_visit("A"))
    copies.keep("vault")
    copies.ledger.erase("patient:never", block_unknown=True)
    copies.put_back("vault")
    assert copies.found() == {"vault-behind"}
    with pytest.raises(UnknownSubjectError):
        copies.ledger.erase("patient:never")


def test_vault_and_journal_put_back_under_a_running_service(copies: OldCopies) -> None:
    """Nothing was appended since, so no count tells; but nobody goes past the ledger's own events unread."""
    copies.ledger.append(a_visit("A"))
    key_id = copies.ledger.key_of(ALICE)
    copies.keep("vault", "journal")
    running = copies.guard()
    assert running.start() == ()
    copies.ledger.erase(ALICE)
    running.require()
    copies.put_back("vault", "journal")
    with running.running():
        deadline = time.monotonic() + 30
        while copies.ledger.deps.vault.look_up_keys(copies.ledger.ledger_id, [key_id])[key_id].status != "fenced":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert running.state == "ok"
    assert [said["erased_again"] for said in copies.said()] == [1]


def test_nobody_is_served_while_it_is_mended(copies: OldCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes: neither those who come then, nor those who come while it is looked at again."""
    copies.ledger.append(a_visit("A"))
    guard = copies.guard()
    guard.require()
    copies.keep("vault", "ledger")
    copies.ledger.erase(ALICE)
    copies.put_back("vault", "ledger")
    monkeypatch.setattr("api.guard.DOUBTS", (0.5,))
    mending, go_on_mending = threading.Event(), threading.Event()

    def slowly(deps: Dependencies) -> Mended:
        mending.set()
        assert go_on_mending.wait(30)
        return mend(deps)

    monkeypatch.setattr("api.guard.mend", slowly)
    guard._looked_at = 0.0
    first = threading.Thread(target=lambda: suppress_not_ready(guard))
    first.start()
    time.sleep(0.2)
    with pytest.raises(NotReadyError):
        guard.require()  # while it is doubted
    assert mending.wait(30)
    with pytest.raises(NotReadyError):
        guard.require()
    go_on_mending.set()
    first.join()
    assert shown(copies) == "erased"


def suppress_not_ready(guard: Guard) -> None:
    """What a request does that comes upon it."""
    with suppress(NotReadyError):
        guard.require()


def test_an_older_vault_is_mended_from_journals_that_were_set_aside(
    copies: OldCopies, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy from before the journal was begun anew fits no journal; what all of them say is done all the same."""
    copies.ledger.append(a_visit("A"), a_visit("B"), a_visit("C"))
    copies.keep("vault", "ledger")
    copies.ledger.erase("patient:C")
    copies.journal.rename(copies.journal.with_name("lost"))
    assert reconcile(copies, monkeypatch, "--new-journal") == 0
    copies.ledger.erase(ALICE)
    restrict(copies, BOB)
    copies.note()
    copies.put_back("vault", "ledger")
    assert copies.found() == {"journal"}
    assert reconcile(copies, monkeypatch) == 1
    assert reconcile(copies, monkeypatch, "--new-journal", "--yes") == 0, capsys.readouterr()
    assert [shown(copies, number) for number in range(3)] == ["erased", "restricted", "erased"]
    assert copies.found() == set()


def reconcile(copies: OldCopies, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command, in this process; its exit status."""
    settings = copies.service.settings
    with monkeypatch.context() as patch:
        patch.setenv("AUDIT_LEDGER_HOME", str(settings.home))
        patch.setenv("AUDIT_LEDGER_DATABASE_URL", settings.database_url)
        patch.setenv("AUDIT_LEDGER_KEYVAULT_URL", settings.keyvault_url)
        patch.setattr("api.commands.session.configure_logs", lambda _: None)
        try:
            cli(["vault", "reconcile", *arguments], standalone_mode=False)
        except CommandError:
            return 1
        return 0


def test_no_living_kek_is_destroyed_on_the_word_of_a_row(copies: OldCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that a hand has marked as destroyed, nor one whose destruction a hand has ordered."""
    copies.ledger.append(a_visit("A"))
    copies.service.vault.epochs.rotate()
    copies.note()
    epochs = vault_tables.epochs
    for values in ({"state": "destroyed", "destroyed_at": 1, "gone_at": 1}, {"state": "retiring", "destroyed_at": 1}):
        copies.ledger.backend.vault_execute(sa.update(epochs).where(epochs.c.epoch == 2).values(**values))
        guard = copies.service.vault.guard
        assert guard.destroy_returned_keks() == frozenset()
        with suppress(EpochRefusedError):
            copies.service.vault.epochs.complete_destructions()
        assert 2 in copies.service.vault.kek_epochs()
    # Not even with a signed line, as long as anything is under it.
    monkeypatch.setattr(copies.service.vault.guard, "_destroyed_by_line", lambda: frozenset({2}))
    copies.ledger.backend.vault_execute(
        sa.update(epochs).where(epochs.c.epoch == 2).values(state="destroyed", gone_at=1)
    )
    assert copies.service.vault.guard.returned_keks(ask_keeper=True) == {2}
    assert copies.service.vault.guard.destroy_returned_keks() == frozenset()
    assert 2 in copies.service.vault.kek_epochs()
