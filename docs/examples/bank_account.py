"""A bank in about a hundred lines: accounts with rules, balances, and transfers that nothing can lose halfway.

The tests run it (tests/e2e/test_how_to_pages.py); docs/how-to/aggregates.md and process-managers.md explain the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledger.domain.aggregate import Aggregate, Decision
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import Fold
from ledger.domain.partition import BY_STREAM
from ledger.domain.process import Note, ProcessManager, Reaction, Send, refusal_of
from ledger.domain.projection import Projection
from ledger.errors import CommandRefusedError
from ledger.open_ledger import OpenLedger


@dataclass(frozen=True)
class Open:
    holder: str


@dataclass(frozen=True)
class Deposit:
    amount: int


@dataclass(frozen=True)
class Withdraw:
    amount: int


@dataclass(frozen=True)
class Transfer:
    amount: int
    account: str
    holder: str


def decide(account: JsonObject, command: Any) -> Sequence[Decision]:
    """The rules: what a command leads to, or that it cannot be."""
    match command:
        case Open(holder) if not account:
            return [Decision("AccountOpened", {"holder": holder, "currency": "EUR"}, subject=holder, schema_version=2)]
        case Deposit(amount) if account:
            return [Decision("Deposited", {"amount": amount})]
        case Withdraw(amount) | Transfer(amount) if account and account["balance"] < amount:
            raise CommandRefusedError("insufficient funds")
        case Withdraw(amount) if account:
            return [Decision("Withdrawn", {"amount": amount})]
        case Transfer(amount, to, holder) if account:
            order = {"amount": amount, "to": to, "holder": holder}
            return [Decision("Withdrawn", {"amount": amount}), Decision("TransferOrdered", order)]
    raise CommandRefusedError("there is no such account, or it is open already")


def evolve(account: JsonObject, event: OpenedEvent) -> JsonObject:
    """What an event makes of an account; one that was erased says nothing, and one of another type changes nothing."""
    data = (event.subject.data if event.subject else None) or {}
    match event.recorded.envelope.event_type, data:
        case "AccountOpened", {"currency": currency}:
            return {"balance": 0, "currency": currency}
        case "Deposited", {"amount": amount}:
            return {**account, "balance": account["balance"] + amount}
        case "Withdrawn", {"amount": amount}:
            return {**account, "balance": account["balance"] - amount}
    return account


def react(transfer: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
    """A transfer: pay in at the other account; if that is refused, pay back."""
    if refusal_of(event):
        return [Send("account", transfer["from"], Deposit(transfer["amount"])), Note({"refunded": True})]
    order = (event.subject.data if event.subject else None) or {}
    pay_in = Send("account", order["to"], Deposit(order["amount"]), subject=order["holder"])
    return [Note({"from": event.stream, "amount": order["amount"]}), pay_in]


ACCOUNT = Aggregate(
    name="account",
    category="account",
    fold=Fold("account", 1, evolve),
    decide=decide,
    commands=(Open, Deposit, Withdraw, Transfer),
)
BALANCES = Projection("balances", 1, BY_STREAM, evolve, category="account")
TRANSFERS = ProcessManager(
    name="transfers",
    input_types=("TransferOrdered",),
    instance_of=lambda event: str(event.recorded.envelope.event_id),
    subject_of=lambda event: event.subject.subject if event.subject else None,
    react=react,
    aggregates=(ACCOUNT,),
)


def main(ledger: OpenLedger) -> None:
    """Show it all on an empty ledger."""

    def balance(account: str) -> int:
        ledger.project(BALANCES)
        (document,) = ledger.read_model_of_stream(BALANCES, account).documents
        amount: int = document.document["balance"]
        return amount

    # An account of the time when "AccountOpened" had other fields, and the way from there to version 2.
    old = {"stream": "account-bob", "type": "AccountOpened", "subject": "person:bob", "data": {"name": "person:bob"}}
    ledger.append(old)
    ledger.register_type("AccountOpened")
    to_version_2 = [{"rename": {"from": "/name", "to": "/holder"}}, {"default": {"path": "/currency", "value": "EUR"}}]
    ledger.register_type("AccountOpened", 2, upcast=to_version_2)
    assert ledger.state("account-bob").state.state == {"holder": "person:bob", "currency": "EUR"}

    # Open, deposit, withdraw; more than there is, is refused.
    ledger.handle(ACCOUNT, "account-ann", Open("person:ann"))
    ledger.handle(ACCOUNT, "account-ann", Deposit(100))
    ledger.handle(ACCOUNT, "account-ann", Withdraw(30))
    try:
        ledger.handle(ACCOUNT, "account-ann", Withdraw(71))
    except CommandRefusedError as refused:
        assert refused.detail == "insufficient funds"
    assert (balance("account-ann"), balance("account-bob")) == (70, 0)

    # A transfer arrives, or comes back; in between the money is nowhere, and never lost.
    ledger.handle(ACCOUNT, "account-ann", Transfer(20, "account-bob", "person:bob"))
    ledger.handle(ACCOUNT, "account-ann", Transfer(20, "account-nobody", "person:nobody"))
    assert balance("account-ann") == 30
    ledger.run_processes(TRANSFERS)
    assert (balance("account-ann"), balance("account-bob")) == (50, 20)

    # A hundred events later, an account is loaded from a snapshot and the events behind it.
    for _ in range(100):
        ledger.handle(ACCOUNT, "account-bob", Deposit(1))
    bob = ledger.state("account-bob", fold=ACCOUNT.fold)
    taken = ledger.deps.derived.snapshots.snapshots_of(
        ledger.ledger_id, ACCOUNT.fold.label, bob.stream_ref, bob.as_of.position
    )
    assert (bob.state.state["balance"], [snapshot.stream_version for snapshot in taken]) == (120, [100])

    # Ann is forgotten: her account with her name, the transfers that were hers, and what every read model said of her.
    ledger.erase("person:ann")
    (document,) = ledger.read_model_of_stream(BALANCES, ledger.query().events[1].recorded.envelope.stream_ref).documents
    assert (document.document, document.complete) == ({}, False)
    assert balance("account-bob") == 120
