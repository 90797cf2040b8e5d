"""Process managers: what an event leads to is decided once and carried out once, timers included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.ids import format_ref
from ledger.domain.names import COMMAND_REFUSED, PROCESS_REACTED, TIMER_FIRED
from ledger.domain.process import (
    MOST_REACTIONS,
    CancelTimer,
    End,
    Note,
    ProcessManager,
    Reaction,
    Send,
    SetTimer,
    refusal_of,
)
from ledger.errors import InvalidError
from ledger.ports import Cursor, CursorKey
from ledger.services.commanding.processes import LEASE, restart, standing, step
from ledger.services.evolution.types import register_type, set_policy
from ledger.storage import tables
from tests.support.accounts import (
    ACCOUNT,
    HOUR,
    IDLE,
    TRANSFER,
    Close,
    Deposit,
    Open,
    Transfer,
    Withdraw,
    balance,
    open_account,
    run,
    types_of,
    until_idle,
    with_react,
)
from tests.support.ledgers import Ledger, a_fact, reasons

BOB = Transfer(30, "account-bob", "person:bob")


@pytest.fixture
def bank(ledger: Ledger) -> Ledger:
    """Ann has 100, Bob nothing."""
    open_account(ledger, "ann", 100)
    open_account(ledger, "bob")
    return ledger


def cursor_of(ledger: Ledger, name: str = "transfer") -> Cursor:
    """The cursor of a process."""
    (found,) = [cursor for cursor in standing(ledger.deps, ledger.ledger_id) if cursor.key.name == name]
    return found


def instance_events(ledger: Ledger) -> list[OpenedEvent]:
    """What the transfers have recorded."""
    return list(ledger.query(category="process.transfer"))


def later(ledger: Ledger, microseconds: int) -> None:
    """Let time pass."""
    ledger.backend.clock.now += microseconds


# Commands


def test_an_event_leads_to_a_command_once(bank: Ledger) -> None:
    """The money arrives; looking again, from the start even, moves nothing more."""
    run(bank, "account-ann", BOB)
    until_idle(bank)
    assert (balance(bank, "ann"), balance(bank, "bob")) == (70, 30)
    recorded = types_of(bank)
    columns = tables.cursors.c
    bank.backend.execute(sa.delete(tables.cursors).where(columns.ledger_id == bank.ledger_id))
    until_idle(bank, holder=uuid4())
    assert types_of(bank) == recorded
    bank.assert_intact()


def test_correlation_and_causation_lead_from_the_command_to_the_last_event(bank: Ledger) -> None:
    """Who asks what an event led to follows the ids."""
    command_id = uuid4()
    run(bank, "account-ann", BOB, command_id)
    until_idle(bank)
    begun = bank.query(types=("TransferBegun",))[0].recorded.envelope
    reacted = bank.query(types=("ProcessReacted",))[0].recorded.envelope
    paid = bank.query(types=("Deposited",))[-1].recorded.envelope
    assert (reacted.causation_id, paid.causation_id) == (begun.event_id, reacted.event_id)
    assert begun.correlation_id == reacted.correlation_id == paid.correlation_id == command_id


def test_what_concerns_each_is_sealed_for_each(bank: Ledger) -> None:
    """I5: the instance's notes belong to its subject, the receiver's account to the receiver."""
    run(bank, "account-ann", BOB)
    until_idle(bank)
    (reacted,) = instance_events(bank)
    assert reacted.nonpersonal is None
    assert reacted.subject is not None
    assert reacted.subject.subject == "person:ann"
    assert "bob" not in repr(reacted.subject.data)
    assert [part.subject for part in reacted.further] == ["person:bob"]
    bank.erase("person:bob")
    (reacted,) = instance_events(bank)
    assert reasons(reacted) == {"/parts/0": "erased"}


def test_a_refused_command_is_recorded_and_reacted_to(bank: Ledger) -> None:
    """To an account that is not there: the money comes back."""
    run(bank, "account-ann", Transfer(30, "account-nobody", "person:nobody"))
    until_idle(bank)
    assert balance(bank, "ann") == 100
    refused = refusal_of(bank.query(types=("CommandRefused",))[0])
    assert refused is not None
    assert (refused.aggregate, refused.command, refused.reason) == ("account", "Deposit", "CommandRefusedError")
    assert refused.detail == "there is no such account"


@pytest.mark.parametrize("how", ["closed", "erased"])
def test_a_target_that_is_over_is_a_refusal(bank: Ledger, how: str) -> None:
    """An account that has ended, or whose owner was erased: that instance reacts, the process goes on."""
    run(bank, "account-ann", BOB)
    if how == "closed":
        run(bank, "account-bob", Close())
    else:
        bank.erase("person:bob")
    until_idle(bank)
    assert balance(bank, "ann") == 100
    refused = refusal_of(bank.query(types=("CommandRefused",))[0])
    assert refused is not None
    assert refused.reason == {"closed": "StreamClosedError", "erased": "SubjectErasedError"}[how]


def test_a_restricted_receiver_is_a_refusal(bank: Ledger) -> None:
    """Nothing is done with data that may only be kept; the sender does not wait for it."""
    run(bank, "account-ann", BOB)
    bank.deps.vault.restrict(bank.ledger_id, bank.subject_ref("person:bob"), 1)
    until_idle(bank)
    assert balance(bank, "ann") == 100
    refused = refusal_of(bank.query(types=("CommandRefused",))[0])
    assert refused is not None
    assert refused.reason == "RestrictedStateError"


def test_an_erased_owner_ends_the_instance_and_not_the_process(bank: Ledger) -> None:
    """Whoever was erased wants nothing done any more; the others' transfers go on."""
    open_account(bank, "eve", 5)
    run(bank, "account-ann", BOB)
    run(bank, "account-eve", Transfer(5, "account-bob", "person:bob"))
    bank.erase("person:ann")
    until_idle(bank)
    assert balance(bank, "bob") == 5
    assert cursor_of(bank).error is None


def test_a_process_of_nobody_keeps_its_notes_as_nonpersonal(ledger: Ledger) -> None:
    """Counting facts that concern no person."""

    def count(state: JsonObject, _event: OpenedEvent) -> Sequence[Reaction]:
        return [Note({"seen": state.get("seen", 0) + 1})]

    counter = ProcessManager(
        name="counter",
        input_category="ward",
        instance_of=lambda _: "all",
        react=count,
        aggregates=(ACCOUNT,),
    )
    ledger.append(*(a_fact() for _ in range(3)))
    until_idle(ledger, counter)
    notes = [event.nonpersonal for event in ledger.query(category="process.counter")]
    assert [note["reactions"] for note in notes if note] == [[{"note": {"seen": n}}] for n in (1, 2, 3)]


def test_a_process_sees_what_its_filter_says_and_never_itself(ledger: Ledger) -> None:
    """With no filter at all it does not react to its own events; others' are not for it unless it says so."""
    seen: list[str] = []

    def look(_state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        seen.append(event.recorded.envelope.event_type)
        return [Note({"x": 1})]

    everything = with_react(look, input_category=None, input_types=(), instance_of=lambda _: "one", name="everything")
    open_account(ledger, "ann", 1)
    ledger.append(a_fact())
    until_idle(ledger, everything)
    assert seen == ["Opened", "Deposited", "Opened"]
    seen.clear()
    until_idle(ledger, replace(everything, name="late", begin_after=1))
    assert seen == ["Opened"] + ["ProcessReacted"] * 3


# Ends and failures


def test_an_instance_that_ended_reacts_to_nothing_more(bank: Ledger) -> None:
    """Its stream is closed; the process goes on with the others."""

    def once(_state: JsonObject, _event: OpenedEvent) -> Sequence[Reaction]:
        return [Note({"seen": True}), End()]

    ending = replace(IDLE, react=once)
    until_idle(bank, ending)
    run(bank, "account-ann", Deposit(1))
    open_account(bank, "eve")
    until_idle(bank, ending)
    streams = [event.stream for event in bank.query(category="process.idle")]
    assert streams == ["process.idle-account-ann", "process.idle-account-bob", "process.idle-account-eve"]
    assert cursor_of(bank, "idle").state == "running"


def test_what_was_decided_with_the_end_is_carried_out_whatever_is_refused(bank: Ledger) -> None:
    """The ended instance hears nothing of the refusal, and the command behind it is sent all the same."""

    def react(_state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        data = (event.subject.data if event.subject else None) or {}
        pay = Send("account", data["to"], Deposit(data["amount"]), subject=data["receiver"])
        return [Send("account", "account-nobody", Deposit(1)), pay, End()]

    run(bank, "account-ann", BOB)
    until_idle(bank, with_react(react))
    assert balance(bank, "bob") == 30
    assert types_of(bank).count(PROCESS_REACTED) == 1
    until_idle(bank, with_react(react), holder=uuid4())
    assert balance(bank, "bob") == 30


class MadeUpError(Exception):
    """A mistake in somebody's reaction. Its text could hold anything."""


def test_a_reaction_that_fails_stops_the_process_visibly(bank: Ledger) -> None:
    """At that event, with the class of the error and nothing of its text (I5); mended and restarted, it goes on."""

    def failing(_state: JsonObject, _event: OpenedEvent) -> Sequence[Reaction]:
        raise MadeUpError("person:ann")

    run(bank, "account-ann", BOB)
    until_idle(bank, with_react(failing))
    cursor = cursor_of(bank)
    assert (cursor.state, cursor.error, cursor.tries, cursor.holder) == ("stopped", "MadeUpError", 1, None)
    assert until_idle(bank) == 0
    assert balance(bank, "bob") == 0
    assert restart(bank.deps, bank.ledger_id, "transfer")
    assert not restart(bank.deps, bank.ledger_id, "other")
    until_idle(bank)
    assert balance(bank, "bob") == 30
    assert cursor_of(bank).error is None


def broken(_state: JsonObject, _command: Any) -> Any:
    """An aggregate with a mistake in it."""
    raise MadeUpError("person:bob")


@pytest.mark.parametrize(
    ("manager", "error"),
    [
        (replace(TRANSFER, aggregates=(replace(ACCOUNT, decide=broken),)), "MadeUpError"),
        (replace(TRANSFER, aggregates=(replace(ACCOUNT, fold=replace(ACCOUNT.fold, apply=broken)),)), "MadeUpError"),
        (replace(TRANSFER, aggregates=(replace(ACCOUNT, validate=lambda _: broken({}, 1)),)), "MadeUpError"),
        (replace(TRANSFER, instance_of=lambda event: broken({}, event)), "MadeUpError"),
        (replace(TRANSFER, subject_of=lambda event: broken({}, event)), "MadeUpError"),
        (replace(TRANSFER, aggregates=()), "ValueError"),
        (with_react(lambda _s, _e: [Send("account", "account-bob", Open(5))]), "ValueError"),  # type: ignore[arg-type]  # that is the point
        (with_react(lambda _s, _e: [SetTimer("no word", 1)]), "ValueError"),
        (with_react(lambda _s, _e: [SetTimer("x", -1)]), "ValueError"),
        (with_react(lambda _s, _e: [Note({})] * (MOST_REACTIONS + 1)), "ValueError"),
        (with_react(lambda _s, _e: ["nothing of the kind"]), "TypeError"),  # type: ignore[list-item]  # that is the point
        (with_react(lambda _s, _e: [Note({"x": "\ud800"})]), "InvalidError"),
        (replace(TRANSFER, instance_of=lambda _: " "), "InvalidError"),
        (with_react(lambda _s, _e: [Send("account", "account-nobody", Deposit(1))]), "EndlessRefusals"),
    ],
)
def test_whatever_cannot_go_on_is_stopped_and_named(bank: Ledger, manager: ProcessManager, error: str) -> None:
    """Never passed over, never in a loop for good."""
    run(bank, "account-ann", BOB)
    until_idle(bank, manager)
    cursor = cursor_of(bank)
    assert (cursor.state, cursor.error) == ("stopped", error)
    assert cursor.position < bank.query(types=("TransferBegun",))[0].recorded.position
    assert balance(bank, "bob") == 0


def test_an_event_that_was_tampered_with_stops_the_process(bank: Ledger) -> None:
    """I9: it is neither believed nor passed over."""
    run(bank, "account-ann", BOB)
    position = bank.query(types=("TransferBegun",))[0].recorded.position
    bank.edit(position, sealed=bank.recorded()[0].leaf_hash)
    until_idle(bank)
    assert (cursor_of(bank).state, cursor_of(bank).error) == ("stopped", "IntegrityError")


def test_in_a_strict_ledger_a_process_records_its_own_types(bank: Ledger) -> None:
    """Which nobody can register, or write."""
    for number, name in enumerate(("Opened", "Deposited", "Withdrawn", "TransferBegun")):
        register_type(bank.deps, bank.ledger_id, TypeDraft(name, 1), UUID(int=number))
    set_policy(bank.deps, bank.ledger_id, {"strict_types": True})
    run(bank, "account-ann", BOB)
    until_idle(bank)
    assert balance(bank, "bob") == 30
    for name in (PROCESS_REACTED, TIMER_FIRED, COMMAND_REFUSED):
        with pytest.raises(InvalidError):
            register_type(bank.deps, bank.ledger_id, TypeDraft(name, 1), UUID(int=9))


def test_nobody_else_writes_to_the_stream_of_an_instance(bank: Ledger) -> None:
    """Neither by its name nor by its ref: what stands there is believed."""
    run(bank, "account-ann", BOB)
    until_idle(bank)
    (own,) = instance_events(bank)
    forged = {"type": "Noted", "nonpersonal": {"reactions": []}}
    for stream in ({"stream": own.stream}, {"stream_ref": format_ref("str", own.recorded.envelope.stream_ref)}):
        with pytest.raises(InvalidError):
            bank.append({**stream, **forged})
    assert instance_events(bank) == [own]


def test_an_event_in_a_shape_that_is_not_known_is_waited_for(bank: Ledger) -> None:
    """Visibly, and not passed over: a newer worker may know it."""
    newer = {"type": "TransferBegun", "schema_version": 2}
    data = {"amount": 30, "to": "account-bob", "receiver": "person:bob"}
    bank.append({"stream": "account-ann", "subject": "person:ann", "data": data, **newer})
    register_type(bank.deps, bank.ledger_id, TypeDraft("TransferBegun", 1), UUID(int=9))
    until_idle(bank)
    assert (cursor_of(bank).state, cursor_of(bank).error) == ("running", "UnknownShapeError")
    register_type(bank.deps, bank.ledger_id, TypeDraft("TransferBegun", 2, upcast=[]), UUID(int=9))
    later(bank, HOUR // 2)
    until_idle(bank)
    assert (balance(bank, "bob"), cursor_of(bank).error) == (30, None)


def test_an_erasure_under_way_has_the_process_try_again(bank: Ledger) -> None:
    """What is about to change is waited for, a little longer each time."""

    class NoHead:
        def __getattr__(self, name: str) -> Any:
            return getattr(bank.deps.store, name)

        def locked_head(self, _: UUID) -> Any:
            raise MadeUpError

    def plainly(state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        sends = TRANSFER.react(state, event)
        return [replace(one, subject=None) if isinstance(one, Send) else one for one in sends]

    plain = with_react(plainly)
    run(bank, "account-ann", BOB)
    with pytest.raises(MadeUpError):
        bank.with_parts(store=NoHead()).erase("person:bob")
    until_idle(bank, plain)
    first = cursor_of(bank)
    assert (first.state, first.error, first.tries) == ("running", "BusyError", 1)
    later(bank, 1_500_000)
    until_idle(bank, plain)
    second = cursor_of(bank)
    assert second.tries == 2
    assert second.retry_at - bank.backend.clock.now > 1_500_000
    bank.erase("person:bob")
    later(bank, 5_000_000)
    until_idle(bank, plain)
    assert balance(bank, "ann") == 100


def test_an_error_of_a_dependency_is_the_workers(bank: Ledger) -> None:
    """The process is not to blame: nothing is noted against it, and the next step goes on."""

    class Down:
        def __getattr__(self, name: str) -> Any:
            return getattr(bank.deps.vault, name)

        def reserve(self, *_: Any, **__: Any) -> Any:
            raise MadeUpError

    run(bank, "account-ann", BOB)
    holder = uuid4()
    with pytest.raises(MadeUpError):
        until_idle(bank.with_parts(vault=Down()), holder=holder)
    assert cursor_of(bank).error is None
    until_idle(bank, holder=holder)
    assert balance(bank, "bob") == 30


# Several workers


def test_a_process_is_with_one_worker_at_a_time(bank: Ledger) -> None:
    """The other finds nothing to do, until the lease is over."""
    run(bank, "account-ann", BOB)
    one, other = uuid4(), uuid4()
    step(bank.deps, bank.ledger_id, [TRANSFER], one)
    run(bank, "account-ann", BOB)
    now = bank.deps.clock()
    key = CursorKey("process", "transfer")
    assert bank.deps.derived.cursors.take_cursor(bank.ledger_id, key, one, now, now + LEASE) is not None
    assert until_idle(bank, holder=other) == 0
    later(bank, LEASE)
    until_idle(bank, holder=other)
    assert balance(bank, "bob") == 60


def test_a_worker_that_was_overtaken_does_no_harm(bank: Ledger) -> None:
    """It wakes up in the middle of an event that another has long dealt with, and finds it done."""
    run(bank, "account-ann", BOB)
    woken: list[int] = []

    def slow(state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        if not woken:
            woken.append(1)
            later(bank, LEASE + 1)
            until_idle(bank, holder=uuid4())
        return TRANSFER.react({"from": "somebody else", "amount": 7, **state}, event)

    assert step(bank.deps, bank.ledger_id, [with_react(slow)], uuid4())
    until_idle(bank)
    assert (balance(bank, "ann"), balance(bank, "bob")) == (70, 30)
    assert len(instance_events(bank)) == 1


def test_a_late_worker_does_not_answer_what_others_left_unanswered(bank: Ledger) -> None:
    """Nothing was to be done about the first event. On the state after the second there would be: it is too late."""
    for _ in range(2):
        run(bank, "account-ann", Deposit(1))
    woken: list[int] = []

    def quiet(state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        first = event.recorded.position == bank.query(types=("Deposited",))[1].recorded.position
        return [] if first and not state else [Note({"last": event.recorded.position})]

    plain = replace(IDLE, react=quiet, input_types=("Deposited",), begin_after=bank.size() - 3)

    class Late:
        """Falls asleep between taking the event and loading the state."""

        def __getattr__(self, name: str) -> Any:
            return getattr(bank.deps.vault, name)

        def find_streams(self, *arguments: Any) -> Any:
            if not woken:
                woken.append(1)
                later(bank, LEASE + 1)
                until_idle(bank, plain, holder=uuid4())
            return bank.deps.vault.find_streams(*arguments)

    late = bank.with_parts(vault=Late())
    step(late.deps, late.ledger_id, [plain], uuid4())
    assert len(bank.query(category="process.idle")) == 1


def test_withdrawals_that_cannot_be_are_not_begun(bank: Ledger) -> None:
    """The rules of the aggregate hold for whoever sends."""

    def rob(_state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        if refusal_of(event) is not None:
            return [CancelTimer("none"), Note({"failed": True})]
        return [Send("account", "account-bob", Withdraw(1), subject="person:bob")]

    run(bank, "account-ann", BOB)
    until_idle(bank, with_react(rob))
    assert balance(bank, "bob") == 0
    assert instance_events(bank)[-1].subject is not None
