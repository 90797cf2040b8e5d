"""The peer ``eventsourcing``, run by the Python of an environment of its own: it takes orders as lines of JSON.

``{"prepare": "batches"|"singles", …}`` builds what is to be stored and answers ``{}``; ``{"go": true}`` stores it and
answers ``{"count", "seconds", "cpu"}``. It stores by the event store of an application, with the AES cipher: that is
the library's own path of a save, without the cost of the aggregates above it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application  # type: ignore[import-not-found]  # in an environment of its own
from eventsourcing.domain import DomainEvent  # type: ignore[import-not-found]  # in an environment of its own


class Visit(DomainEvent):  # type: ignore[misc]  # its base is of the other environment
    """One event with the same data as the ledger's."""

    data: dict[str, Any]


class Peer:
    """An application on the database that the environment names."""

    def __init__(self) -> None:
        # Kept: it closes its connections when it is gone.
        self._application = Application()
        self._store = self._application.events
        self._streams: list[UUID] = []
        self._versions: Counter[UUID] = Counter()

    def prepare(self, order: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """What a ``go`` is to do."""
        self._streams += [uuid4() for _ in range(order["streams"] - len(self._streams))]
        if order["prepare"] == "batches":
            return lambda: self._store_batches(order["data"], order["events"], order["batch"])
        return lambda: self._store_singles(order["data"], order["threads"], order["seconds"])

    def _store_batches(self, data: dict[str, Any], count: int, batch: int) -> dict[str, Any]:
        cpu, began = time.process_time(), time.perf_counter()
        for start in range(0, count, batch):
            numbers = range(start, min(start + batch, count))
            self._store.put([self._event(self._streams[number % len(self._streams)], data) for number in numbers])
        return {"count": count, "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    def _store_singles(self, data: dict[str, Any], threads: int, seconds: float) -> dict[str, Any]:
        counts = [0] * threads
        end = time.perf_counter() + seconds

        def store(thread: int) -> None:
            # Streams of its own: two threads never want the same version.
            own = self._streams[thread::threads]
            while time.perf_counter() < end:
                self._store.put([self._event(own[counts[thread] % len(own)], data)])
                counts[thread] += 1

        workers = [threading.Thread(target=store, args=(thread,)) for thread in range(threads)]
        cpu, began = time.process_time(), time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"count": sum(counts), "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    def _event(self, stream: UUID, data: dict[str, Any]) -> Visit:
        self._versions[stream] += 1
        return Visit(
            originator_id=stream,
            originator_version=self._versions[stream],
            timestamp=DomainEvent.create_timestamp(),
            data=data,
        )


def orders() -> Iterator[dict[str, Any]]:
    """One a line."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(value: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Until the input ends."""
    peer = Peer()
    work: Callable[[], dict[str, Any]] = dict
    answer({})
    for order in orders():
        if "prepare" in order:
            work = peer.prepare(order)
            answer({})
        else:
            answer(work())


if __name__ == "__main__":
    main()
