"""Erase: five steps, each of which can be repeated after a crash; a receipt that anyone can check; never `erased` for
what is merely missing."""

from __future__ import annotations

import base64
import hashlib
import json
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyvault import tables as vault_tables
from keyvault.errors import UnknownPurposeError, UnknownSubjectError, VaultUnavailableError
from keyvault.journal import read as read_journal
from keyvault.keyring import SERVICE
from ledger.domain.encoding import encode_leaf
from ledger.domain.events import Role
from ledger.domain.merkle import extend_frontier, hash_leaf, root_of
from ledger.domain.names import SUBJECT_ERASED
from ledger.domain.query import EventQuery
from ledger.domain.receipts import RECEIPT_DOMAIN, canonical_json
from ledger.domain.times import format_time
from ledger.errors import IntegrityError, InvalidError, NotFoundError, StoreUnavailableError, SubjectErasedError
from ledger.services.erase import (
    get_erasure,
    list_erasures,
    resume_erasures,
)
from ledger.services.read import export_events
from ledger.services.receipts import Receipt, get_receipt
from ledger.storage import tables
from tests.support.ledgers import PRIVACY_OFFICER, Ledger, a_fact, a_visit, new_event_id, reasons


def erasures_recorded(ledger: Ledger) -> list[UUID]:
    """The ids of the ``SubjectErased`` events."""
    return [e.envelope.event_id for e in ledger.recorded() if e.envelope.event_type == SUBJECT_ERASED]


# What is shown afterwards


def test_an_erasure_takes_the_payload_and_the_names_and_not_a_byte_of_an_event(ledger: Ledger) -> None:
    """I6, I7: the envelope stays, everything of the person goes, other people's parts stay readable."""
    ledger.append(
        a_visit("A", actor="group:L", parts=[{"subject": "patient:B", "data": {"x": 1}}], nonpersonal={"n": 1})
    )
    before = ledger.event_at(0)
    outcome = ledger.erase("patient:A")
    entry = outcome.erasure.entry
    after = ledger.event_at(0)
    assert after.recorded == before.recorded
    assert (after.actor, after.further, after.nonpersonal) == (before.actor, before.further, before.nonpersonal)
    assert after.stream is None
    assert after.subject is not None
    assert (after.subject.subject, after.subject.data, after.subject.readable) == (None, None, False)
    assert after.subject.subject_ref == entry.subject_ref
    (redaction,) = after.redactions
    assert (redaction.pointer, redaction.reason, redaction.purpose) == ("/data", "erased", "")
    assert (redaction.subject_ref, redaction.erasure_id) == (entry.subject_ref, entry.erasure_id)
    assert redaction.at == entry.erased_at == ledger.recorded()[1].recorded_at
    assert (outcome.erasure.events, outcome.repeated, entry.done) == (1, False, True)
    ledger.assert_intact()


def test_without_purposes_what_the_person_did_as_an_actor_stays(ledger: Ledger) -> None:
    """All of the subject's data goes, whatever its purpose; the actor's key is another one and is kept."""
    ledger.append(
        a_visit("A"), a_visit("A", purpose="medical"), a_fact(actor={"subject": "patient:A", "data": {"ip": 1}})
    )
    ledger.erase("patient:A")
    first, second, third, own = ledger.query()
    assert reasons(first) == {"/data": "erased"}
    assert reasons(second) == {"/data": "erased", "/stream": "erased"}
    assert reasons(third) == {}
    assert third.actor is not None
    assert (third.actor.subject, third.actor.data) == ("patient:A", {"ip": 1})
    assert own.nonpersonal is not None
    assert own.nonpersonal["purposes"] == ["", "medical"]

    ledger.erase("patient:A", ["actor"])
    assert reasons(ledger.event_at(2)) == {"/actor": "erased"}
    ledger.assert_intact()


def test_an_erasure_of_purposes_keeps_the_others(ledger: Ledger) -> None:
    """Only the purposes asked for go; the person is not erased, can be written about, and not for those any more."""
    ledger.append(a_visit("A"), a_visit("A", purpose="medical"), a_visit("A", purpose="billing"))
    entry = ledger.erase("patient:A", ["medical", "billing"]).erasure.entry
    assert [purpose for _, purpose in entry.key_ids] != []
    assert sorted(purpose for _, purpose in entry.key_ids) == ["billing", "medical"]
    assert [reasons(event) for event in ledger.query()[:3]] == [{}, {"/data": "erased"}, {"/data": "erased"}]
    assert [event.stream for event in ledger.query()[:3]] == ["patient-A"] * 3
    ledger.append(a_visit("A"), a_visit("A", purpose="other"))
    for purpose in ("medical", "billing"):
        with pytest.raises(SubjectErasedError):
            ledger.append(a_visit("A", purpose=purpose))
    ledger.assert_intact()


def test_an_export_that_is_under_way_sees_the_erasure_at_its_next_page(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7: long answers look at the keys anew for every page."""
    monkeypatch.setattr("ledger.services.read._FIRST_PAGE", 2)
    ledger.append(*(a_visit("A") for _ in range(6)))
    pages = export_events(ledger.deps, ledger.ledger_id, EventQuery())
    assert [reasons(event) for event in next(pages)] == [{}, {}]
    ledger.erase("patient:A")
    rest = [reasons(event) for page in pages for event in page]
    assert rest == [{"/data": "erased"}] * 4


# Whom, and how often


def test_unknown_people_and_purposes_are_refused(ledger: Ledger) -> None:
    """Nothing is recorded, and nobody is made, by an order about nobody or nothing."""
    ledger.append(a_visit("A"))
    with pytest.raises(UnknownSubjectError):
        ledger.erase("patient:Z")
    with pytest.raises(UnknownSubjectError):
        ledger.erase(b"?" * 16)
    with pytest.raises(UnknownSubjectError):
        ledger.erase(b"?" * 16, block_unknown=True)
    with pytest.raises(UnknownPurposeError):
        ledger.erase("patient:A", ["", "no-such"])
    assert ledger.size() == 1
    assert ledger.deps.vault.find_subjects(ledger.ledger_id, ["patient:Z"]) == {}
    assert ledger.append_one(a_visit("A")).position == 1


def test_an_unknown_name_can_be_blocked(ledger: Ledger) -> None:
    """Late writers of that name are refused from now on; the erasure has no keys and no events."""
    outcome = ledger.erase("patient:Z", block_unknown=True)
    assert (outcome.erasure.entry.key_ids, outcome.erasure.events) == ((), 0)
    assert [part.role for part in ledger.recorded()[0].parts] == [Role.NONPERSONAL]
    with pytest.raises(SubjectErasedError):
        ledger.append(a_visit("Z"))
    with pytest.raises(SubjectErasedError):
        ledger.append(a_fact(actor="patient:Z"))
    ledger.assert_intact()


def test_erasing_twice_gives_the_first_erasure_again(ledger: Ledger) -> None:
    """By name, by ref, by its purposes: the same erasure, the same receipt, exactly one event."""
    ledger.append(a_visit("A"), a_visit("A", purpose="medical"))
    first = ledger.erase("patient:A")
    for again in (
        ledger.erase("patient:A"),
        ledger.erase(first.erasure.entry.subject_ref),
        ledger.erase("patient:A", [""]),
    ):
        assert again.repeated
        assert again.erasure == first.erasure
        assert again.receipt == first.receipt
        assert again.name_salt is None
    assert erasures_recorded(ledger) == [first.erasure.entry.erasure_id]


def test_erasures_can_be_found_again(ledger: Ledger) -> None:
    """By id, by reference, in order of time, page by page; another ledger's are not there."""
    ledger.append(a_visit("A"), a_visit("B"), a_visit("C"))
    made = []
    for name, case in (("A", "x"), ("B", "y"), ("C", "x")):
        # UUIDv7 sort by the millisecond.
        ledger.backend.clock.now += 1000
        made.append(ledger.erase(f"patient:{name}", reference=case).erasure)
    deps, ledger_id = ledger.deps, ledger.ledger_id
    assert get_erasure(deps, ledger_id, made[1].entry.erasure_id) == made[1]

    def listed(**options: Any) -> list[Any]:
        arguments: dict[str, Any] = {"reference": None, "done": None, "after": None, "limit": 10, **options}
        return list(list_erasures(deps, ledger_id, **arguments))

    assert listed() == listed(done=True) == made
    assert listed(done=False) == []
    assert listed(reference="x") == [made[0], made[2]]
    assert listed(after=made[0].entry.erasure_id, limit=1) == [made[1]]
    other = ledger.backend.new_ledger()
    for call in (get_erasure, get_receipt):
        with pytest.raises(NotFoundError):
            call(other.deps, other.ledger_id, made[0].entry.erasure_id)
        with pytest.raises(NotFoundError):
            call(deps, ledger_id, UUID(int=5))
    with pytest.raises(InvalidError):
        list_erasures(other.deps, other.ledger_id, reference=None, done=None, after=made[0].entry.erasure_id, limit=10)


# The event and the receipt


def test_the_log_itself_says_which_keys_are_dead(ledger: Ledger) -> None:
    """``SubjectErased`` has a part of role 6 with each key it shreds, an empty body, and no name in it."""
    ledger.append(a_visit("A"), a_visit("A", purpose="medical"))
    entry = ledger.erase("patient:A", reference="case 9").erasure.entry
    event = ledger.recorded()[2]
    envelope = event.envelope
    assert (envelope.event_id, envelope.category, envelope.event_type) == (entry.erasure_id, "ledger", SUBJECT_ERASED)
    assert (envelope.stream_ref, event.stream_version, event.recorded_by) == (
        entry.erasure_id.bytes,
        1,
        PRIVACY_OFFICER,
    )
    assert [part.role for part in event.parts] == [Role.NONPERSONAL, Role.SHREDDED, Role.SHREDDED]
    assert [(part.key_id, part.sealed) for part in event.parts[1:]] == [(key_id, b"") for key_id, _ in entry.key_ids]
    shreddings = ledger.deps.store.shredded_keys(ledger.ledger_id)
    assert {key_id: (row.position, row.erasure_id) for key_id, row in shreddings.items()} == {
        key_id: (2, entry.erasure_id) for key_id, _ in entry.key_ids
    }
    shown = json.dumps(ledger.event_at(2).nonpersonal)
    assert "patient" not in shown
    assert "case 9" in shown


def check_receipt(ledger: Ledger, receipt: Receipt) -> None:
    """Check a receipt as an outsider does, with the ledger's verifying key."""
    message = b"audit-ledger v1 receipt\n" + json.dumps(
        receipt.payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode("utf-8")
    key = Ed25519PublicKey.from_public_bytes(ledger.deps.vault.verifying_key(ledger.ledger_id))
    key.verify(receipt.signature, message)
    for field in receipt.payload:
        with pytest.raises(InvalidSignature):
            key.verify(receipt.signature, RECEIPT_DOMAIN + canonical_json({**receipt.payload, field: "other"}))
    with pytest.raises(InvalidSignature):
        key.verify(receipt.signature, message.removeprefix(b"audit-ledger v1 receipt\n"))


def test_a_receipt_can_be_checked_by_anyone(ledger: Ledger) -> None:
    """Signature, name commitment, leaf and root: all recomputed from what the receipt and the log say."""
    ledger.append(a_visit("A"), a_visit("B"), a_visit("A"))
    outcome = ledger.erase("patient:A")
    entry, payload = outcome.erasure.entry, outcome.receipt.payload
    check_receipt(ledger, outcome.receipt)
    event = ledger.recorded()[3]
    assert payload == {
        "id": str(entry.erasure_id),
        "ledger_id": str(ledger.ledger_id),
        "subject_ref": f"sub_{entry.subject_ref.hex()}",
        "name_commitment": payload["name_commitment"],
        "key_ids": [key_id.hex() for key_id, _ in entry.key_ids],
        "events": 2,
        "requested_at": format_time(entry.requested_at),
        "erased_at": format_time(event.recorded_at),
        "position": 3,
        "leaf": payload["leaf"],
        "root": payload["root"],
        "root_before": payload["root_before"],
    }
    assert outcome.name_salt is not None
    assert len(outcome.name_salt) == 32
    commitment = hashlib.sha256(outcome.name_salt + b"patient:A").digest()
    assert base64.b64decode(payload["name_commitment"]) == commitment
    leaf = base64.b64decode(payload["leaf"])
    assert leaf == encode_leaf(
        event.envelope,
        event.parts,
        position=3,
        stream_version=1,
        recorded_at=event.recorded_at,
        recorded_by=event.recorded_by,
    )
    assert hash_leaf(leaf) == event.leaf_hash
    root = root_of(ledger.deps.store.head(ledger.ledger_id).frontier)
    assert base64.b64decode(payload["root"]) == root
    _, before = extend_frontier(0, (), [row.leaf_hash for row in ledger.recorded()[:3]])
    assert base64.b64decode(payload["root_before"]) == root_of(before)


def test_a_receipt_is_the_same_bytes_each_time(ledger: Ledger) -> None:
    """Whatever is recorded or erased afterwards."""
    ledger.append(a_visit("A"), a_visit("B"))
    outcome = ledger.erase("patient:A")
    ledger.append(a_visit("B"))
    ledger.erase("patient:B")
    again = get_receipt(ledger.deps, ledger.ledger_id, outcome.erasure.entry.erasure_id)
    assert again == outcome.receipt
    check_receipt(ledger, again)


def test_who_erases_by_ref_commits_to_the_name_too(ledger: Ledger) -> None:
    """The name is read in the subject's events just before nobody can; the salt opens the commitment."""
    ledger.append(a_visit("A"))
    outcome = ledger.erase(ledger.subject_ref("patient:A"))
    assert outcome.name_salt is not None
    commitment = sha256(outcome.name_salt + b"patient:A").digest()
    assert base64.b64decode(outcome.receipt.payload["name_commitment"]) == commitment
    check_receipt(ledger, outcome.receipt)


def test_the_salt_is_stored_nowhere(ledger: Ledger) -> None:
    """Whoever has both databases and the journal cannot test names against the commitment."""
    ledger.append(a_visit("A"))
    salt = ledger.erase("patient:A").name_salt
    assert salt is not None
    values: list[Any] = []
    with ledger.backend.engine.connect() as connection:
        values += [row for table in tables.metadata.tables.values() for row in connection.execute(sa.select(table))]
    with ledger.backend.vault.engine.connect() as connection:
        values += [
            row for table in vault_tables.metadata.tables.values() for row in connection.execute(sa.select(table))
        ]
    journal = (ledger.backend.home / "erasures.journal").read_bytes()
    assert not any(salt in value for row in values for value in row if isinstance(value, bytes))
    assert salt.hex() not in repr(values)
    assert salt not in journal
    assert salt.hex().encode() not in journal
    assert base64.b64encode(salt) not in journal


# A crash after each step


class CrashError(Exception):
    """The process dies here."""


class CrashingVault:
    """A vault whose ``method`` fails the first time, before or after it has done its work."""

    def __init__(self, inner: Any, method: str, *, persisted: bool) -> None:
        self._inner, self._method, self._persisted = inner, method, persisted

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)
        if name != self._method:
            return real

        def crashing(*arguments: Any, **options: Any) -> Any:
            self._method = ""
            if self._persisted:
                real(*arguments, **options)
            raise CrashError

        return crashing


class CrashingStore:
    """A store whose head lock breaks the first time, before or after the commit."""

    def __init__(self, inner: Any, *, persisted: bool) -> None:
        self._inner, self._persisted, self._broken = inner, persisted, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def locked_head(self, ledger_id: UUID) -> Any:
        """Breaks once."""
        lock = self._inner.locked_head(ledger_id)
        if self._broken:
            return lock
        self._broken = True
        return _Breaking(lock, self._persisted)


class _Breaking:
    def __init__(self, inner: Any, persisted: bool) -> None:
        self._inner, self._persisted = inner, persisted

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._persisted:
            self._inner.__exit__(*error)
        else:
            self._inner.__exit__(CrashError, CrashError(), None)
        raise CrashError


STEPS: dict[str, tuple[str, str, bool]] = {
    "1, failed": ("vault", "begin_erasure", False),
    "1, persisted": ("vault", "begin_erasure", True),
    "2, failed before the lock": ("vault", "reserve", False),
    "2, failed": ("store", "locked_head", False),
    "2, persisted": ("store", "locked_head", True),
    "3, failed": ("vault", "finish_erasure", False),
    "4, journal failed": ("journal", "append", False),
    "4, journal persisted": ("journal", "append", True),
    "5, not told": ("vault", "sign", False),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("finisher", ["resumed", "asked again"])
def test_an_erasure_that_is_cut_short_is_completed(
    ledger: Ledger, step: str, finisher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: after a crash at any step, the next start or the next order completes it: one event, no key, one meaning."""
    ledger.append(a_visit("A"), a_visit("A", purpose="medical"), a_visit("B"))
    key_ids = {ledger.key_of("patient:A"), ledger.key_of("patient:A", "medical")}
    where, method, persisted = STEPS[step]
    crashing = ledger
    if where == "journal":
        journal = CrashingVault(ledger.backend.vault.journal, method, persisted=persisted)
        monkeypatch.setattr(ledger.backend.vault, "journal", journal)
    elif where == "vault":
        crashing = ledger.with_parts(vault=CrashingVault(ledger.deps.vault, method, persisted=persisted))
    else:
        crashing = ledger.with_parts(store=CrashingStore(ledger.deps.store, persisted=persisted))

    with pytest.raises(CrashError):
        crashing.erase("patient:A")

    begun = step != "1, failed"
    recorded = begun and step not in ("1, persisted", "2, failed", "2, failed before the lock")
    shown = {"/data": "erased" if recorded else "restricted"} if begun else {}
    assert reasons(ledger.event_at(0)) == shown
    assert ledger.alarms == []
    if begun:
        with pytest.raises(SubjectErasedError if recorded else Exception, match=r"erased|under way"):
            ledger.append(a_visit("A", purpose="new"))

    if finisher == "resumed" and begun:
        outcomes = resume_erasures(ledger.deps)
        assert set(outcomes.values()) <= {None}
        assert resume_erasures(ledger.deps) == {}
    outcome = ledger.erase("patient:A")
    check_receipt(ledger, outcome.receipt)
    assert outcome.repeated is begun
    assert erasures_recorded(ledger) == [outcome.erasure.entry.erasure_id]
    assert set(ledger.deps.store.shredded_keys(ledger.ledger_id)) == key_ids
    views = ledger.deps.vault.look_up_keys(ledger.ledger_id, key_ids)
    assert {views[key_id].status for key_id in key_ids} == {"fenced"}
    assert [reasons(event) for event in ledger.query()[:3]] == [
        {"/data": "erased"},
        {"/data": "erased", "/stream": "erased"},
        {},
    ]
    assert journal_lines(ledger, outcome.erasure.entry.erasure_id) >= 1
    ledger.assert_intact()


def journal_lines(ledger: Ledger, erasure_id: UUID) -> int:
    """How many verified lines of the journal are about an erasure."""
    key = Ed25519PublicKey.from_public_bytes(ledger.backend.vault.verifying_key(SERVICE))
    return sum(str(erasure_id) in repr(entry) for entry in read_journal(ledger.backend.home / "erasures.journal", key))


def test_two_that_complete_one_erasure_record_it_once(ledger: Ledger) -> None:
    """A second process that resumes the same erasure, and gets the head lock first, leaves nothing to record."""
    ledger.append(a_visit("A"))
    resumed: list[Any] = []

    class Slow:
        """Lets the other process in when the first one asks for the head lock."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, ledger_id: UUID) -> Any:
            if not resumed:
                resumed.append(resume_erasures(ledger.deps))
            return ledger.deps.store.locked_head(ledger_id)

    outcome = ledger.with_parts(store=Slow()).erase("patient:A")
    assert resumed == [{outcome.erasure.entry.erasure_id: None}]
    assert erasures_recorded(ledger) == [outcome.erasure.entry.erasure_id]
    check_receipt(ledger, outcome.receipt)
    ledger.assert_intact()


def test_one_erasure_that_cannot_be_completed_does_not_hold_up_the_others(ledger: Ledger) -> None:
    """Each open erasure is resumed for itself, and the error of one that is stopped again is handed over."""
    ledger.append(a_visit("A"), a_visit("B"))
    for name in ("patient:A", "patient:B"):
        broken = ledger.with_parts(vault=CrashingVault(ledger.deps.vault, "reserve", persisted=False))
        with pytest.raises(CrashError):
            broken.erase(name)
    broken = ledger.with_parts(vault=CrashingVault(ledger.deps.vault, "finish_erasure", persisted=False))
    outcomes = resume_erasures(broken.deps)
    assert [type(error) for error in outcomes.values()] == [CrashError, type(None)]
    assert list(resume_erasures(ledger.deps)) == [next(iter(outcomes))]


def test_an_open_erasure_of_one_purpose_does_not_swallow_a_wider_order(ledger: Ledger) -> None:
    """What was asked for later and is more is carried out too, as an erasure of its own."""
    ledger.append(a_visit("A"), a_visit("A", purpose="medical"))
    broken = ledger.with_parts(vault=CrashingVault(ledger.deps.vault, "finish_erasure", persisted=False))
    with pytest.raises(CrashError):
        broken.erase("patient:A", ["medical"])
    outcome = ledger.erase("patient:A")
    assert not outcome.repeated
    assert [purpose for _, purpose in outcome.erasure.entry.key_ids] == [""]
    assert len(erasures_recorded(ledger)) == 2
    assert [reasons(event)["/data"] for event in ledger.query()[:2]] == ["erased", "erased"]
    ledger.assert_intact()


# I9: erased is not broken


def test_a_key_that_somebody_deleted_is_unreadable(ledger: Ledger) -> None:
    """I9: a key row that is gone without a record in the ledger raises an alarm and is never called erased."""
    ledger.append(a_visit("A"), a_visit("B"))
    key_id = ledger.key_of("patient:A")
    rows = vault_tables.subject_keys
    ledger.backend.vault_execute(sa.delete(rows).where(rows.c.key_id == key_id))
    first, second = ledger.query()
    assert reasons(first) == {"/data": "unreadable"}
    assert reasons(second) == {}
    assert [(position, part) for position, part, _ in ledger.alarms] == [(0, 0)]


def test_a_key_that_somebody_altered_is_unreadable(ledger: Ledger) -> None:
    """I9: a row that does not unwrap to the key that it names is never used and never called erased."""
    ledger.append(a_visit("A"), a_visit("B"))
    rows = vault_tables.subject_keys
    key_id, other = ledger.key_of("patient:A"), ledger.key_of("patient:B")
    wrapped = sa.select(rows.c.wrapped_dek).where(rows.c.key_id == other).scalar_subquery()
    ledger.backend.vault_execute(sa.update(rows).where(rows.c.key_id == key_id).values(wrapped_dek=wrapped))
    first, second = ledger.query()
    assert (reasons(first), reasons(second)) == ({"/data": "unreadable"}, {})
    assert [(position, part) for position, part, _ in ledger.alarms] == [(0, 0)]


def test_what_the_ledger_says_goes_first(ledger: Ledger) -> None:
    """I8, I9: with the ledger's record there, a key that the vault still has (a restored backup) opens nothing."""
    ledger.append(a_visit("A"))
    with pytest.raises(CrashError):
        ledger.with_parts(vault=CrashingVault(ledger.deps.vault, "finish_erasure", persisted=False)).erase("patient:A")
    key_id = ledger.key_of("patient:A")
    # The vault as an old backup has it: the subject active, no erasure.
    ref = ledger.subject_ref("patient:A")
    erasures, subjects = vault_tables.erasures, vault_tables.subjects
    ledger.backend.vault_execute(sa.delete(erasures).where(erasures.c.subject_ref == ref))
    ledger.backend.vault_execute(sa.update(subjects).where(subjects.c.subject_ref == ref).values(state="active"))
    assert ledger.deps.vault.look_up_keys(ledger.ledger_id, [key_id])[key_id].status == "living"
    assert reasons(ledger.event_at(0)) == {"/data": "erased"}
    for event in (a_visit("A"), a_fact(parts=[{"subject": "patient:A"}])):
        with pytest.raises(SubjectErasedError):
            ledger.append(event)
    assert ledger.alarms == []


@pytest.mark.parametrize("error", [VaultUnavailableError("away"), StoreUnavailableError("away")])
def test_a_dependency_that_is_down_is_never_a_redaction(ledger: Ledger, error: Exception) -> None:
    """I9: no vault or no ``shredded_keys``, no answer."""
    ledger.append(a_visit("A", id=new_event_id()))

    class Down:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def look_up_keys(self, *_: Any, **__: Any) -> Any:
            raise error

        def shreddings(self, *_: Any) -> Any:
            raise error

    down = (
        ledger.with_parts(vault=Down(ledger.deps.vault))
        if isinstance(error, VaultUnavailableError)
        else ledger.with_parts(store=Down(ledger.deps.store))
    )
    with pytest.raises(type(error)):
        down.query()
    assert ledger.alarms == []


def test_if_the_ledger_is_down_the_parts_are_restricted_and_the_order_can_be_given_again(ledger: Ledger) -> None:
    """Design §4: at step 2 without a ledger database the answer is an error; nothing is shown meanwhile."""
    ledger.append(a_visit("A"))

    class Down:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, _: UUID) -> Any:
            raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        ledger.with_parts(store=Down()).erase("patient:A")
    (redaction,) = ledger.event_at(0).redactions
    assert redaction.reason == "restricted"
    assert redaction.erasure_id is None
    assert ledger.erase("patient:A").erasure.entry.done
    assert reasons(ledger.event_at(0)) == {"/data": "erased"}


def test_an_event_under_the_id_of_an_erasure_does_not_pass_for_it(ledger: Ledger) -> None:
    """I9: the keys stay, and the parts restricted, when a writer has got hold of an open erasure's id and used it."""
    ledger.append(a_visit("A"))

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.vault, name)

        def begin_erasure(self, *arguments: Any, **options: Any) -> Any:
            entry = ledger.deps.vault.begin_erasure(*arguments, **options)
            ledger.append(a_fact(id=str(entry.erasure_id)))
            return entry

    with pytest.raises(IntegrityError, match="taken by another event"):
        ledger.with_parts(vault=Late()).erase("patient:A")
    assert [type(error) for error in resume_erasures(ledger.deps).values()] == [IntegrityError]
    assert reasons(ledger.event_at(0)) == {"/data": "restricted"}
    assert ledger.alarms == []
    (failed,) = list_erasures(ledger.deps, ledger.ledger_id, reference=None, done=False, after=None, limit=10)
    assert failed.state == "failed"
    assert get_erasure(ledger.deps, ledger.ledger_id, failed.entry.erasure_id).state == "failed"


def test_a_key_that_an_old_vault_brought_back_is_erased_again(ledger: Ledger) -> None:
    """I8: what is dead in the ledger and lives in a restored vault goes when its subject is erased again."""
    ledger.append(a_visit("A"))
    key_id, ref = ledger.key_of("patient:A"), ledger.subject_ref("patient:A")
    with pytest.raises(CrashError):
        ledger.with_parts(vault=CrashingVault(ledger.deps.vault, "finish_erasure", persisted=False)).erase("patient:A")
    erasures, subjects = vault_tables.erasures, vault_tables.subjects
    ledger.backend.vault_execute(sa.delete(erasures).where(erasures.c.ledger_id == ledger.ledger_id))
    ledger.backend.vault_execute(sa.update(subjects).where(subjects.c.subject_ref == ref).values(state="active"))

    again = ledger.erase("patient:A").erasure.entry

    first, second = erasures_recorded(ledger)
    assert (again.erasure_id, [(key_id, "")]) == (second, [(one, purpose) for one, purpose in again.key_ids])
    assert ledger.deps.vault.look_up_keys(ledger.ledger_id, [key_id])[key_id].status == "fenced"
    assert [redaction.erasure_id for redaction in ledger.event_at(0).redactions] == [first]
    ledger.assert_intact()
