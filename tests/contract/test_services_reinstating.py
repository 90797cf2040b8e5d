"""Restrict, lift, reinstate: what readers, writers and followers see, and what a crash leaves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyvault.errors import BusyError as VaultBusyError
from keyvault.errors import NotErasedError, UnknownSubjectError
from keyvault.journal import read as read_journal
from keyvault.keyring import SERVICE
from ledger.domain.ids import format_ref
from ledger.domain.query import AsOf, NameOrRef
from ledger.errors import IdConflictError, NotFoundError, SubjectErasedError, SubjectStateError
from ledger.services import reinstating
from ledger.services.reinstating import reinstate_subject, resume_reinstatements
from ledger.services.restricting import lift_restriction, restrict_subject
from ledger.services.subjects import SubjectSummary, describe_subject
from tests.contract.vault_world import at_once
from tests.support.ledgers import PRIVACY_OFFICER, Ledger, a_fact, a_visit, new_event_id, reasons, who


class CrashError(Exception):
    """Stands for the end of the process."""


def crash(*_: Any, **__: Any) -> Any:
    """Die."""
    raise CrashError


def reinstate(ledger: Ledger, name: str = "patient:A", reason: str | None = "case 9") -> SubjectSummary:
    """Let a name begin anew."""
    return reinstate_subject(ledger.deps, ledger.ledger_id, name, reason=reason, requested_by=PRIVACY_OFFICER)


def restrict(ledger: Ledger, subject: str | bytes = "patient:A", reason: str | None = None) -> SubjectSummary:
    """Restrict somebody."""
    return restrict_subject(ledger.deps, ledger.ledger_id, who(subject), reason=reason, requested_by=PRIVACY_OFFICER)


def lift(ledger: Ledger, subject: str | bytes = "patient:A", reason: str | None = None) -> SubjectSummary:
    """Lift a restriction."""
    return lift_restriction(ledger.deps, ledger.ledger_id, who(subject), reason=reason, requested_by=PRIVACY_OFFICER)


def own_events(ledger: Ledger) -> list[tuple[str, Any]]:
    """Type and content of the ledger's own events, without those of erasures."""
    return [
        (event.recorded.envelope.event_type, event.nonpersonal)
        for event in ledger.query(category="ledger")
        if event.recorded.envelope.event_type != "SubjectErased"
    ]


def said(kind: str, ref: bytes, reason: str | None = None) -> tuple[str, dict[str, str | None]]:
    """One of them."""
    return kind, {"subject_ref": format_ref("sub", ref), "reason": reason}


def journal_lines(ledger: Ledger, kind: str, ref: bytes) -> int:
    """How many lines of the journal, verified, say this of a subject."""
    key = Ed25519PublicKey.from_public_bytes(ledger.backend.vault.verifying_key(SERVICE))
    journal = read_journal(ledger.backend.home / "erasures.journal", key)
    return sum((line.kind, line.fields.get("subject_ref")) == (kind, ref.hex()) for line in journal)


# Restrict and lift


def test_a_restriction_hides_everything_and_followers_learn_of_it(ledger: Ledger) -> None:
    """Doing it again says nothing new; lifting it shows everything, and can be followed by another."""
    ledger.append(a_visit("A"))
    ref = ledger.subject_ref("patient:A")
    assert restrict(ledger, reason="case 1").state == "restricted"
    assert restrict(ledger, ref, reason="case 2").state == "restricted"
    assert reasons(ledger.event_at(0)) == {"/data": "restricted"}
    assert lift(ledger, ref).state == "active"
    assert lift(ledger).state == "active"
    assert reasons(ledger.event_at(0)) == {}
    restrict(ledger)
    assert own_events(ledger) == [
        said("SubjectRestricted", ref, "case 1"),
        said("SubjectUnrestricted", ref),
        said("SubjectRestricted", ref),
    ]
    assert [event.recorded.recorded_by for event in ledger.query(category="ledger")] == [PRIVACY_OFFICER] * 3
    assert journal_lines(ledger, "restrict", ref) >= 2
    assert journal_lines(ledger, "lift", ref) >= 1
    ledger.assert_intact()


def test_nobody_and_the_erased_cannot_be_restricted(ledger: Ledger) -> None:
    """Each says why, and nothing is recorded."""
    with pytest.raises(NotFoundError):
        restrict(ledger, "nobody")
    ledger.append(a_visit("A"))
    ledger.erase("patient:A")
    for change in (restrict, lift):
        with pytest.raises(SubjectStateError, match="erased"):
            change(ledger)
    assert own_events(ledger) == []


def test_restricted_people_can_be_written_about_by_ref(ledger: Ledger) -> None:
    """Subject, stream, actor and further part: stored under the same keys, shown as restricted, then whole."""
    ledger.append(a_visit("A", actor="patient:A"))
    ref = format_ref("sub", ledger.subject_ref("patient:A"))
    stream_ref = format_ref("str", ledger.recorded()[0].envelope.stream_ref)
    restrict(ledger)
    by_ref = {"stream": None, "stream_ref": stream_ref, "subject": None, "subject_ref": ref, "actor_ref": ref}
    ledger.append(a_visit("A", **by_ref), a_visit("B", parts=[{"subject_ref": ref, "data": {"x": 1}}]))
    hidden = [reasons(event) for event in ledger.query(involving=who("patient:A"))]
    assert hidden == [{"/data": "restricted", "/actor": "restricted"}] * 2 + [{"/parts/0": "restricted"}]
    lift(ledger)
    first, second, third = ledger.query(involving=who("patient:A"))
    assert (second.stream, second.subject, second.actor) == (first.stream, first.subject, first.actor)
    assert [part.subject for part in third.further] == ["patient:A"]
    ledger.assert_intact()


@pytest.mark.parametrize("lost", ["journal", "ledger"])
def test_a_restriction_that_a_crash_cut_short_holds_and_is_said_the_next_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The vault goes first: never does the log speak of a restriction that does not hold."""
    ledger.append(a_visit("A"))
    ref = ledger.subject_ref("patient:A")
    with monkeypatch.context() as patch:
        if lost == "journal":
            patch.setattr("keyvault.journal.Journal.append", crash)
        else:
            patch.setattr("ledger.services.restricting.seal_own_event", crash)
        with pytest.raises(CrashError):
            restrict(ledger)
    assert reasons(ledger.event_at(0)) == {"/data": "restricted"}
    assert own_events(ledger) == []
    restrict(ledger)
    assert own_events(ledger) == [said("SubjectRestricted", ref)]
    assert journal_lines(ledger, "restrict", ref) >= 1


def test_of_two_that_change_it_at_once_the_last_word_is_what_holds(ledger: Ledger) -> None:
    """The log's last event and the vault agree."""
    ledger.append(a_visit("A"))
    for _ in range(5):
        at_once(lambda: restrict(ledger), lambda: lift(ledger), lambda: restrict(ledger))
        state = describe_subject(ledger.deps, ledger.ledger_id, NameOrRef("patient:A", None)).state
        told = [kind for kind, _ in own_events(ledger)]
        assert (told[-1:] == ["SubjectRestricted"]) == (state == "restricted")
        assert told == [("SubjectRestricted", "SubjectUnrestricted")[number % 2] for number in range(len(told))]
    ledger.assert_intact()


def test_a_restriction_counts_while_a_part_is_being_erased(ledger: Ledger) -> None:
    """An erasure that is stuck must not keep anybody from their right to restriction."""
    ledger.append(a_visit("A"), a_visit("A", purpose="medical"))
    ref = ledger.subject_ref("patient:A")
    entry = ledger.deps.vault.begin_erasure(
        ledger.ledger_id,
        ref,
        erasure_id=ledger.deps.new_id(),
        purposes=["medical"],
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=1,
        requested_by=PRIVACY_OFFICER,
        block_unknown=False,
    )
    assert restrict(ledger).state == "erasing"
    assert reasons(ledger.event_at(0)) == {"/data": "restricted"}
    assert own_events(ledger) == [said("SubjectRestricted", ref)]
    with pytest.raises(VaultBusyError):
        reinstate(ledger)
    ledger.erase("patient:A", ["medical"])
    assert entry.subject_ref == ref
    assert restrict(ledger).state == "restricted"
    assert own_events(ledger) == [said("SubjectRestricted", ref)]


# Reinstate


def test_a_person_who_comes_back_begins_anew(ledger: Ledger) -> None:
    """Erased, refused, reinstated: a new ref, new keys, a new stream, and the past stays redacted at every moment."""
    ledger.append(a_visit("A", data={"old": 1}), a_visit("B", parts=[{"subject": "patient:A", "data": {"x": 1}}]))
    old = ledger.subject_ref("patient:A")
    old_rows = ledger.recorded()[:2]
    ledger.erase("patient:A")
    with pytest.raises(SubjectErasedError):
        ledger.append(a_visit("A"))

    summary = reinstate(ledger)

    new = ledger.subject_ref("patient:A")
    assert summary.subject_ref == new != old
    assert (summary.state, summary.names, summary.events, summary.erased_at) == ("active", 1, 0, None)
    ledger.append(a_visit("A", data={"new": 1}, expected_version=0))
    for number in range(ledger.size()):
        first = ledger.query(as_of=AsOf(position=number))[0]
        assert reasons(first) == {"/data": "erased"}
    assert ledger.recorded()[:2] == old_rows
    by_name = ledger.query(involving=who("patient:A"))
    assert [event.recorded.position for event in by_name] == [ledger.size() - 1]
    assert by_name[0].subject is not None
    assert (by_name[0].subject.subject_ref, by_name[0].subject.data) == (new, {"new": 1})
    assert by_name[0].recorded.envelope.stream_ref != old_rows[0].envelope.stream_ref
    assert ledger.positions(stream=who("patient-A")) == [ledger.size() - 1]
    assert describe_subject(ledger.deps, ledger.ledger_id, who("patient:A")).events == 1
    past = describe_subject(ledger.deps, ledger.ledger_id, who(old))
    assert (past.state, past.names, past.events) == ("erased", 0, 2)
    assert own_events(ledger) == [said("SubjectReinstated", new, "case 9")]
    assert journal_lines(ledger, "reinstate", new) == 1
    assert journal_lines(ledger, "reinstate", old) == 0
    ledger.erase("patient:A")
    assert describe_subject(ledger.deps, ledger.ledger_id, who(new)).state == "erased"
    ledger.assert_intact()


def test_a_retry_of_an_old_append_gets_the_old_answer(ledger: Ledger) -> None:
    """I4, also when the names of person and stream lead elsewhere by now; what can be compared still is."""
    old = a_visit("A", id=new_event_id(), actor="group:L", nonpersonal={"ward": "ER"})
    other = a_visit("B", id=new_event_id())
    first = [ledger.append(event).events[0] for event in (old, other)]
    ledger.erase("patient:A")
    ledger.erase("patient:B")
    reinstate(ledger)
    ledger.append(a_visit("A"))
    size = ledger.size()
    again = [ledger.append(event) for event in (old, other)]
    assert [result.duplicate for result in again] == [True, True]
    assert [result.events[0] for result in again] == first
    for changed in ({"nonpersonal": {"ward": "X"}}, {"type": "Other"}, {"stream": "other-A"}):
        with pytest.raises(IdConflictError):
            ledger.append({**old, **changed})
    # Of one whose name did not begin anew the name is still compared.
    with pytest.raises(IdConflictError):
        ledger.append({**other, "subject": "patient:A"})
    assert ledger.size() == size


def test_what_gives_an_old_ref_is_refused(ledger: Ledger) -> None:
    """Also while the name can be read in what the person did as an actor: it leads to somebody new."""
    ledger.append(a_visit("A"), a_fact(actor="patient:A"), a_visit("B"))
    old = format_ref("sub", ledger.subject_ref("patient:A"))
    old_stream = format_ref("str", ledger.recorded()[0].envelope.stream_ref)
    ledger.erase("patient:A")
    reinstate(ledger)
    ledger.append(a_visit("A"))
    size = ledger.size()
    for event in (
        a_visit("B", actor_ref=old),
        a_visit("B", subject=None, subject_ref=old),
        a_visit("A", stream=None, stream_ref=old_stream),
    ):
        with pytest.raises(SubjectErasedError):
            ledger.append(event)
    assert ledger.size() == size
    ledger.append(a_visit("B", actor_ref=old, if_erased="omit"))
    assert ledger.event_at(size).actor is None
    # What is left of the old one can still be erased, by its ref.
    erased = ledger.erase(ledger_ref(old), ["actor"]).erasure.entry
    assert erased.subject_ref == ledger_ref(old)
    assert reasons(ledger.event_at(1)) == {"/actor": "erased"}
    ledger.assert_intact()


def ledger_ref(text: str) -> bytes:
    """The bytes of a ref."""
    return bytes.fromhex(text.partition("_")[2])


@pytest.mark.parametrize("given", ["subject", "stream"])
def test_a_name_that_begins_anew_while_a_writer_is_on_its_way_is_not_taken_for_the_old(
    ledger: Ledger, given: str
) -> None:
    """I8: the writer gave a ref and has read the name behind it; then the person is erased and comes back."""
    ledger.append(a_visit("A"))
    old = format_ref("sub", ledger.subject_ref("patient:A"))
    old_stream = format_ref("str", ledger.recorded()[0].envelope.stream_ref)
    came_back: list[SubjectSummary] = []

    class Slow:
        """Lets the others in when the names have been read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.vault, name)

        def reserve(self, *args: Any, **options: Any) -> Any:
            if not came_back:
                ledger.erase("patient:A")
                came_back.append(reinstate(ledger))
                ledger.append(a_visit("A"))
            return ledger.deps.vault.reserve(*args, **options)

    fields: dict[str, Any] = {"subject": None, "subject_ref": old}
    if given == "stream":
        fields = {"subject": "patient:B", "stream": None, "stream_ref": old_stream}
    with pytest.raises(SubjectErasedError):
        ledger.with_parts(vault=Slow()).append(a_visit("A", **fields))
    assert describe_subject(ledger.deps, ledger.ledger_id, who("patient:A")).events == 1
    ledger.assert_intact()


def test_a_late_writer_that_has_the_old_keys_is_refused(ledger: Ledger) -> None:
    """I8: it holds keys and refs from before the erasure, and comes to the head lock after the reinstatement."""
    ledger.append(a_visit("A"))
    done: list[SubjectSummary] = []

    class Slow:
        """Lets the others in when the event is sealed."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, ledger_id: Any) -> Any:
            if not done:
                ledger.erase("patient:A")
                done.append(reinstate(ledger))
            return ledger.deps.store.locked_head(ledger_id)

    with pytest.raises(SubjectErasedError):
        ledger.with_parts(store=Slow()).append(a_visit("A"))
    assert describe_subject(ledger.deps, ledger.ledger_id, who("patient:A")).events == 0
    ledger.append(a_visit("A"))
    ledger.assert_intact()


@pytest.mark.parametrize("by", ["the same request", "the worker"])
@pytest.mark.parametrize("step", ["2", "3", "3, written"])
def test_a_reinstatement_that_a_crash_cut_short_is_completed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: str, by: str
) -> None:
    """Under the ref that was made: one subject, one event; an append in between changes nothing of that."""
    where = {
        "2": "ledger.services.reinstating.seal_own_event",
        "3": "keyvault.journal.Journal.append",
        "3, written": "keyvault.reinstatement_store.delete_one",
    }[step]
    ledger.append(a_visit("A"))
    ledger.erase("patient:A")
    with monkeypatch.context() as patch:
        patch.setattr(where, crash)
        with pytest.raises(CrashError):
            reinstate(ledger)
    new = ledger.subject_ref("patient:A")
    ledger.append(a_visit("A"))
    if by == "the worker":
        assert resume_reinstatements(ledger.deps) == {new: None}
        with pytest.raises(NotErasedError):
            reinstate(ledger)
    else:
        assert reinstate(ledger, reason="another").subject_ref == new
    assert resume_reinstatements(ledger.deps) == {}
    assert own_events(ledger) == [said("SubjectReinstated", new, "case 9")]
    assert journal_lines(ledger, "reinstate", new) >= 1
    ledger.assert_intact()


def test_one_that_cannot_be_completed_keeps_no_other_open(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is given, and the next time it is tried again."""
    for name in ("A", "B"):
        ledger.append(a_visit(name))
        ledger.erase(f"patient:{name}")
        with monkeypatch.context() as patch:
            patch.setattr(reinstating, "complete_reinstatement", crash)
            with pytest.raises(CrashError):
                reinstate(ledger, f"patient:{name}")
    bad, good = (ledger.subject_ref(f"patient:{name}") for name in ("A", "B"))
    complete: Callable[..., None] = reinstating.complete_reinstatement

    def picky(deps: Any, entry: Any) -> None:
        if entry.subject_ref == bad:
            raise CrashError
        complete(deps, entry)

    with monkeypatch.context() as patch:
        patch.setattr(reinstating, "complete_reinstatement", picky)
        outcomes = resume_reinstatements(ledger.deps)
    assert (type(outcomes[bad]), outcomes[good]) == (CrashError, None)
    assert resume_reinstatements(ledger.deps) == {bad: None}


def test_writers_beside_erasures_and_reinstatements_write_for_one_person_or_the_next(ledger: Ledger) -> None:
    """I7, I8: whatever is acknowledged is the old one's and redacted, or the new one's and readable."""
    rounds = int(os.environ.get("AUDIT_LEDGER_TEST_ROUNDS", "3"))
    for _ in range(rounds):
        ledger.append(a_visit("A"), a_visit("B", actor="patient:A"))
        old = ledger.subject_ref("patient:A")
        over = threading.Event()

        def write(over: threading.Event = over) -> None:
            while not over.is_set():
                with suppress(SubjectErasedError):
                    ledger.append(a_visit("A"), a_visit("B", actor="patient:A"))

        def come_back(over: threading.Event = over) -> None:
            try:
                ledger.erase("patient:A", ["", "actor"])
                ledger.erase("patient:A")
                reinstate(ledger)
                ledger.append(a_visit("A"))
            finally:
                over.set()

        at_once(come_back, write, write)
        new = ledger.subject_ref("patient:A")
        assert new != old
        for event in ledger.query(involving=who(old)):
            assert set(reasons(event).values()) == {"erased"}
        shown = ledger.query(involving=who("patient:A"))
        assert shown != []
        assert [reasons(event) for event in shown] == [{}] * len(shown)
    ledger.assert_intact()


def test_two_at_once_make_one(ledger: Ledger) -> None:
    """Whoever comes later gets the same, or is told that the name is in use."""
    ledger.append(a_visit("A"))
    ledger.erase("patient:A")

    def attempt() -> bytes | None:
        try:
            return reinstate(ledger).subject_ref
        except NotErasedError:
            return None

    made = {ref for ref in at_once(attempt, attempt, attempt) if ref is not None}
    assert made == {ledger.subject_ref("patient:A")}
    assert own_events(ledger) == [said("SubjectReinstated", made.pop(), "case 9")]


def test_a_name_in_use_and_a_name_of_nobody_are_refused(ledger: Ledger) -> None:
    """And nothing is recorded."""
    ledger.append(a_visit("A"))
    with pytest.raises(NotErasedError):
        reinstate(ledger)
    with pytest.raises(UnknownSubjectError):
        reinstate(ledger, "nobody")
    assert own_events(ledger) == []
