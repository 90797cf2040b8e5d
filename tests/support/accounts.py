"""Bank accounts and transfers between them: an aggregate and a process manager to test with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from ledger.domain.aggregate import Aggregate, Decision
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import Fold
from ledger.domain.process import (
    CancelTimer,
    Note,
    ProcessManager,
    Reaction,
    Send,
    SetTimer,
    refusal_of,
    timer_of,
)
from ledger.errors import CommandRefusedError, Fault
from ledger.services.commanding.handling import Handled, handle
from ledger.services.commanding.processes import step
from tests.support.ledgers import WRITER, Ledger

HOUR = 3_600_000_000


@dataclass(frozen=True)
class Open:
    """Open an account for somebody."""

    holder: str


@dataclass(frozen=True)
class Deposit:
    """Pay in."""

    amount: int


@dataclass(frozen=True)
class Withdraw:
    """Pay out, if there is enough."""

    amount: int


@dataclass(frozen=True)
class Transfer:
    """Pay out, for somebody else's account."""

    amount: int
    to: str
    receiver: str


@dataclass(frozen=True)
class Close:
    """End it."""


def decide(state: JsonObject, command: Any) -> Sequence[Decision]:
    """The rules of an account."""
    if isinstance(command, Open):
        if state:
            raise CommandRefusedError("the account is open already")
        return [Decision("Opened", {"balance": 0}, subject=command.holder)]
    if not state:
        raise CommandRefusedError("there is no such account")
    match command:
        case Deposit(amount):
            return [Decision("Deposited", {"amount": amount})] if amount else []
        case Withdraw(amount) | Transfer(amount) if state["balance"] < amount:
            raise CommandRefusedError("there is not enough on the account")
        case Withdraw(amount):
            return [Decision("Withdrawn", {"amount": amount})]
        case Transfer(amount, to, receiver):
            return [
                Decision("Withdrawn", {"amount": amount}),
                Decision("TransferBegun", {"amount": amount, "to": to, "receiver": receiver}),
            ]
        case Close():
            return [Decision("Closed", nonpersonal={}, closes=True)]
    raise TypeError("not a command of accounts")


def evolve(state: JsonObject, event: OpenedEvent) -> JsonObject:
    """The balance."""
    data = (event.subject.data if event.subject else None) or {}
    match event.recorded.envelope.event_type:
        case "Opened":
            return {"balance": data["balance"]}
        case "Deposited":
            return {"balance": state["balance"] + data["amount"]}
        case "Withdrawn":
            return {"balance": state["balance"] - data["amount"]}
    return state


def validate(command: Any) -> Iterable[Fault]:
    """No negative amounts."""
    if getattr(command, "amount", 0) < 0:
        yield Fault("/amount", "must not be negative")


ACCOUNT = Aggregate(
    name="account",
    category="account",
    fold=Fold("account", 1, evolve),
    decide=decide,
    commands=(Open, Deposit, Withdraw, Transfer, Close),
    validate=validate,
)


def instance_of(event: OpenedEvent) -> str | None:
    """A transfer is an instance of its own."""
    return str(event.recorded.envelope.event_id)


def subject_of(event: OpenedEvent) -> str | None:
    """Whoever pays."""
    return event.subject.subject if event.subject else None


def react(state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
    """Pay in where it is to go; where that is refused, pay it back."""
    if timer_of(event) is not None:
        return [Note({"overdue": True})]
    if refusal_of(event) is not None:
        return [
            Note({"refunded": True}),
            CancelTimer("deadline"),
            Send("account", state["from"], Deposit(state["amount"])),
        ]
    data = (event.subject.data if event.subject else None) or {}
    return [
        Note({"from": event.stream, "amount": data["amount"]}),
        SetTimer("deadline", event.recorded.recorded_at + HOUR),
        Send("account", data["to"], Deposit(data["amount"]), subject=data["receiver"]),
    ]


TRANSFER = ProcessManager(
    name="transfer",
    input_category="account",
    input_types=("TransferBegun",),
    instance_of=instance_of,
    subject_of=subject_of,
    react=react,
    aggregates=(ACCOUNT,),
)


def reminding(state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
    """Every event of an account puts the timer off; when it fires, it is set once more."""
    at = event.recorded.recorded_at + HOUR
    if timer_of(event) is None:
        return [SetTimer("idle", at)]
    fired = state.get("fired", 0) + 1
    return [Note({"fired": fired}), *([SetTimer("idle", at)] if fired == 1 else [])]


IDLE = replace(
    TRANSFER,
    name="idle",
    input_types=(),
    instance_of=lambda event: str(event.stream),
    react=reminding,
)


def run(ledger: Ledger, stream: str, command: Any, command_id: UUID | None = None) -> Handled:
    """Have an account handle a command."""
    return handle(
        ledger.deps,
        ledger.ledger_id,
        ACCOUNT,
        stream,
        command,
        command_id=command_id or uuid4(),
        recorded_by=WRITER,
    )


def open_account(ledger: Ledger, name: str, balance: int = 0) -> None:
    """An account of ``person:<name>`` with something on it."""
    run(ledger, f"account-{name}", Open(f"person:{name}"))
    if balance:
        run(ledger, f"account-{name}", Deposit(balance))


def balance(ledger: Ledger, name: str) -> int:
    """What is on an account, by a plain fold of what can be queried."""
    state: JsonObject = {}
    for event in ledger.query():
        if event.stream == f"account-{name}":
            state = evolve(state, event)
    amount: int = state["balance"]
    return amount


def until_idle(ledger: Ledger, *managers: ProcessManager, holder: UUID | None = None) -> int:
    """Step until there is nothing to do; gives how many steps that took."""
    taken, worker = 0, holder or uuid4()
    while step(ledger.deps, ledger.ledger_id, managers or (TRANSFER,), worker):
        taken += 1
        assert taken < 1000, "the process never comes to rest"
    return taken


def types_of(ledger: Ledger) -> list[str]:
    """The types of all events, in order."""
    return [row.envelope.event_type for row in ledger.recorded()]


def with_react(react: Callable[[JsonObject, OpenedEvent], Sequence[Reaction]], **changes: Any) -> ProcessManager:
    """The transfer process with another reaction."""
    return replace(TRANSFER, react=react, **changes)
