"""Two processes that have just read all about a person, and go on reading: the first page that either begins after the
erasure is acknowledged shows nothing any more, however it is asked for (I7).

With ``AUDIT_LEDGER_TEST_ROUNDS`` there are 500 rounds, or as many as it says if these are more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from uuid import UUID

import sqlalchemy as sa

from api.json_text import json_bytes, json_line
from api.read_model_rendering import render_read_model
from api.rendering import render_event, render_page
from api.timetravel_rendering import render_state, render_states
from ledger.domain.events import OPERATOR
from ledger.domain.fold import MERGE_PATCH
from ledger.domain.query import EventQuery, NameOrRef
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject
from ledger.services.projecting.read_models import read_document
from ledger.services.projecting.shipped import CURRENT_STATE
from ledger.services.read import export_events, query_events
from ledger.services.timetravel.snapshots import keep
from ledger.services.timetravel.state import fold_stream, stream_state
from ledger.services.timetravel.states import stream_states
from ledger.storage.tables import snapshots
from tests.support.processes import processes
from tests.support.projecting import run_all
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up, verified

FULL_ROUNDS = 500
ROUNDS = (
    max(int(os.environ["AUDIT_LEDGER_TEST_ROUNDS"]), FULL_ROUNDS) if "AUDIT_LEDGER_TEST_ROUNDS" in os.environ else 6
)
READERS = 2
EVENTS = 10
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """Somebody to read about: in a stream of which there is a snapshot, and in a short one."""

    ledger_id: UUID
    subject: str
    secret: str
    key_id: bytes
    long_stream: bytes
    short_stream: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What one page showed. Times are those of the machine's one monotonic clock."""

    began: float
    ended: float
    asked: str
    clear: bool
    erased: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All pages that a reader read, and whether it remembered the person's key before and after."""

    pages: list[Seen]
    remembered: tuple[bool, bool]


def test_the_first_page_after_an_erasure_is_redacted_in_every_process(place: Place) -> None:
    """Events, exports, states with and without snapshots, and read models, in two processes that never pause."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    ends = [processes.Pipe() for _ in range(READERS)]
    readers = [processes.Process(target=read, args=(place, theirs), daemon=True) for _, theirs in ends]
    for reader in readers:
        reader.start()
    own_ends = [own for own, _ in ends]
    for number in range(ROUNDS):
        play(service, ledger_id, number, own_ends)
    for own in own_ends:
        own.send(None)
    for reader in readers:
        reader.join(PATIENCE_SECONDS)
    assert [reader.exitcode for reader in readers] == [0] * READERS
    assert verified(service, ledger_id).size == ROUNDS * (EVENTS + 2)
    service.close()


def play(service: Service, ledger_id: UUID, number: int, readers: list[Connection]) -> None:
    """One person: recorded, read by everybody, erased while everybody reads on."""
    task = record(service, ledger_id, number)
    for reader in readers:
        reader.send(task)
    for reader in readers:
        assert received(reader) == "warm"

    began = time.monotonic()
    order = ErasureOrder(NameOrRef(task.subject, None), None, None, None, block_unknown=False, requested_by=OPERATOR)
    assert erase_subject(service.deps, ledger_id, order).erasure.entry.done
    acknowledged = time.monotonic()

    for reader in readers:
        reader.send("erased")
    for reader in readers:
        report = received(reader)
        assert isinstance(report, Report)
        before = [page for page in report.pages if page.ended < began]
        after = [page for page in report.pages if page.began > acknowledged]
        assert {page.asked for page in before} == {page.asked for page in after} == set(WAYS)
        assert [page for page in before if not page.clear or page.erased] == []
        assert [page for page in after if page.clear or not page.erased] == []
        # It was not that the reader had forgotten the key.
        assert report.remembered == (True, True)


def record(service: Service, ledger_id: UUID, number: int) -> Task:
    """Two streams of somebody, a snapshot of the long one, and read models of both."""
    subject, secret = f"person:{number}", f"secret-{number}-end"
    long, short = f"long-{number}", f"short-{number}"
    events = [event(long, subject=subject, data={"last": secret, "n": n}) for n in range(EVENTS)]
    places = append_events(
        service.deps, ledger_id, [*events, event(short, subject=subject, data={"last": secret})], OPERATOR
    ).events
    # As the worker does, which would wait for more events.
    folded = fold_stream(service.deps, ledger_id, places[0].stream_ref, places[-1].position)
    keep(service.deps, ledger_id, MERGE_PATCH, [(places[0].stream_ref, folded)])
    run_all(service.deps, ledger_id, [CURRENT_STATE])
    ((key_id, _),) = service.vault.find_subjects(ledger_id, [subject])[subject].key_ids
    task = Task(ledger_id, subject, secret, key_id, places[0].stream_ref, places[-1].stream_ref)
    kept = sa.select(sa.func.count()).where(snapshots.c.stream_ref == task.long_stream)
    with service.store._engine.connect() as connection:
        assert connection.execute(kept).scalar_one() == 1
    return task


def received(reader: Connection) -> object:
    """What a reader says next."""
    assert reader.poll(PATIENCE_SECONDS), "a reader has nothing to say"
    return reader.recv()


def read(place: Place, parent: Connection) -> None:
    """A reader's process: for each task, read in every way until told that it is over, and once more after that."""
    service = open_service(place)
    while (task := parent.recv()) is not None:
        pages = read_in_every_way(service, task)
        remembered = remembers(service, task)
        parent.send("warm")
        while not parent.poll():
            pages += read_in_every_way(service, task)
        parent.recv()
        pages += read_in_every_way(service, task)
        parent.send(Report(pages, (remembered, remembers(service, task))))
    service.close()


def read_in_every_way(service: Service, task: Task) -> list[Seen]:
    """One page of each."""
    pages = []
    for asked, way in WAYS.items():
        began = time.monotonic()
        text = way(service, task)
        ended = time.monotonic()
        pages.append(Seen(began, ended, asked, task.secret.encode() in text, b'"erased"' in text))
    return pages


def remembers(service: Service, task: Task) -> bool:
    """Whether this process has the person's unwrapped key in its cache."""
    return task.key_id in service.vault._keyring._cache._entries


def query(service: Service, task: Task) -> bytes:
    asked = EventQuery(subject=NameOrRef(task.subject, None))
    return json_bytes(render_page(query_events(service.deps, task.ledger_id, asked, cursor=None, limit=20)))


def export(service: Service, task: Task) -> bytes:
    asked = EventQuery(subject=NameOrRef(task.subject, None))
    pages = export_events(service.deps, task.ledger_id, asked)
    return b"".join(json_line(render_event(found)) for page in pages for found in page)


def state(service: Service, task: Task) -> bytes:
    return json_bytes(render_state(stream_state(service.deps, task.ledger_id, NameOrRef(None, task.short_stream))))


def state_from_a_snapshot(service: Service, task: Task) -> bytes:
    return json_bytes(render_state(stream_state(service.deps, task.ledger_id, NameOrRef(None, task.long_stream))))


def states(service: Service, task: Task) -> bytes:
    page = stream_states(service.deps, task.ledger_id, subject=NameOrRef(task.subject, None))
    return json_bytes(render_states(page))


def read_model(service: Service, task: Task) -> bytes:
    answer = read_document(service.deps, task.ledger_id, CURRENT_STATE, task.long_stream)
    return json_bytes(render_read_model(CURRENT_STATE, answer))


WAYS: Mapping[str, Callable[[Service, Task], bytes]] = {
    "query": query,
    "NDJSON export": export,
    "state": state,
    "state from a snapshot": state_from_a_snapshot,
    "states": states,
    "read model": read_model,
}
