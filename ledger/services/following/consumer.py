"""A consumer of a durable subscription: fetch, handle, acknowledge, again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from ledger.domain.names import word_fault
from ledger.errors import LeaseLostError
from ledger.services.dependencies import Dependencies
from ledger.services.following.delivery import (
    DEFAULT_BATCH,
    DEFAULT_LEASE,
    Batch,
    acknowledge,
    fail,
    fetch,
    release,
)
from ledger.services.following.follow import QUIET_SECONDS, Handler, never

_RENEWALS: Final = 3
"""Into so many pieces a lease is cut: after each, what is done is acknowledged and the lease begins anew."""


def consume(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    handler: Handler,
    *,
    consumer: UUID,
    stop: Callable[[], bool] = never,
    limit: int = DEFAULT_BATCH,
    lease: float = DEFAULT_LEASE,
) -> None:
    """Hand the events of a subscription to a handler until ``stop`` says so, which is asked before each event.

    At least once: what was handled and not acknowledged when a process dies is handled again, by whoever takes over
    when the lease is over. In order within a stream. A handler that raises has failed, and its event is tried again,
    then parked, or its partition stops. ``lease``: seconds; longer than any single event takes. ``consumer``: an id of
    this consumer's own. Raises ``NotFoundError``, or what a dependency raises; then it can be called again.
    """
    while not stop():
        consume_batch(
            deps,
            ledger_id,
            name,
            handler,
            consumer=consumer,
            stop=stop,
            limit=limit,
            lease=lease,
            wait=QUIET_SECONDS,
        )


def consume_batch(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    handler: Handler,
    *,
    consumer: UUID,
    stop: Callable[[], bool] = never,
    limit: int = DEFAULT_BATCH,
    lease: float = DEFAULT_LEASE,
    wait: float = 0,
) -> bool:
    """The same for one batch, for which it waits so many seconds; False when there was none."""
    batch = fetch(deps, ledger_id, name, consumer, limit=limit, lease=lease, wait=wait, stop=stop)
    if batch is None:
        return False
    try:
        _Handling(deps, ledger_id, name, consumer, batch, lease).run(handler, stop)
    except LeaseLostError:
        # Somebody else has taken over, and handles what was not acknowledged.
        return True
    except BaseException:
        release(deps, ledger_id, name, consumer, batch.partition)
        raise
    return True


class _Handling:
    """One batch on its way through a handler."""

    def __init__(
        self, deps: Dependencies, ledger_id: UUID, name: str, consumer: UUID, batch: Batch, lease: float
    ) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._name = name
        self._consumer = consumer
        self._batch = batch
        self._lease = lease
        self._renew_at = self._next_renewal()

    def run(self, handler: Handler, stop: Callable[[], bool]) -> None:
        """Handle the events in order, until one fails or there is no time for more. Raises ``LeaseLostError``."""
        done: int | None = None
        for event in self._batch.events:
            if stop():
                self._leave(done)
                return
            position = event.recorded.position
            try:
                handler(event)
            except Exception as error:  # noqa: BLE001 - whatever it is, the event was not handled
                self._fail(position, error)
                return
            done = position
            if position < self._batch.position and self._deps.clock() >= self._renew_at:
                self._acknowledge(done, self._lease)
                self._renew_at = self._next_renewal()
        self._acknowledge(self._batch.position)

    def _leave(self, done: int | None) -> None:
        if done is None:
            release(self._deps, self._ledger_id, self._name, self._consumer, self._batch.partition)
        else:
            self._acknowledge(done)

    def _acknowledge(self, position: int, lease: float = 0) -> None:
        acknowledge(
            self._deps,
            self._ledger_id,
            self._name,
            self._consumer,
            self._batch.partition,
            position,
            replay=self._batch.replay,
            lease=lease,
        )

    def _fail(self, position: int, error: Exception) -> None:
        # I5: the class alone; and not even that where somebody has made one up from data.
        kind = type(error).__name__
        fail(
            self._deps,
            self._ledger_id,
            self._name,
            self._consumer,
            self._batch.partition,
            position,
            kind if word_fault(kind) is None else Exception.__name__,
            replay=self._batch.replay,
        )

    def _next_renewal(self) -> int:
        return self._deps.clock() + int(self._lease * 1_000_000 / _RENEWALS)
