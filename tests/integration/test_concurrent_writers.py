"""Eight processes append to one ledger while another follows it (I2, I3, I4, I11)."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from ledger.domain.events import OPERATOR
from ledger.domain.query import EventQuery
from ledger.errors import VersionConflictError
from ledger.services.appending.append import append_events
from ledger.services.read import query_events
from tests.support.processes import processes
from tests.support.service import (
    Place,
    event,
    new_ledger,
    open_service,
    set_up,
    verified,
)

WRITERS = 8
APPENDS = int(os.environ.get("AUDIT_LEDGER_TEST_APPENDS", "30"))
SHARED = [f"shared-{number}" for number in range(3)]


def test_no_gap_no_reordering_no_lost_and_no_double_event(place: Place, tmp_path: Path) -> None:
    """What eight writers were told is what is there, and a follower saw it in that order."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    writers = [
        processes.Process(target=write, args=(place, ledger_id, number, tmp_path / f"writer-{number}"))
        for number in range(WRITERS)
    ]
    done = processes.Event()
    follower = processes.Process(target=follow, args=(place, ledger_id, done, tmp_path / "follower"))
    for process in (follower, *writers):
        process.start()
    for process in writers:
        process.join(240)
    done.set()
    follower.join(60)

    assert [process.exitcode for process in (*writers, follower)] == [0] * (WRITERS + 1)
    acknowledged = [place for number in range(WRITERS) for place in read_lines(tmp_path / f"writer-{number}")]
    recorded = list(all_events(place, ledger_id))
    followed = [tuple(line) for line in read_lines(tmp_path / "follower")]
    report = verified(service, ledger_id)
    service.close()
    assert report.size == len(recorded) == len(acknowledged)
    # I2: the follower saw every event once, without a gap, in the order that stands.
    assert followed == [(position, event_id) for position, event_id, _, _ in recorded]
    assert [position for position, _, _, _ in recorded] == list(range(len(recorded)))
    # I4, I11: what was acknowledged is there once, at the place that was told.
    assert sorted(tuple(line) for line in acknowledged) == recorded
    # I3: versions of each stream are 1, 2, 3…
    versions: dict[str, list[int]] = {}
    for _, _, stream_ref, version in recorded:
        versions.setdefault(stream_ref, []).append(version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    assert Counter(len(found) > 1 for found in versions.values())[True] >= len(SHARED)


def write(place: Place, ledger_id: UUID, number: int, log: Path) -> None:
    """One writer: its own stream with exact versions, shared ones with optimistic concurrency, batches over both."""
    service = open_service(place)
    chance = random.Random(number)
    own = f"own-{number}"
    own_version = 0
    with log.open("w") as out:
        for turn in range(APPENDS):
            shared = chance.choice(SHARED)
            kind = chance.choice(["own", "shared", "both", "any"])
            events = []
            if kind in ("own", "both"):
                events.append(event(own, subject=f"person:{number}", data={"turn": turn}, expected_version=own_version))
            if kind in ("shared", "both"):
                entry = service.vault.find_streams(ledger_id, [shared]).get(shared)
                seen = service.store.versions(ledger_id, [entry.ref]).get(entry.ref, 0) if entry else 0
                events.append(event(shared, nonpersonal={"turn": turn}, expected_version=seen))
            if kind == "any":
                events.append(event(shared, subject="person:all", data={"turn": turn}))
            try:
                result = append_events(service.deps, ledger_id, events, OPERATOR)
            except VersionConflictError:
                continue
            own_version += kind in ("own", "both")
            for told in result.events:
                line = (told.position, str(told.event_id), told.stream_ref.hex(), told.stream_version)
                out.write(json.dumps(line) + "\n")
    service.close()


def follow(place: Place, ledger_id: UUID, done: object, log: Path) -> None:
    """Read on from the last position seen, until the writers are done and there is nothing more."""
    service = open_service(place)
    after = -1
    with log.open("w") as out:
        while True:
            finished = done.is_set()  # type: ignore[attr-defined]  # an Event of multiprocessing has no public type
            page = query_events(service.deps, ledger_id, EventQuery(after_position=after), cursor=None, limit=50)
            for found in page.events:
                out.write(json.dumps((found.recorded.position, str(found.recorded.envelope.event_id))) + "\n")
                after = found.recorded.position
            if finished and not page.events:
                break
    service.close()


def all_events(place: Place, ledger_id: UUID) -> Iterator[tuple[int, str, str, int]]:
    """Everything that is recorded, as (position, id, stream ref, version)."""
    service = open_service(place)
    cursor = None
    while True:
        query = EventQuery() if cursor is None else None
        page = query_events(service.deps, ledger_id, query, cursor=cursor, limit=1000)
        for found in page.events:
            row = found.recorded
            yield row.position, str(row.envelope.event_id), row.envelope.stream_ref.hex(), row.stream_version
        cursor = page.next
        if cursor is None:
            break
    service.close()


def read_lines(path: Path) -> list[list[object]]:
    """The JSON lines of a process's log."""
    return [json.loads(line) for line in path.read_text().splitlines()]
