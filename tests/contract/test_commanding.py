"""Commands: decided on the state, recorded once, retried when others were faster, refused in clear words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest

from ledger.domain.aggregate import Aggregate, Decision, Part
from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import JsonObject
from ledger.domain.fold import MERGE_PATCH
from ledger.errors import (
    BusyError,
    CommandRefusedError,
    IdConflictError,
    IntegrityError,
    InvalidError,
    StoreUnavailableError,
    StreamClosedError,
    SubjectErasedError,
)
from ledger.services.commanding import handling
from ledger.services.commanding.handling import Handled, handle
from ledger.services.commanding.loading import UnknownShapeError
from ledger.services.evolution.types import register_type
from ledger.services.reinstating import reinstate_subject
from tests.support.accounts import (
    ACCOUNT,
    Close,
    Deposit,
    Open,
    Transfer,
    Withdraw,
    balance,
    open_account,
    run,
    types_of,
)
from tests.support.ledgers import WRITER, Ledger, a_fact, a_visit


def test_a_command_is_decided_on_the_state_and_recorded(ledger: Ledger) -> None:
    """Open, deposit, withdraw: the events are those that were decided, sealed for the owner who was named once."""
    open_account(ledger, "ann", 100)
    handled = run(ledger, "account-ann", Withdraw(30))
    assert not handled.repeated
    assert [place.stream_version for place in handled.events] == [3]
    assert types_of(ledger) == ["Opened", "Deposited", "Withdrawn"]
    people = [event.subject for event in ledger.query()]
    assert [person.subject for person in people if person] == ["person:ann"] * 3
    assert balance(ledger, "ann") == 70
    ledger.assert_intact()


def test_a_command_against_the_rules_is_refused_and_records_nothing(ledger: Ledger) -> None:
    """In the words of the aggregate."""
    open_account(ledger, "ann", 10)
    with pytest.raises(CommandRefusedError, match="not enough"):
        run(ledger, "account-ann", Withdraw(11))
    with pytest.raises(CommandRefusedError, match="no such account"):
        run(ledger, "account-bob", Deposit(1))
    assert types_of(ledger) == ["Opened", "Deposited"]
    assert "account-bob" not in ledger.deps.vault.find_streams(ledger.ledger_id, ["account-bob"])


def test_a_command_that_leads_to_nothing_records_nothing(ledger: Ledger) -> None:
    """And is no error."""
    open_account(ledger, "ann")
    assert run(ledger, "account-ann", Deposit(0)) == Handled((), repeated=False)
    assert types_of(ledger) == ["Opened"]


@dataclass(frozen=True)
class Stranger:
    """A command that accounts do not know."""

    amount: int


@pytest.mark.parametrize(
    ("stream", "command", "pointer"),
    [
        ("account-ann", Deposit(-1), "/amount"),
        ("account-ann", Deposit("5"), "/amount"),  # type: ignore[arg-type]  # that is the point
        ("account-ann", Deposit(True), "/amount"),
        ("account-ann", Deposit(2**70), "/amount"),
        ("account-ann", Stranger(1), "/command"),
        ("ward-ann", Deposit(1), "/stream"),
        ("account", Deposit(1), "/stream"),
    ],
)
def test_a_command_that_cannot_be_right_is_told_where(
    ledger: Ledger, stream: str, command: object, pointer: str
) -> None:
    """With a pointer, before anything is loaded; and never with the value (I5)."""
    with pytest.raises(InvalidError) as refused:
        run(ledger, stream, command)
    assert [fault.pointer for fault in refused.value.faults] == [pointer]
    assert "ann" not in repr(refused.value.faults)


def test_an_id_that_was_made_by_hashing_is_refused(ledger: Ledger) -> None:
    """As for events."""
    with pytest.raises(InvalidError) as refused:
        run(ledger, "account-ann", Open("person:ann"), uuid5(uuid4(), "ann"))
    assert [fault.pointer for fault in refused.value.faults] == ["/command_id"]


def test_a_decision_that_is_no_event_is_refused_as_any_event_would_be(ledger: Ledger) -> None:
    """Data of nobody, reserved types: the decisions go through the same door as writers."""

    def decide(_state: JsonObject, _command: Any) -> list[Decision]:
        return [Decision("Noted", nonpersonal={}), Decision("SubjectErased", {"x": 1})]

    with pytest.raises(InvalidError) as refused:
        handle(
            ledger.deps,
            ledger.ledger_id,
            replace(ACCOUNT, decide=decide),
            "account-ann",
            Deposit(1),
            command_id=uuid4(),
            recorded_by=WRITER,
        )
    assert {fault.pointer for fault in refused.value.faults} == {"/decisions/1/type", "/decisions/1/subject"}
    assert ledger.size() == 0


# Once


def test_a_command_is_handled_once(ledger: Ledger) -> None:
    """The same id again gives the first result, although the state would not allow it any more."""
    open_account(ledger, "ann", 10)
    command_id = uuid4()
    first = run(ledger, "account-ann", Transfer(10, "account-bob", "person:bob"), command_id)
    again = run(ledger, "account-ann", Transfer(10, "account-bob", "person:bob"), command_id)
    assert (first.repeated, again.repeated) == (False, True)
    assert again.events == first.events
    assert len(first.events) == 2
    assert types_of(ledger) == ["Opened", "Deposited", "Withdrawn", "TransferBegun"]


def test_an_id_of_another_streams_command_is_refused(ledger: Ledger) -> None:
    """It names that one command, and can name no other."""
    open_account(ledger, "ann")
    open_account(ledger, "bob")
    command_id = uuid4()
    run(ledger, "account-ann", Deposit(1), command_id)
    with pytest.raises(IdConflictError, match="another stream"):
        run(ledger, "account-bob", Deposit(1), command_id)
    with pytest.raises(IdConflictError, match="another stream"):
        run(ledger, "account-carl", Deposit(1), command_id)


def test_a_commit_of_which_nobody_was_told_is_found_again(ledger: Ledger) -> None:
    """The connection is lost behind the commit: the answer is the first result, and nothing is doubled."""
    open_account(ledger, "ann")
    lost: list[bool] = []

    class Losing:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, ledger_id: UUID) -> Any:
            return _Lost(ledger.deps.store.locked_head(ledger_id), lost)

    command_id = uuid4()
    handled = run(ledger.with_parts(store=Losing()), "account-ann", Deposit(5), command_id)
    assert lost == [True]
    assert run(ledger, "account-ann", Deposit(5), command_id).events == handled.events
    assert balance(ledger, "ann") == 5


class _Lost:
    def __init__(self, inner: Any, lost: list[bool]) -> None:
        self._inner, self._lost = inner, lost

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)
        if not self._lost:
            self._lost.append(True)
            raise StoreUnavailableError("lost")


def between(ledger: Ledger, work: Callable[[], object]) -> Ledger:
    """The ledger as one sees it who is overtaken, once, between loading and appending."""
    done: list[bool] = []

    class Overtaken:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.vault, name)

        def reserve(self, *arguments: Any, **options: Any) -> Any:
            if not done:
                done.append(True)
                work()
            return ledger.deps.vault.reserve(*arguments, **options)

    return ledger.with_parts(vault=Overtaken())


def test_who_is_overtaken_decides_again_on_the_new_state(ledger: Ledger) -> None:
    """A withdrawal that was covered when it was decided and is not any more is refused; one that still is, is done."""
    open_account(ledger, "ann", 10)
    with pytest.raises(CommandRefusedError, match="not enough"):
        run(between(ledger, lambda: run(ledger, "account-ann", Withdraw(5))), "account-ann", Withdraw(6))
    handled = run(between(ledger, lambda: run(ledger, "account-ann", Withdraw(1))), "account-ann", Withdraw(4))
    assert [place.stream_version for place in handled.events] == [5]
    assert balance(ledger, "ann") == 0


def test_a_twin_that_decided_otherwise_gives_its_result_to_both(ledger: Ledger) -> None:
    """The same command at the same time in two processes: one set of events, whoever was first."""
    open_account(ledger, "ann", 10)
    command_id = uuid4()
    first: list[Handled] = []

    def twin() -> None:
        # On another state: a deposit more, so that it would say something else of the balance.
        run(ledger, "account-ann", Deposit(1))
        first.append(run(ledger, "account-ann", Withdraw(2), command_id))

    handled = run(between(ledger, twin), "account-ann", Withdraw(3), command_id)
    assert handled == Handled(first[0].events, repeated=True)
    assert balance(ledger, "ann") == 9


def test_the_attempts_are_bounded(ledger: Ledger) -> None:
    """Somebody who is overtaken every time gets an answer, too."""
    open_account(ledger, "ann")
    attempts: list[int] = []

    def decide(_state: JsonObject, _command: Any) -> list[Decision]:
        attempts.append(1)
        run(ledger, "account-ann", Deposit(1))
        return [Decision("Noted", nonpersonal={})]

    with pytest.raises(BusyError, match="keep changing"):
        handle(
            ledger.deps,
            ledger.ledger_id,
            replace(ACCOUNT, decide=decide),
            "account-ann",
            Deposit(1),
            command_id=uuid4(),
            recorded_by=WRITER,
        )
    assert len(attempts) == handling.ATTEMPTS


def test_concurrent_commands_never_overdraw_an_account(ledger: Ledger) -> None:
    """I3: of many who withdraw at the same time exactly those succeed for whom there is enough."""
    open_account(ledger, "ann", 5)
    outcomes: list[str] = []

    def withdraw() -> None:
        while True:
            try:
                run(ledger, "account-ann", Withdraw(1))
            except BusyError:
                continue
            except CommandRefusedError:
                outcomes.append("refused")
                return
            outcomes.append("paid")
            return

    threads = [threading.Thread(target=withdraw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["paid"] * 5 + ["refused"] * 3
    assert balance(ledger, "ann") == 0
    ledger.assert_intact()


# Whence and whither


def test_correlation_and_causation_flow_by_themselves(ledger: Ledger) -> None:
    """From the cause where there is one, else from the command."""
    command_id = uuid4()
    run(ledger, "account-ann", Open("person:ann"), command_id)
    (opened,) = ledger.query()
    assert opened.recorded.envelope.correlation_id == command_id
    assert opened.recorded.envelope.causation_id is None
    ledger.append(a_fact())
    fact = ledger.event_at(1)
    for cause in (opened, fact):
        handle(
            ledger.deps,
            ledger.ledger_id,
            ACCOUNT,
            "account-ann",
            Deposit(1),
            command_id=uuid4(),
            recorded_by=WRITER,
            cause=cause,
        )
    after_opened, after_fact = (ledger.event_at(position).recorded.envelope for position in (2, 3))
    assert (after_opened.causation_id, after_opened.correlation_id) == (opened.recorded.envelope.event_id, command_id)
    fact_id = fact.recorded.envelope.event_id
    assert (after_fact.causation_id, after_fact.correlation_id) == (fact_id, fact_id)


def test_a_decision_can_speak_of_others_too(ledger: Ledger) -> None:
    """Further people's parts are sealed for them, an actor is named, and what has an owner needs no name again."""

    def decide(_state: JsonObject, _command: Any) -> list[Decision]:
        return [
            Decision("Begun", {"a": 1}, subject="person:ann", further=(Part(subject="person:bob", data={"b": 2}),)),
            Decision("Went", {"a": 2}, nonpersonal={"n": 1}, actor="clerk:c", occurred_at=5, schema_version=3),
        ]

    aggregate = replace(ACCOUNT, decide=decide, fold=MERGE_PATCH)
    handle(
        ledger.deps,
        ledger.ledger_id,
        aggregate,
        "account-x",
        Deposit(1),
        command_id=uuid4(),
        recorded_by=WRITER,
    )
    begun, went = ledger.query()
    assert begun.further[0].subject == "person:bob"
    assert went.subject is not None
    assert (went.subject.subject, went.subject.data, went.nonpersonal) == ("person:ann", {"a": 2}, {"n": 1})
    assert went.actor is not None
    assert went.actor.subject == "clerk:c"
    assert (went.recorded.envelope.occurred_at, went.recorded.envelope.schema_version) == (5, 3)


# Ends


def test_a_closed_stream_takes_no_more_commands(ledger: Ledger) -> None:
    """Whatever its rules would have said, and even if they would have said nothing."""
    open_account(ledger, "ann")
    run(ledger, "account-ann", Close())
    for command in (Deposit(5), Withdraw(5), Deposit(0), Open("person:ann")):
        with pytest.raises(StreamClosedError):
            run(ledger, "account-ann", command)
    assert types_of(ledger) == ["Opened", "Closed"]


def test_nothing_is_decided_for_an_owner_who_was_erased(ledger: Ledger) -> None:
    """I8: the answer is that, and not what the rules make of a state that has lost its events."""
    open_account(ledger, "ann", 100)
    ledger.erase("person:ann")
    for command in (Deposit(1), Withdraw(1), Open("person:ann")):
        with pytest.raises(SubjectErasedError):
            run(ledger, "account-ann", command)


def test_a_command_of_one_who_came_back_is_not_handled_twice(ledger: Ledger) -> None:
    """I4: the stream's name begins anew, the old command's answer stays, and new commands find nothing of the old."""
    command_id = uuid4()
    first = run(ledger, "account-ann", Open("person:ann"), command_id)
    ledger.erase("person:ann")
    reinstate_subject(ledger.deps, ledger.ledger_id, "person:ann", reason=None, requested_by=WRITER)
    repeat = Handled(first.events, repeated=True)
    assert run(ledger, "account-ann", Open("person:ann"), command_id) == repeat
    open_account(ledger, "ann", 5)
    assert run(ledger, "account-ann", Open("person:ann"), command_id) == repeat
    assert balance(ledger, "ann") == 5


def test_nothing_is_decided_on_what_a_restriction_hides(ledger: Ledger) -> None:
    """A balance that cannot be seen is not 0; when the restriction is lifted, the command is handled."""
    open_account(ledger, "ann", 100)
    ref = ledger.subject_ref("person:ann")
    ledger.deps.vault.restrict(ledger.ledger_id, ref, 1)
    with pytest.raises(CommandRefusedError, match="restricted"):
        run(ledger, "account-ann", Withdraw(1))
    ledger.deps.vault.lift_restriction(ledger.ledger_id, ref, 2)
    run(ledger, "account-ann", Withdraw(1))
    assert balance(ledger, "ann") == 99


def test_nothing_is_decided_on_what_was_tampered_with(ledger: Ledger) -> None:
    """I9: an event that is not what its leaf says is not a state to rely on."""
    open_account(ledger, "ann", 100)
    ledger.edit(1, sealed=ledger.recorded()[0].leaf_hash)
    with pytest.raises(IntegrityError):
        run(ledger, "account-ann", Withdraw(1))


def test_nothing_is_decided_on_a_shape_that_is_not_known(ledger: Ledger) -> None:
    """A newer process has written a version that this one knows nothing of: it says so, and can be asked again."""
    open_account(ledger, "ann", 100)
    newer = {"type": "Paid", "schema_version": 2, "data": {"cents": 9000}}
    ledger.append({"stream": "account-ann", "subject": "person:ann", **newer})
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Paid", 1), WRITER)
    with pytest.raises(UnknownShapeError):
        run(ledger, "account-ann", Withdraw(50))
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Paid", 2, upcast=[]), WRITER)
    run(ledger, "account-ann", Withdraw(50))


def test_what_is_gone_of_others_does_not_hinder(ledger: Ledger) -> None:
    """A part of somebody else is gone for good: the stream goes on with what is left."""
    ledger.append(a_visit("A", stream="account-x", type="Opened", data={"balance": 1}))
    ledger.append(a_visit("B", stream="account-x", type="Remark"))
    ledger.erase("patient:B")
    run(ledger, "account-x", Deposit(1))
    assert ledger.event_at(3).subject == replace(ledger.event_at(0).subject, data={"amount": 1})  # type: ignore[type-var]  # there is one


def test_a_stream_that_was_reserved_and_never_begun_is_new(ledger: Ledger) -> None:
    """Whoever reserved its name for somebody else does not become its owner."""
    ledger.deps.vault.reserve(ledger.ledger_id, {"account-ann": "person:eve"}, {("person:eve", "")}, mint=True)
    run(ledger, "account-ann", Open("person:ann"))
    run(ledger, "account-ann", Deposit(1))
    assert balance(ledger, "ann") == 1
    ledger.erase("person:eve", block_unknown=True)
    assert balance(ledger, "ann") == 1


def test_an_erasure_under_way_has_the_command_wait(ledger: Ledger) -> None:
    """Neither refused for good nor decided: the state is about to change."""
    open_account(ledger, "ann", 1)
    with pytest.raises(StoreUnavailableError):
        ledger.with_parts(store=_NoHead(ledger)).erase("person:ann")
    with pytest.raises(BusyError):
        run(ledger, "account-ann", Deposit(1))


class _NoHead:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger.deps.store, name)

    def locked_head(self, _: UUID) -> Any:
        raise StoreUnavailableError("away")


def test_an_aggregate_that_is_put_together_wrong_says_so_at_once() -> None:
    """Misuse is an error at the door."""

    def nothing(_state: JsonObject, _command: Any) -> list[Decision]:
        return []

    def made(**changes: Any) -> Aggregate:
        fields: dict[str, Any] = {"name": "x", "category": "x", "fold": MERGE_PATCH, "decide": nothing}
        return Aggregate(**{**fields, "commands": (Deposit,), **changes})

    assert made().classes == {"Deposit": Deposit}
    for changes in ({"category": "ledger"}, {"category": "a-b"}, {"name": ""}, {"commands": ()}):
        with pytest.raises(ValueError, match=r"category|name|command"):
            made(**changes)


def test_events_of_an_unknown_type_are_folded_past(ledger: Ledger) -> None:
    """A type that the aggregate does not know changes nothing, whoever has recorded it."""
    open_account(ledger, "ann", 3)
    ledger.append(a_visit(stream="account-ann", subject="person:ann", type="Remark"))
    run(ledger, "account-ann", Withdraw(3))
    assert balance(ledger, "ann") == 0
