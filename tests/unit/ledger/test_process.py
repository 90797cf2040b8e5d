"""Process managers, pure: what is recorded of reactions is what comes back of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from ledger.domain.aggregate import Aggregate, Decision
from ledger.domain.events import Envelope, JsonObject, OpenedEvent, OpenedPart, RecordedEvent
from ledger.domain.fold import MERGE_PATCH
from ledger.domain.names import PROCESS_REACTED, TIMER_FIRED
from ledger.domain.process import (
    CancelTimer,
    End,
    Instance,
    Note,
    PlannedSend,
    PlannedTimer,
    ProcessManager,
    Reaction,
    Send,
    SetTimer,
    instance_fold,
    own_event,
    planned,
    record_reactions,
    refusal_of,
    timer_of,
)

LEDGER = UUID("0193a5e0-7c00-7000-8000-0000000000dd")


@dataclass(frozen=True)
class Pay:
    """The one command."""

    amount: int


def nothing(_state: JsonObject, _of: Any) -> list[Any]:
    """Decides and reacts to nothing."""
    return []


TILL = Aggregate(name="till", category="till", fold=MERGE_PATCH, decide=nothing, commands=(Pay,))
SHOP = ProcessManager(name="shop", instance_of=lambda _: "1", react=nothing, aggregates=(TILL,))


def opened(decision: Decision, number: int = 1) -> OpenedEvent:
    """The event of a decision, as it is read again."""
    envelope = Envelope(LEDGER, UUID(int=number), b"s" * 16, "shop", decision.event_type, 1, None, None, None)
    subject = OpenedPart(decision.subject, None, "", decision.data, True) if decision.data is not None else None
    return OpenedEvent(
        RecordedEvent(envelope, (), LEDGER, number, number, number, b""),
        "process.shop-1",
        subject,
        None,
        tuple(OpenedPart(part.subject, None, "", part.data, True) for part in decision.further),
        decision.nonpersonal,
        (),
    )


def recorded(*reactions: Reaction, number: int = 1, owned: bool = True, position: int = 7) -> OpenedEvent:
    """Reactions, recorded."""
    subject = "person:a" if owned else None
    return opened(record_reactions(SHOP, reactions, subject, owned=owned, position=position), number)


@pytest.mark.parametrize("owned", [True, False])
def test_what_was_recorded_is_what_is_carried_out(*, owned: bool) -> None:
    """Commands and timers in their order, with their numbers; a command of somebody else's stands apart."""
    event = recorded(
        Note({"a": 1}),
        Send("till", "till-1", Pay(5)),
        SetTimer("soon", 9),
        Send("till", "till-2", Pay(6), subject="person:b"),
        CancelTimer("soon"),
        owned=owned,
    )
    assert planned(event) == [
        PlannedSend(1, "till", "Pay", "till-1", {"amount": 5}),
        PlannedTimer(2, "soon", 9),
        PlannedSend(3, "till", "Pay", "till-2", {"amount": 6}),
    ]
    assert "till-2" not in repr((event.nonpersonal, event.subject))
    assert planned(replace(event, further=()))[-1] == PlannedSend(3, "till", "Pay", None, None)


def test_what_was_erased_is_carried_out_no_more() -> None:
    """An event of a process that says nothing any more leads to nothing."""
    event = recorded(Send("till", "till-1", Pay(5)))
    hidden = replace(event, subject=OpenedPart(None, None, "", None, False))
    assert planned(hidden) == []
    assert instance_fold(SHOP).apply({"x": 1}, hidden) == {"x": 1}


def test_the_state_of_an_instance_follows_from_its_events() -> None:
    """Notes are merged, the last timer of a name counts, and the last input is known."""
    apply = instance_fold(SHOP).apply
    folded: JsonObject = {}
    assert Instance.of(folded) == Instance({}, {}, -1)
    folded = apply(folded, recorded(Note({"a": 1, "b": 1}), SetTimer("x", 5), SetTimer("y", 5)))
    folded = apply(folded, recorded(Note({"b": None}), SetTimer("x", 6), CancelTimer("y"), number=2, position=9))
    assert Instance.of(folded) == Instance({"a": 1}, {"x": (UUID(int=2), 1)}, 9)

    def fired(set_by: int) -> OpenedEvent:
        content = {"timer": "x", "set_by": str(UUID(int=set_by)), "number": 1}
        return opened(own_event(TIMER_FIRED, content, "person:a", owned=True), 3)

    assert Instance.of(apply(folded, fired(1))).timers == {"x": (UUID(int=2), 1)}
    assert Instance.of(apply(folded, fired(2))).timers == {}
    assert timer_of(fired(2)) == "x"
    stranger = opened(Decision("Else", nonpersonal={}), 4)
    assert apply(folded, stranger) == folded
    assert (timer_of(stranger), refusal_of(stranger)) == (None, None)


def test_an_end_closes_the_stream() -> None:
    """So that nothing can be recorded behind it."""
    assert record_reactions(SHOP, [End()], None, owned=False, position=1) == Decision(
        PROCESS_REACTED, nonpersonal={"process": "shop", "input": 1, "reactions": [{"end": True}]}, closes=True
    )


@pytest.mark.parametrize("changes", [{"name": ""}, {"name": "x" * 121}, {"name": "a b"}, {"aggregates": (TILL, TILL)}])
def test_a_manager_that_is_put_together_wrong_says_so_at_once(changes: dict[str, Any]) -> None:
    """Misuse is an error at the door."""
    with pytest.raises(ValueError, match="name"):
        replace(SHOP, **changes)
