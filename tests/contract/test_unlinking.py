"""When a name is forgotten, what is signed about it, and that nothing leads from it any more: on SQLite and on
PostgreSQL."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from api.rendering import render_erasure, render_receipt
from keyvault.errors import UnlinkedError, VaultUnavailableError
from ledger.domain.catalogue import MOST_UNLINK_DAYS
from ledger.domain.encoding import leaf_of
from ledger.domain.events import OPERATOR, NewEvent, OpenedEvent
from ledger.domain.query import EventQuery, NameOrRef
from ledger.domain.times import parse_time
from ledger.errors import IdConflictError, InvalidError, NotFoundError, SubjectErasedError
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, ErasureOutcome, erase_subject, get_erasure, list_erasures
from ledger.services.evolution.types import get_policy, set_policy
from ledger.services.read import query_events
from ledger.services.receipts import get_receipt
from ledger.services.reinstating import reinstate_subject
from ledger.services.restricting import restrict_subject
from ledger.services.subjects import describe_subject
from ledger.services.unlinking import DAY, unlink_due
from ledger.storage.database import open_engine
from tests.support.keys import raw_keks
from tests.support.service import Place, Service, event, new_ledger, postgres_place, set_up, sqlite_place
from tests.support.ways import rows_of, ways_from

PERSON, STREAM = "person:a", "case-a"


class Scene:
    """A ledger whose clock a test can put forward."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.vault = service.vault
        self.days = 0
        clock = service.deps.clock
        self.deps = replace(service.deps, clock=lambda: clock() + self.days * DAY)
        self.ledger_id = new_ledger(service, f"test-{secrets.token_hex(6)}").ledger_id

    def visit(self, name: str = PERSON, stream: str = STREAM, **fields: Any) -> NewEvent:
        """An event about somebody."""
        return event(stream, subject=name, **{"data": {"n": 1}, **fields})

    def record(self, *events: NewEvent) -> Any:
        """Append them."""
        return append_events(self.deps, self.ledger_id, events or [self.visit()], OPERATOR)

    def query(self, question: EventQuery = EventQuery()) -> list[OpenedEvent]:  # noqa: B008 - frozen
        """What a query finds."""
        return list(query_events(self.deps, self.ledger_id, question, cursor=None, limit=100).events)

    def erase(self, name: str = PERSON, purposes: list[str] | None = None, *, block: bool = False) -> ErasureOutcome:
        """Somebody is erased."""
        order = ErasureOrder(NameOrRef(name, None), purposes, None, None, block, OPERATOR)
        return erase_subject(self.deps, self.ledger_id, order)

    def unlink(self) -> list[Any]:
        """What the worker does; gives the erasures that it stated something about."""
        outcomes = unlink_due(self.deps, self.ledger_id)
        assert [error for error in outcomes.values() if error is not None] == []
        return list(outcomes)

    def shown(self, outcome: ErasureOutcome) -> dict[str, Any]:
        """The erasure as the API shows it."""
        shown = render_erasure(get_erasure(self.deps, self.ledger_id, outcome.erasure.entry.erasure_id))
        assert (shown["unlinked_at"] is None) == (shown["unlink_pending"] is not None)
        return shown

    def pending(self, outcome: ErasureOutcome) -> str | None:
        """The word for what stands in the way."""
        pending = self.shown(outcome)["unlink_pending"]
        return None if pending is None else str(pending["reason"])

    def statements(self, outcome: ErasureOutcome) -> list[Any]:
        """What the receipt says was signed later."""
        receipt = get_receipt(self.deps, self.ledger_id, outcome.erasure.entry.erasure_id)
        assert (receipt.payload, receipt.signature) == (outcome.receipt.payload, outcome.receipt.signature)
        return list(render_receipt(receipt)["statements"])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The databases that these tests share, of either engine."""
    home = tmp_path_factory.mktemp("unlinking") / "home"
    if request.param == "sqlite":
        made = set_up(sqlite_place(home))
    else:
        made = set_up(postgres_place(request.getfixturevalue("postgres"), home))
    yield made
    made.close()


@pytest.fixture
def scene(service: Service) -> Scene:
    """A ledger to erase in."""
    return Scene(service)


# When


def test_a_name_is_forgotten_when_the_time_of_the_policy_is_over(scene: Scene) -> None:
    """90 days after the erasure, by default; until then it says when it is due."""
    scene.record()
    outcome = scene.erase()
    erased_at = outcome.erasure.entry.erased_at or 0
    assert scene.pending(outcome) == "not-yet"
    assert parse_time(scene.shown(outcome)["unlink_pending"]["due_at"]) == erased_at + 90 * DAY
    scene.days = 89
    assert scene.unlink() == []
    scene.days = 91
    assert scene.pending(outcome) == "unsigned"
    assert scene.unlink() == [outcome.erasure.entry.erasure_id]
    assert scene.unlink() == []
    assert scene.pending(outcome) is None
    assert erased_at + 91 * DAY - DAY < (parse_time(scene.shown(outcome)["unlinked_at"]) or 0)


@pytest.mark.parametrize(("days", "word"), [("never", "policy-never"), (7, "not-yet"), (MOST_UNLINK_DAYS, "not-yet")])
def test_the_policy_decides(scene: Scene, days: int | str, word: str) -> None:
    """It holds for what was erased before it was set, too."""
    scene.record()
    outcome = scene.erase()
    set_policy(scene.deps, scene.ledger_id, {"unlink_after": days})
    assert scene.pending(outcome) == word
    scene.days = 8
    assert bool(scene.unlink()) == (days == 7)


def test_a_policy_that_makes_no_sense_is_refused(scene: Scene) -> None:
    """Nothing is changed."""
    for wrong in (-1, MOST_UNLINK_DAYS + 1, 1.5, True, "90", None):
        with pytest.raises(InvalidError):
            set_policy(scene.deps, scene.ledger_id, {"unlink_after": wrong})
    assert get_policy(scene.deps, scene.ledger_id).unlink_after == 90


def test_with_the_erasure(scene: Scene) -> None:
    """``0``: when the order is answered the name is forgotten, and the answer says so; the receipt is as ever."""
    set_policy(scene.deps, scene.ledger_id, {"unlink_after": 0})
    scene.record()
    outcome = scene.erase()
    assert outcome.name_salt is not None
    assert outcome.erasure.linked.unlinked_at is not None
    assert [one.payload["kind"] for one in outcome.receipt.statements] == ["unlinked"]
    assert scene.statements(outcome)[0]["payload"]["erasure_id"] == str(outcome.erasure.entry.erasure_id)
    with pytest.raises(UnlinkedError):
        scene.erase()
    assert scene.unlink() == []


def test_with_the_erasure_a_failure_costs_no_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The salt is handed out once: what fails is left to the worker."""
    set_policy(scene.deps, scene.ledger_id, {"unlink_after": 0})
    scene.record()
    with monkeypatch.context() as patch:
        patch.setattr(scene.vault.journal, "append", _failing_on(scene.vault.journal.append, "unlink"))
        outcome = scene.erase()
    assert outcome.name_salt is not None
    assert scene.pending(outcome) == "unsigned"
    assert scene.unlink() == [outcome.erasure.entry.erasure_id]


def test_what_a_person_did_as_an_actor_tells_the_name(scene: Scene) -> None:
    """As long as that is kept the name cannot be forgotten; then each erasure of the person is stated."""
    scene.record(scene.visit(actor={"subject": PERSON}), scene.visit())
    first = scene.erase()
    scene.days = 91
    assert scene.pending(first) == "keys-living"
    assert scene.unlink() == []
    second = scene.erase(purposes=["actor"])
    assert set(scene.unlink()) == {one.erasure.entry.erasure_id for one in (first, second)}
    assert scene.statements(first)[0]["payload"]["unlinked_at"] == scene.statements(second)[0]["payload"]["unlinked_at"]


def test_an_erasure_of_one_purpose_forgets_no_name(scene: Scene) -> None:
    """The name is in use."""
    scene.record(scene.visit(), scene.visit(purpose="billing"))
    outcome = scene.erase(purposes=["billing"])
    scene.days = 500
    assert (scene.unlink(), scene.pending(outcome)) == ([], "partial")
    scene.record()


def test_a_blocked_name_is_forgotten_too(scene: Scene) -> None:
    """Of whom nothing was ever recorded."""
    outcome = scene.erase("person:unknown", block=True)
    scene.days = 91
    assert scene.unlink() == [outcome.erasure.entry.erasure_id]
    with pytest.raises(SubjectErasedError):
        scene.record(scene.visit("person:unknown"))


# What is signed


def test_the_statement_is_signed_by_the_ledger(scene: Scene) -> None:
    """In the form of the others; the vault's journal has a line, with the ref and nothing that stands beside the
    name."""
    scene.record()
    outcome = scene.erase()
    scene.days = 91
    scene.unlink()
    (statement,) = scene.statements(outcome)
    payload = statement["payload"]
    message = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = Ed25519PublicKey.from_public_bytes(scene.vault.verifying_key(scene.ledger_id))
    key.verify(base64.b64decode(statement["signature"]), b"audit-ledger v1 statement\n" + message)
    shown = scene.shown(outcome)
    assert payload == {
        "kind": "unlinked",
        "erasure_id": shown["id"],
        "ledger_id": str(scene.ledger_id),
        "subject_ref": shown["subject_ref"],
        "unlinked_at": shown["unlinked_at"],
        "position": 2,
        "leaf": base64.b64encode(leaf_of(scene.query()[2].recorded)).decode(),
    }
    ref = outcome.erasure.entry.subject_ref
    summary = describe_subject(scene.deps, scene.ledger_id, NameOrRef(None, ref))
    assert (summary.unlinked_at, summary.names) == (parse_time(shown["unlinked_at"]), 0)


def test_nothing_is_signed_about_what_the_ledger_has_never_recorded(scene: Scene) -> None:
    """I9: whoever drives the vault alone gets no statement."""
    scene.record()
    begun = scene.vault.begin_erasure(
        scene.ledger_id,
        PERSON,
        erasure_id=scene.deps.new_id(),
        purposes=None,
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=scene.deps.clock(),
        requested_by=OPERATOR,
        block_unknown=False,
    )
    scene.vault.finish_erasure(scene.ledger_id, begun.erasure_id, scene.deps.clock())
    scene.days = 91
    assert scene.unlink() == []
    assert scene.vault.find_subjects(scene.ledger_id, [PERSON]) != {}


@pytest.mark.parametrize("where", ["unlink", "sign", "add_statement"])
def test_a_crash_at_any_step_is_made_good(scene: Scene, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """I12: by the next call, with the first time; others are not kept waiting."""
    for name in "ab":
        scene.record(scene.visit(f"person:{name}", f"case-{name}"))
    outcomes = [scene.erase(f"person:{name}") for name in "ab"]
    scene.days = 91
    with monkeypatch.context() as patch:
        patch.setattr(type(scene.vault), where, _failing_once(getattr(type(scene.vault), where)))
        failed = unlink_due(scene.deps, scene.ledger_id)
    assert sorted(error is None for error in failed.values()) == [False, True]
    assert len(scene.unlink()) == (0 if where == "add_statement" else 1)
    assert [scene.pending(outcome) for outcome in outcomes] == [None, None]
    listed = list_erasures(scene.deps, scene.ledger_id, reference=None, done=None, after=None, limit=9)
    assert all(one.linked.unlinked_at is not None for one in listed)


def _failing_once(real: Any) -> Any:
    failed: list[int] = []

    def work(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        if not failed:
            failed.append(1)
            raise VaultUnavailableError("power cut")
        return found

    return work


def _failing_on(real: Any, kind: str) -> Any:
    def work(which: str, *arguments: Any, **named: Any) -> Any:
        if which == kind:
            raise VaultUnavailableError("disk full")
        return real(which, *arguments, **named)

    return work


def test_that_nothing_is_due_is_found_at_once(scene: Scene) -> None:
    """However many were erased, and are forgotten by now."""
    scene.record()
    done = scene.erase().erasure.entry
    on_postgresql = scene.vault.engine.dialect.name == "postgresql"
    numbers = (
        "generate_series(1, 100000)"
        if on_postgresql
        else "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i FROM n)"
    )
    new_id, old_id = (
        ("gen_random_uuid()", done.erasure_id) if on_postgresql else ("randomblob(16)", done.erasure_id.bytes)
    )
    columns = "ledger_id, subject_ref, key_ids, next_state, state, requested_at, erased_at, epoch, requested_by"
    copies = f"INSERT INTO erasures (erasure_id, unlinked_at, {columns}) SELECT {new_id}, erased_at, {columns} "
    with scene.vault.engine.begin() as connection:
        connection.execute(sa.text(f"{copies} FROM erasures, {numbers} WHERE erasure_id = :id"), {"id": old_id})
        if on_postgresql:
            connection.execute(sa.text("ANALYZE erasures"))
    scene.days = 89
    begun = time.perf_counter()
    assert unlink_due(scene.deps, scene.ledger_id) == {}
    assert time.perf_counter() - begun < 1
    with scene.vault.engine.connect() as connection:
        explain = "EXPLAIN" if on_postgresql else "EXPLAIN QUERY PLAN"
        where = "ledger_id = :id AND unlinked_at IS NULL AND purposes IS NULL AND erased_at <= 5"
        ledger_id = scene.ledger_id if on_postgresql else scene.ledger_id.bytes
        plan = connection.execute(sa.text(f"{explain} SELECT * FROM erasures WHERE {where}"), {"id": ledger_id}).all()
    assert "erasures_to_unlink" in str(plan)


# What holds afterwards


def test_appends_are_refused_as_before(scene: Scene) -> None:
    """In every role, and into their streams; what may be left out is left out."""
    scene.record()
    scene.erase()
    scene.days = 91
    scene.unlink()
    for refused in (
        scene.visit(),
        scene.visit(stream="case-new"),
        scene.visit("person:b"),
        scene.visit("person:b", "case-b", actor=PERSON),
        scene.visit("person:b", "case-b", parts=[{"subject": PERSON, "data": {}}]),
        scene.visit(if_erased="omit"),
        scene.visit(stream="case-new", if_erased="omit"),
    ):
        with pytest.raises(SubjectErasedError):
            scene.record(refused)
    size = scene.deps.store.head(scene.ledger_id).size
    scene.record(event("ward-1", nonpersonal={"n": 1}, actor=PERSON, if_erased="omit"))
    scene.record(scene.visit("person:b", "case-b", parts=[{"subject": PERSON, "data": {}}], if_erased="omit"))
    left = [one for one in scene.query() if one.recorded.position >= size]
    assert [(one.actor, one.further) for one in left] == [(None, ()), (None, ())]


def test_a_retry_is_still_a_repeat(scene: Scene) -> None:
    """I4: the first result, whatever was forgotten since; other content under the id still conflicts where that can be
    told."""
    sent = scene.visit(id=str(scene.deps.new_id()))
    first = scene.record(sent)
    scene.erase()
    scene.days = 91
    scene.unlink()
    again = scene.record(sent)
    assert (again.duplicate, again.events) == (True, first.events)
    other_type = event(STREAM, "Other", subject=PERSON, data={"n": 1}, id=str(sent.event_id))
    other_category = scene.visit(stream="patient-a", id=str(sent.event_id))
    for differing in (other_type, other_category):
        with pytest.raises(IdConflictError):
            scene.record(differing)


def test_asking_by_name_finds_nothing(scene: Scene) -> None:
    """As for a name that nobody has, or 410 where what is asked for is this very person."""
    scene.record()
    ref = scene.erase().erasure.entry.subject_ref
    scene.days = 91
    scene.unlink()
    for question in (
        EventQuery(subject=NameOrRef(PERSON, None)),
        EventQuery(involving=NameOrRef(PERSON, None)),
        EventQuery(stream=NameOrRef(STREAM, None)),
    ):
        assert scene.query(question) == []
    skeleton, erasure, unlinked = scene.query()
    assert (skeleton.stream, erasure.recorded.position) == (None, 1)
    assert unlinked.recorded.envelope.event_type == "NameUnlinked"
    assert skeleton.subject is not None
    assert (skeleton.subject.subject, skeleton.subject.data, skeleton.subject.subject_ref) == (None, None, ref)
    by_name = NameOrRef(PERSON, None)
    with pytest.raises(SubjectErasedError):
        describe_subject(scene.deps, scene.ledger_id, by_name)
    with pytest.raises(SubjectErasedError):
        restrict_subject(scene.deps, scene.ledger_id, by_name, reason=None, requested_by=OPERATOR)
    with pytest.raises(NotFoundError):
        describe_subject(scene.deps, scene.ledger_id, NameOrRef("person:nobody", None))
    assert describe_subject(scene.deps, scene.ledger_id, NameOrRef(None, ref)).events == 1


def test_a_name_can_begin_anew_and_be_forgotten_again(scene: Scene) -> None:
    """Each time with a new ref; an append of the first life is still a repeat."""
    refs, sent = set(), scene.visit(id=str(scene.deps.new_id()))
    for life in range(3):
        scene.record(sent if life == 0 else scene.visit())
        refs.add(scene.erase().erasure.entry.subject_ref)
        scene.days += 91
        assert len(scene.unlink()) == 1
        reinstate_subject(scene.deps, scene.ledger_id, PERSON, reason=None, requested_by=OPERATOR)
    assert len(refs) == 3
    assert scene.record(sent).duplicate


# That there is no way


def test_nothing_in_anybodys_hand_leads_from_the_name_to_the_skeleton(place: Place) -> None:
    """Both databases, an old copy of the vault's and every key that exists: no join and no blob leads to a ref. Before
    the old KEK was destroyed the same search finds the way in the old copy."""
    scene = Scene(set_up(place))
    ledger_engine = open_engine(place.ledger_url)
    scene.record(scene.visit(actor="person:doctor"), scene.visit(stream="letter-a"))
    scene.record(scene.visit("person:b", "case-b", actor="person:doctor"))
    vault, ledger_id = scene.vault, scene.ledger_id
    keks = scene.service.place.home / "kek"
    known = vault._ledger_keys(ledger_id)
    digests = [known.subject_hash(PERSON), known.stream_hash(STREAM), known.stream_hash("letter-a")]
    others = [known.subject_hash("person:b"), known.stream_hash("case-b")]
    streams = vault.find_streams(ledger_id, [STREAM, "letter-a"])
    # A logical copy: what the files of PostgreSQL tell beyond it is named in docs/how-to/forget-the-name.md.
    old = rows_of(vault.engine, physical=False)
    outcome = scene.erase()
    skeleton = {outcome.erasure.entry.subject_ref, *(entry.ref for entry in streams.values())}
    person_b = vault.find_subjects(ledger_id, ["person:b"])["person:b"].ref

    def found(*, copy: bool) -> list[set[object]]:
        rows = rows_of(vault.engine) + rows_of(ledger_engine) + (old if copy else [])
        keys = set(raw_keks(keks).values())
        assert all(person_b in ways_from(digest, rows, keys) for digest in others)
        return [ways_from(digest, rows, keys) & skeleton for digest in digests]

    assert found(copy=False) == [skeleton] * 3
    scene.days = 91
    scene.unlink()
    vault.epochs.rotate()
    assert found(copy=False) == [set()] * 3
    assert found(copy=True) == [skeleton] * 3
    vault.epochs.note_backup(scene.deps.clock(), "made")
    vault.epochs.destroy(1)
    assert found(copy=True) == [set()] * 3
    ledger_engine.dispose()
    scene.service.close()
