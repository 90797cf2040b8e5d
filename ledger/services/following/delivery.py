"""Deliver the events of durable subscriptions: lease a partition, get its next events, say what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from ledger.domain.events import OpenedEvent, RecordedEvent
from ledger.domain.query import EventFilter
from ledger.domain.subscription import partition_of, retry_delay, share_of
from ledger.errors import Fault, IntegrityError, InvalidError, LeaseLostError
from ledger.ports import Cursor, CursorKey, ParkedEvent, Subscription
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.following.follow import never
from ledger.services.following.scanning import WINDOW, Step, scan
from ledger.services.following.subscriptions import KIND, find_subscription, unknown_subscription

DEFAULT_LEASE: Final = 30.0
"""Seconds. Longer than the handling of any single event should take."""

DEFAULT_BATCH: Final = 100
REPLAY_BATCH: Final = 20
"""Parked messages that are delivered at once, at most."""

_SECOND: Final = 1_000_000
_LONGEST_LOOK: Final = 10.0
"""Seconds after which whoever does not wait is told that there is nothing, though there is more to look through."""

_LOOK_SECONDS: Final = 1.0
"""How often whoever waits looks for retries that are due and leases that are over."""

_CHANCES: Final = 255
_ALL: Final = (0, 255)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that a consumer has leased with their partition, oldest first.

    ``after``: where the cursor stands. ``position``: what to acknowledge when all of them are handled. ``until``: when
    the lease is over, in microseconds. ``replay``: they were parked, and all are of one stream.
    """

    partition: int
    after: int
    position: int
    until: int
    replay: bool
    events: Sequence[OpenedEvent]


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of an event that failed. ``retry_at``: in microseconds; None unless it is tried again by itself."""

    outcome: Literal["retry", "parked", "stopped"]
    tries: int
    retry_at: int | None


def fetch(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    consumer: UUID,
    *,
    limit: int = DEFAULT_BATCH,
    lease: float = DEFAULT_LEASE,
    wait: float = 0,
    stop: Callable[[], bool] = never,
) -> Batch | None:
    """Lease the free partition that is furthest behind, with the next events of it; replays go first.

    ``wait``: seconds to wait for events when there are none. None: there are still none, others have leased them, or
    none has been found in all that could be looked through in this time; then the next call goes on from there.
    Raises ``NotFoundError``.
    """
    deadline = time.monotonic() + wait
    latest = time.monotonic() + max(wait, _LONGEST_LOOK)
    while True:
        subscription = find_subscription(deps, ledger_id, name)
        size = deps.store.head(ledger_id).size
        turn = _Turn(deps, ledger_id, subscription, consumer, size, limit, int(lease * _SECOND))
        batch = turn.take()
        left = deadline - time.monotonic()
        if batch is not None or stop():
            return batch
        if turn.moved and time.monotonic() < latest:
            # There is more to look through: an answer without events shall mean that there are none.
            continue
        if left <= 0:
            return None
        deps.store.wait_for_growth(ledger_id, size, min(left, _LOOK_SECONDS))


def acknowledge(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    consumer: UUID,
    partition: int,
    position: int,
    *,
    replay: bool = False,
    lease: float = 0,
) -> None:
    """Everything of a batch up to a position was handled. The lease ends, or goes on for ``lease`` seconds.

    Counts even when the lease has run out, as long as nobody else has leased the partition. Raises ``LeaseLostError``
    (nothing was changed; the events are delivered again), ``InvalidError``, ``NotFoundError``.
    """
    cursor = _held(deps, ledger_id, name, consumer, partition)
    now = deps.clock()
    until = now + int(lease * _SECOND)
    if replay:
        subscription = find_subscription(deps, ledger_id, name)
        if position <= cursor.replay_to and not _parked_at(deps, ledger_id, name, position):
            # The same was said before.
            return
        message = _replayed(deps, ledger_id, subscription, cursor, position)
        deps.derived.subscriptions.unpark(
            ledger_id, cursor.key, consumer, cursor.position, (message.stream_ref, position), now, until
        )
        return
    if position < cursor.position:
        # The same was said before, and later more.
        return
    if position > max(cursor.position, cursor.leased_to):
        raise InvalidError("no such event was delivered", [Fault("/position", "must be one of the lease")])
    deps.derived.cursors.move_cursor(ledger_id, cursor.key, consumer, cursor.position, position, now, until)


def fail(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    consumer: UUID,
    partition: int,
    position: int,
    error: str,
    *,
    replay: bool = False,
) -> Failure:
    """The event at a position could not be handled; those of the batch before it were. The lease ends.

    ``error``: the class of what went wrong, a word: a message could hold somebody's data (I5). Raises as
    ``acknowledge`` does.
    """
    subscription = find_subscription(deps, ledger_id, name)
    cursor = _held(deps, ledger_id, name, consumer, partition)
    now = deps.clock()
    if replay:
        message = _replayed(deps, ledger_id, subscription, cursor, position)
        tries = deps.derived.subscriptions.repark(
            ledger_id, cursor.key, consumer, cursor.position, (message.stream_ref, position), error, now
        )
        return Failure("parked", tries, None)
    event = _delivered(deps, ledger_id, subscription, cursor, position)
    if position - 1 > cursor.position:
        # Those before it are done. Nothing that has failed before is among them, so the count begins anew.
        deps.derived.cursors.move_cursor(
            ledger_id, cursor.key, consumer, cursor.position, position - 1, now, cursor.lease_until
        )
        tries = 1
    else:
        tries = cursor.tries + 1
    if tries >= subscription.max_tries and subscription.on_failure == "park":
        parked = ParkedEvent(position, event.envelope.stream_ref, tries, error, now, replay=False)
        deps.derived.subscriptions.park(
            ledger_id, cursor.key, consumer, position - 1, [parked], position, now, lease_until=now
        )
        return Failure("parked", tries, None)
    stop = tries >= subscription.max_tries
    chance = deps.entropy(1)[0] / _CHANCES
    retry_at = now if stop else now + retry_delay(tries, chance)
    noted = deps.derived.cursors.note_failure(
        ledger_id, cursor.key, consumer, position - 1, error, retry_at=retry_at, stop=stop
    )
    return Failure("stopped" if stop else "retry", noted.tries, None if stop else retry_at)


def release(deps: Dependencies, ledger_id: UUID, name: str, consumer: UUID, partition: int) -> None:
    """Give a partition back without having handled anything more of it, if it is still leased to this consumer."""
    deps.derived.cursors.release_cursor(ledger_id, CursorKey(KIND, name, partition), consumer)


class _Turn:
    """One look of a consumer at all partitions."""

    def __init__(
        self,
        deps: Dependencies,
        ledger_id: UUID,
        subscription: Subscription,
        consumer: UUID,
        size: int,
        limit: int,
        lease: int,
    ) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._subscription = subscription
        self._consumer = consumer
        self._size = size
        self._limit = limit
        self._lease = lease
        self.moved = False
        """Whether the subscription has come further without a batch, so that there may be one now."""

    def take(self) -> Batch | None:
        """The next batch, if there is one."""
        subscription = self._subscription
        now = self._deps.clock()
        bytes_to_replay = self._deps.derived.subscriptions.replaying(self._ledger_id, subscription.name)
        to_replay = {partition_of(bytes([byte]), subscription.partitions) for byte in bytes_to_replay}
        cursors = self._deps.derived.cursors.cursors(self._ledger_id, KIND, subscription.name)
        free = [cursor for cursor in cursors if _is_free(cursor, self._consumer, now)]
        passed: list[tuple[int, int, int]] = []
        batch = None
        for cursor in sorted(free, key=lambda cursor: (cursor.key.number not in to_replay, cursor.position)):
            messages = self._next_replay(cursor) if cursor.key.number in to_replay else ()
            if messages:
                batch = self._replay(cursor, messages)
            elif cursor.position < self._size - 1:
                step = self._scan(cursor)
                if not step.rows:
                    # Nothing of it is for this partition: no lease is needed to say so.
                    passed.append((cursor.key.number, cursor.position, step.end))
                    continue
                batch = self._deliver(cursor, step)
            if batch is not None:
                break
        if passed:
            moved = self._deps.derived.subscriptions.pass_over(
                self._ledger_id, subscription, self._consumer, passed, now
            )
            self.moved = self.moved or (moved > 0 and any(end < self._size - 1 for _, _, end in passed))
        return batch

    def _scan(self, cursor: Cursor) -> Step:
        subscription = self._subscription
        which = EventFilter(
            cursor.position + 1,
            min(self._size - 1, cursor.position + WINDOW),
            category=subscription.category,
            types=subscription.types,
            share=_share(subscription, cursor.key.number),
        )
        return scan(self._deps, self._ledger_id, which, self._limit)

    def _deliver(self, cursor: Cursor, step: Step) -> Batch | None:
        """Lease a partition whose next events are known, and put those aside whose stream is parked."""
        taken = self._lease_of(cursor, leased_to=step.end)
        if taken is None:
            return None
        refs = {row.envelope.stream_ref for row in step.rows}
        parked = self._deps.derived.subscriptions.parked_streams(self._ledger_id, self._subscription.name, refs)
        ready = [row for row in step.rows if row.envelope.stream_ref not in parked]
        if len(ready) < len(step.rows):
            now = self._deps.clock()
            aside = [
                ParkedEvent(row.position, row.envelope.stream_ref, 0, "", now, replay=False)
                for row in step.rows
                if row.envelope.stream_ref in parked
            ]
            # Where others of the batch are yet to be handled, the cursor waits for them; what is put aside stays so.
            end = taken.position if ready else step.end
            until = taken.lease_until if ready else now
            self._deps.derived.subscriptions.park(
                self._ledger_id, taken.key, self._consumer, taken.position, aside, end, now, until
            )
            if not ready:
                self.moved = True
                return None
        return self._opened(taken, ready, step.end, replay=False)

    def _replay(self, cursor: Cursor, messages: Sequence[ParkedEvent]) -> Batch | None:
        """Lease a partition with parked messages of one stream that wait for replay."""
        taken = self._lease_of(cursor, replay_to=messages[-1].position)
        if taken is None:
            return None
        if self._next_replay(cursor) != messages:
            # Another consumer was faster.
            self._give_back(taken)
            self.moved = True
            return None
        positions = [message.position for message in messages]
        rows = sorted(self._deps.store.events_at(self._ledger_id, positions), key=lambda row: row.position)
        if len(rows) < len(positions):
            self._give_back(taken)
            raise IntegrityError("an event that is parked is missing; run `audit-ledger verify`")
        return self._opened(taken, rows, positions[-1], replay=True)

    def _next_replay(self, cursor: Cursor) -> Sequence[ParkedEvent]:
        share = _share(self._subscription, cursor.key.number) or _ALL
        limit = min(self._limit, REPLAY_BATCH)
        messages = self._deps.derived.subscriptions.next_replay(self._ledger_id, self._subscription.name, share, limit)
        # What was put aside behind the cursor would be delivered again when the cursor comes to it.
        return [message for message in messages if message.position <= cursor.position]

    def _lease_of(self, cursor: Cursor, **until: int) -> Cursor | None:
        """Lease a partition up to a position, if it stands where it stood, and still belongs to the same
        subscription."""
        now = self._deps.clock()
        cursors = self._deps.derived.cursors
        taken = cursors.take_cursor(self._ledger_id, cursor.key, self._consumer, now, now + self._lease, **until)
        if taken is None:
            return None
        found = self._deps.derived.subscriptions.subscription(self._ledger_id, self._subscription.name)
        if taken.position != cursor.position or found != self._subscription:
            self._give_back(taken)
            self.moved = found == self._subscription
            return None
        return taken

    def _opened(self, taken: Cursor, rows: Sequence[RecordedEvent], end: int, *, replay: bool) -> Batch:
        try:
            # I7: opened anew each time, so that what was erased while it was parked or waited stays hidden.
            events = open_current(self._deps, self._ledger_id, rows)
        except BaseException:
            self._give_back(taken)
            raise
        return Batch(taken.key.number, taken.position, end, taken.lease_until, replay, events)

    def _give_back(self, taken: Cursor) -> None:
        self._deps.derived.cursors.release_cursor(self._ledger_id, taken.key, self._consumer)


def _is_free(cursor: Cursor, consumer: UUID, now: int) -> bool:
    """Whether a consumer could lease it now; the database decides."""
    unheld = cursor.holder is None or cursor.holder == consumer or cursor.lease_until <= now
    return unheld and cursor.state == "running" and cursor.retry_at <= now


def _share(subscription: Subscription, partition: int) -> tuple[int, int] | None:
    """The streams of a partition; None: all, so that nothing has to be compared."""
    return share_of(partition, subscription.partitions) if subscription.partitions > 1 else None


def _held(deps: Dependencies, ledger_id: UUID, name: str, consumer: UUID, partition: int) -> Cursor:
    """The cursor of a partition that was leased to this consumer last."""
    cursors = {cursor.key.number: cursor for cursor in deps.derived.cursors.cursors(ledger_id, KIND, name)}
    if not cursors:
        # Every subscription has cursors.
        raise unknown_subscription()
    if partition not in cursors:
        fault = Fault("/partition", f"must be from 0 to {len(cursors) - 1}")
        raise InvalidError("the subscription has no such partition", [fault])
    if cursors[partition].holder != consumer:
        raise LeaseLostError("the partition is not leased to this consumer any more; nothing was changed")
    return cursors[partition]


def _delivered(
    deps: Dependencies, ledger_id: UUID, subscription: Subscription, cursor: Cursor, position: int
) -> RecordedEvent:
    """The event at a position, if it can have been delivered in a batch of this partition."""
    rows = deps.store.events_at(ledger_id, [position]) if cursor.position < position <= cursor.leased_to else ()
    for row in rows:
        envelope = row.envelope
        mine = partition_of(envelope.stream_ref, subscription.partitions) == cursor.key.number
        asked_for = subscription.category in (None, envelope.category) and (
            not subscription.types or envelope.event_type in subscription.types
        )
        if mine and asked_for:
            return row
    raise InvalidError("no such event was delivered", [Fault("/position", "must be of an event of the lease")])


def _replayed(
    deps: Dependencies, ledger_id: UUID, subscription: Subscription, cursor: Cursor, position: int
) -> ParkedEvent:
    """The parked message at a position, if it can have been delivered as a replay of this partition."""
    for message in _parked_at(deps, ledger_id, subscription.name, position) if position <= cursor.replay_to else ():
        mine = partition_of(message.stream_ref, subscription.partitions) == cursor.key.number
        if message.replay and mine:
            return message
    raise InvalidError("no such message is being replayed", [Fault("/position", "must be of an event of the lease")])


def _parked_at(deps: Dependencies, ledger_id: UUID, name: str, position: int) -> list[ParkedEvent]:
    found = deps.derived.subscriptions.parked(ledger_id, name, position - 1, 1)
    return [message for message in found if message.position == position]
