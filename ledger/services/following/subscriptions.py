"""Durable subscriptions: consumers that share the events of a ledger, each at least once, every stream in order.

A subscription has partitions, and every stream belongs to one of them. A consumer leases a partition, gets the events
behind its cursor, and acknowledges them, which moves the cursor. So no two consumers handle one stream at a time, and
what a dead consumer has not acknowledged is delivered again when its lease is over (``delivery``, ``consumer``).

An event that fails is tried again, later and later; then it is parked, and with it all that comes after it in its
stream, until somebody has it replayed. Or its partition stops. Nothing is ever skipped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from ledger.domain.cursors import other_question
from ledger.domain.names import word_fault
from ledger.domain.pages import ParkedPlace, decode_page, encode_page
from ledger.domain.subscription import (
    DEFAULT_PARTITIONS,
    DEFAULT_TRIES,
    MOST_TRIES,
    PARTITIONS,
    subscription_name_fault,
)
from ledger.errors import Fault, InvalidError, NotFoundError
from ledger.ports import Cursor, CursorKind, ParkedEvent, Subscription
from ledger.services.dependencies import Dependencies

KIND: Final[CursorKind] = "subscription"
PARKED_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """``behind``: how many events the ledger has behind the cursor, whoever they are for. ``age``: for how long the
    first of them has been recorded, in microseconds."""

    cursor: Cursor
    behind: int
    age: int


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """A subscription and how far it has come. ``parked``: how many messages."""

    subscription: Subscription
    partitions: Sequence[PartitionStatus]
    parked: int


@dataclass(frozen=True, slots=True)
class ParkedPage:
    """One page of parked messages. ``next`` is the cursor of the next one; None at the end."""

    messages: Sequence[ParkedEvent]
    next: str | None


def create_subscription(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    *,
    created_by: UUID,
    category: str | None = None,
    types: Collection[str] = (),
    after: int | Literal["end"] = -1,
    partitions: int = DEFAULT_PARTITIONS,
    max_tries: int = DEFAULT_TRIES,
    on_failure: Literal["park", "stop"] = "park",
) -> Subscription:
    """Begin a subscription behind a position (-1: with the first event), or at the end of what is recorded.

    The name is stored and shown in clear, so it must be nobody's. Raises ``InvalidError`` and ``AlreadyExistsError``.
    """
    faults = list(_faults(name, category, types, after, partitions, max_tries))
    if faults:
        raise InvalidError("the subscription is not valid", faults)
    size = deps.store.head(ledger_id).size
    position = size - 1 if after == "end" else after
    if position >= size:
        fault = Fault("/after", f"must be below the size of the ledger, {size}")
        raise InvalidError("a subscription cannot begin in the future", [fault])
    subscription = Subscription(
        name=name,
        category=category,
        types=tuple(dict.fromkeys(types)),
        partitions=partitions,
        max_tries=max_tries,
        on_failure=on_failure,
        after=position,
        created_at=deps.clock(),
        created_by=created_by,
    )
    deps.derived.subscriptions.add_subscription(ledger_id, subscription)
    return subscription


def remove_subscription(deps: Dependencies, ledger_id: UUID, name: str) -> None:
    """Remove a subscription with all that it knows. Raises ``NotFoundError``."""
    if not deps.derived.subscriptions.remove_subscription(ledger_id, name):
        raise unknown_subscription()


def list_subscriptions(deps: Dependencies, ledger_id: UUID) -> Sequence[SubscriptionStatus]:
    """All subscriptions of a ledger, and how far each has come."""
    counts = deps.derived.subscriptions.parked_counts(ledger_id)
    return [
        _status(deps, ledger_id, subscription, counts.get(subscription.name, 0))
        for subscription in deps.derived.subscriptions.subscriptions(ledger_id)
    ]


def describe_subscription(deps: Dependencies, ledger_id: UUID, name: str) -> SubscriptionStatus:
    """One subscription, and how far it has come. Raises ``NotFoundError``."""
    subscription = find_subscription(deps, ledger_id, name)
    return _status(
        deps, ledger_id, subscription, deps.derived.subscriptions.parked_counts(ledger_id).get(subscription.name, 0)
    )


def list_parked(
    deps: Dependencies, ledger_id: UUID, name: str, *, cursor: str | None = None, limit: int = PARKED_PAGE
) -> ParkedPage:
    """What is parked, in order of positions: references only, the events are to be asked for. Raises
    ``NotFoundError``, and ``InvalidError`` for a cursor of another list."""
    find_subscription(deps, ledger_id, name)
    after = -1
    if cursor is not None:
        place = decode_page(ledger_id, ParkedPlace, cursor)
        if place.subscription != name:
            raise other_question()
        after = place.after
    # The one too many is how we know that there are more.
    found = deps.derived.subscriptions.parked(ledger_id, name, after, limit + 1)
    messages = found[:limit]
    if len(found) <= limit:
        return ParkedPage(messages, None)
    last = ParkedPlace(subscription=name, after=messages[-1].position)
    return ParkedPage(messages, encode_page(ledger_id, last))


def replay_parked(deps: Dependencies, ledger_id: UUID, name: str, positions: Collection[int] | None = None) -> int:
    """Have parked messages (None: all) delivered again, and with them everything that is parked of their streams.

    Gives how many messages that are. One that fails again stays parked, with the rest of its stream. Raises
    ``NotFoundError``.
    """
    find_subscription(deps, ledger_id, name)
    return deps.derived.subscriptions.replay(ledger_id, name, positions)


def restart_subscription(deps: Dependencies, ledger_id: UUID, name: str) -> int:
    """Let the partitions that have stopped go on with the event that stopped them. Gives how many. Raises
    ``NotFoundError``."""
    find_subscription(deps, ledger_id, name)
    cursors = deps.derived.cursors.cursors(ledger_id, KIND, name)
    return sum(deps.derived.cursors.restart_cursor(ledger_id, cursor.key) for cursor in cursors)


def find_subscription(deps: Dependencies, ledger_id: UUID, name: str) -> Subscription:
    """The subscription of a name. Raises ``NotFoundError``."""
    subscription = deps.derived.subscriptions.subscription(ledger_id, name)
    if subscription is None:
        raise unknown_subscription()
    return subscription


def unknown_subscription() -> NotFoundError:
    """There is no subscription of a name."""
    return NotFoundError("there is no such subscription in this ledger")


def _status(deps: Dependencies, ledger_id: UUID, subscription: Subscription, parked: int) -> SubscriptionStatus:
    size = deps.store.head(ledger_id).size
    cursors = deps.derived.cursors.cursors(ledger_id, KIND, subscription.name)
    waiting = {cursor.position + 1 for cursor in cursors if cursor.position + 1 < size}
    recorded = {position: deps.store.recorded_at(ledger_id, position) for position in waiting}
    now = deps.clock()
    partitions = [
        PartitionStatus(
            cursor,
            max(0, size - 1 - cursor.position),
            max(0, now - recorded.get(cursor.position + 1, now)),
        )
        for cursor in cursors
    ]
    return SubscriptionStatus(subscription, partitions, parked)


def _faults(
    name: str, category: str | None, types: Collection[str], after: int | str, partitions: int, max_tries: int
) -> Iterator[Fault]:
    """What is wrong with a definition, from wherever it comes."""
    checked = [("/name", subscription_name_fault(name))]
    checked += [("/category", word_fault(category))] if category is not None else []
    checked += [("/type", word_fault(event_type)) for event_type in types]
    yield from (Fault(pointer, message) for pointer, message in checked if message is not None)
    for pointer, value, largest in (("/partitions", partitions, PARTITIONS), ("/max_tries", max_tries, MOST_TRIES)):
        if not 1 <= value <= largest:
            yield Fault(pointer, f"must be an integer from 1 to {largest}")
    if after != "end" and (not isinstance(after, int) or after < -1):
        yield Fault("/after", "must be a position, -1 for the beginning, or 'end'")
