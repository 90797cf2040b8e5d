"""Writers append while consumers share a subscription and die: every event is handled, in order within its stream.

In full, with 100,000 events: ``scripts/torture``.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import UUID, uuid4

from ledger.domain.events import OPERATOR, OpenedEvent
from ledger.services.appending.append import append_events
from ledger.services.following.consumer import consume
from ledger.services.following.subscriptions import create_subscription, describe_subscription
from tests.support.processes import processes
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up, verified

WRITERS = 4
CONSUMERS = 3
KILLED = 2
STREAMS = 40
"""Of each writer; some are shared with the next."""

BATCH = 100
APPENDS = int(os.environ.get("AUDIT_LEDGER_TEST_APPENDS", "10")) * 200
"""Of all writers together."""

NAME = "everything"
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 60 + APPENDS / 100


@dataclass(frozen=True, slots=True)
class Handled:
    """One event in the hands of one consumer."""

    consumer: str
    position: int
    stream_ref: str
    stream_version: int


def test_every_event_is_handled_at_least_once_and_in_order_within_its_stream(place: Place, tmp_path: Path) -> None:
    """4 writers, 3 consumers, of which two are killed while they handle, one after the other."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    create_subscription(service.deps, ledger_id, NAME, created_by=OPERATOR)
    log = tmp_path / "handled"
    log.touch()
    done = processes.Event()
    consumers = {
        str(name): processes.Process(target=handle, args=(place, ledger_id, name, done, log), daemon=True)
        for name in (uuid4() for _ in range(CONSUMERS))
    }
    writers = [
        processes.Process(target=write, args=(place, ledger_id, number), daemon=True) for number in range(WRITERS)
    ]
    for process in (*consumers.values(), *writers):
        process.start()
    living = dict(consumers)
    for number in range(KILLED):
        # In the middle of the work: it has something in its hands, or has just acknowledged it.
        half_way = APPENDS * (number + 1) // (KILLED + 1)
        wait_until(partial(has_lines, log, half_way), living.values())
        # One that has had a share in it, the largest of all.
        shares = Counter(entry.consumer for entry in read_log(log) if entry.consumer in living)
        kill(living.pop(shares.most_common(1)[0][0]))
    for process in writers:
        process.join(PATIENCE_SECONDS)
    wait_until(lambda: has_lines(log, APPENDS) and is_at_head(service, ledger_id), living.values())
    done.set()
    (last,) = living.values()
    last.join(60)

    assert [process.exitcode for process in writers] == [0] * WRITERS
    assert sorted(process.exitcode or 0 for process in consumers.values()) == [-signal.SIGKILL] * KILLED + [0]
    report = verified(service, ledger_id)
    service.close()
    handled = list(read_log(log))
    assert report.size == APPENDS
    # At least once.
    assert {entry.position for entry in handled} == set(range(APPENDS))
    # In order: a version is handled for the first time only when all before it have been.
    seen: dict[str, int] = {}
    for entry in handled:
        newest = seen.get(entry.stream_ref, 0)
        assert entry.stream_version <= newest + 1
        seen[entry.stream_ref] = max(newest, entry.stream_version)


def write(place: Place, ledger_id: UUID, number: int) -> None:
    """One writer: batches over its own streams and some of its neighbour's."""
    service = open_service(place)
    own = APPENDS // WRITERS + (number < APPENDS % WRITERS)
    for start in range(0, own, BATCH):
        turns = range(start, min(start + BATCH, own))
        events = [
            event(f"thing-{(number * STREAMS + turn * 7 % (STREAMS * 5 // 4)) % (STREAMS * WRITERS)}") for turn in turns
        ]
        append_events(service.deps, ledger_id, events, OPERATOR)
    service.close()


def handle(place: Place, ledger_id: UUID, consumer: UUID, done: object, log: Path) -> None:
    """One consumer: what it handles is in the log that all write to, a line at a time."""
    service = open_service(place)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)

    def note(opened: OpenedEvent) -> None:
        row = opened.recorded
        line = f"{consumer} {row.position} {row.envelope.stream_ref.hex()} {row.stream_version}\n"
        os.write(file, line.encode())

    consume(
        service.deps,
        ledger_id,
        NAME,
        note,
        consumer=consumer,
        stop=done.is_set,  # type: ignore[attr-defined]  # an Event of multiprocessing has no public type
        lease=LEASE_SECONDS,
    )
    service.close()


def kill(process: BaseProcess) -> None:
    """SIGKILL: nobody gets to acknowledge or to give anything back."""
    process.kill()
    process.join(60)


def wait_until(holds: Callable[[], bool], consumers: Collection[BaseProcess]) -> None:
    """Come back when something holds; not later than when those who work for it are dead."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        assert all(consumer.is_alive() for consumer in consumers)
        time.sleep(0.05)


def is_at_head(service: Service, ledger_id: UUID) -> bool:
    """Whether nothing is left to handle."""
    return all(not partition.behind for partition in describe_subscription(service.deps, ledger_id, NAME).partitions)


def has_lines(log: Path, count: int) -> bool:
    """Whether so many events were handled."""
    return log.read_bytes().count(b"\n") >= count


def read_log(log: Path) -> Iterator[Handled]:
    """What was handled, in the order in which it was."""
    for line in log.read_text().splitlines():
        consumer, position, stream_ref, stream_version = line.split(" ")
        yield Handled(consumer, int(position), stream_ref, int(stream_version))
