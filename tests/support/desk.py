"""A desk that consumes a subscription, with short ways to do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from ledger.domain.events import OpenedEvent
from ledger.domain.subscription import LONGEST_RETRY
from ledger.services.following import delivery
from ledger.services.following.consumer import consume_batch
from ledger.services.following.delivery import Batch
from ledger.services.following.subscriptions import (
    SubscriptionStatus,
    create_subscription,
    describe_subscription,
    list_parked,
    replay_parked,
)
from tests.support.ledgers import WRITER, Ledger

NAME = "mailer"
A, B = uuid4(), uuid4()
SECOND = 1_000_000
MINUTE = 60.0


class OutOfPaperError(Exception):
    """What the handlers of these tests raise."""


@dataclass
class Desk:
    """One ledger with a subscription, and short ways to consume it."""

    ledger: Ledger
    name: str = NAME
    handled: list[int] = field(default_factory=list)

    def fetch(self, consumer: UUID = A, **options: Any) -> Batch | None:
        """The next batch."""
        return delivery.fetch(
            self.ledger.deps, self.ledger.ledger_id, self.name, consumer, **{"lease": MINUTE, **options}
        )

    def fetched(self, consumer: UUID = A, **options: Any) -> Batch:
        """The next batch, which must be there."""
        batch = self.fetch(consumer, **options)
        assert batch is not None
        return batch

    def acknowledge(self, batch: Batch, consumer: UUID = A, position: int | None = None, **options: Any) -> None:
        """A batch was handled, or some of it."""
        delivery.acknowledge(
            self.ledger.deps,
            self.ledger.ledger_id,
            self.name,
            consumer,
            batch.partition,
            batch.position if position is None else position,
            replay=batch.replay,
            **options,
        )

    def fail(self, batch: Batch, position: int, consumer: UUID = A) -> delivery.Failure:
        """An event of a batch could not be handled."""
        return delivery.fail(
            self.ledger.deps,
            self.ledger.ledger_id,
            self.name,
            consumer,
            batch.partition,
            position,
            "OutOfPaperError",
            replay=batch.replay,
        )

    def consume(self, handler: Callable[[OpenedEvent], None] | None = None, consumer: UUID = A) -> None:
        """Handle what there is now, until nothing is left."""
        while consume_batch(
            self.ledger.deps, self.ledger.ledger_id, self.name, handler or self.note, consumer=consumer
        ):
            pass

    def note(self, event: OpenedEvent) -> None:
        """A handler that cannot fail."""
        self.handled.append(event.recorded.position)

    def failing_at(self, *positions: int) -> Callable[[OpenedEvent], None]:
        """A handler that fails at these."""

        def handle(event: OpenedEvent) -> None:
            if event.recorded.position in positions:
                raise OutOfPaperError("patient:A has no address")
            self.note(event)

        return handle

    def status(self) -> SubscriptionStatus:
        """How far it has come."""
        return describe_subscription(self.ledger.deps, self.ledger.ledger_id, self.name)

    def parked(self) -> list[tuple[int, int, str, bool]]:
        """What is parked: position, tries, error, whether it waits for replay."""
        found = list_parked(self.ledger.deps, self.ledger.ledger_id, self.name).messages
        return [(message.position, message.tries, message.error, message.replay) for message in found]

    def replay(self, *positions: int) -> int:
        """Replay some, or all."""
        return replay_parked(self.ledger.deps, self.ledger.ledger_id, self.name, positions or None)

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.ledger.backend.clock.now += int(seconds * SECOND)

    def fail_for_good(self, position: int) -> None:
        """Have an event fail as often as it is tried."""
        while position not in [parked for parked, _, _, _ in self.parked()]:
            self.consume(self.failing_at(position))
            self.later(LONGEST_RETRY / SECOND)


def subscribe_to(ledger: Ledger, name: str = NAME, **options: Any) -> Desk:
    """Make a subscription."""
    create_subscription(ledger.deps, ledger.ledger_id, name, created_by=WRITER, **options)
    return Desk(ledger, name)


def positions(batch: Batch | None) -> list[int]:
    """Of the events of a batch."""
    return [event.recorded.position for event in batch.events] if batch is not None else []
