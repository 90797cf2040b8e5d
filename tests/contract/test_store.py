"""What every store keeps to: the port's contracts, and an append-only log that the database itself defends (I1)."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from ledger.domain.access import AccessRole, ApiKey, LedgerInfo
from ledger.domain.events import Envelope, Head, RecordedEvent, Role, SealedEvent, SealedPart
from ledger.domain.merkle import extend_frontier, root_of
from ledger.domain.query import EventFilter, KeyCondition, Place
from ledger.domain.sequence import place_events
from ledger.errors import AlreadyExistsError, IntegrityError, StoreUnavailableError
from ledger.ports import ErasureRoots, LogSurvey
from ledger.storage import database
from ledger.storage.database import open_engine, reading
from ledger.storage.migrate import migrate
from ledger.storage.store import SqlStore
from tests.support.ledgers import NOW, Backend
from tests.support.postgres import PostgresCluster
from tests.support.statements import watching

READ_AND_CLOSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM ledgers").fetchone()[0])
connection.close()
"""

S, T = b"s" * 16, b"t" * 16
KEY_1, KEY_2, OWN = b"1" * 32, b"2" * 32, b"o" * 32
WRITER, OTHER_WRITER = UUID(int=11), UUID(int=12)
CORRELATION = UUID(int=13)
ERASURE = UUID(int=14)
BEFORE = b"b" * 32


@pytest.fixture
def store(backend: Backend) -> SqlStore:
    """The store of a backend."""
    return backend.store


@pytest.fixture
def ledger_id(backend: Backend) -> UUID:
    """A ledger of its own."""
    return backend.new_ledger().ledger_id


def sealed(ledger_id: UUID, number: int, **changes: Any) -> SealedEvent:
    """An event that is ready to be recorded; its id is its number."""
    parts = changes.pop("parts", (SealedPart(Role.SUBJECT, KEY_1, b"x"), SealedPart(Role.NONPERSONAL, OWN, b"y")))
    recorded_by = changes.pop("recorded_by", WRITER)
    envelope = Envelope(ledger_id, UUID(int=number), S, "patient", "Visit", 1, None, None, None)
    return SealedEvent(replace(envelope, **changes), parts, recorded_by)


def write(store: SqlStore, ledger_id: UUID, *events: SealedEvent, now: int = NOW) -> list[RecordedEvent]:
    """Record events as an append does it."""
    with store.locked_head(ledger_id) as lock:
        versions = lock.versions({event.envelope.stream_ref for event in events})
        recorded, head = place_events(events, lock.head, versions, now)
        lock.write(recorded, head)
    return recorded


# The port, method by method


def test_ledgers_are_listed_by_name_and_taken_once(backend: Backend, store: SqlStore) -> None:
    """A ledger and its empty head are there when ``add_ledger`` returns; its name is taken for good."""
    fresh = LedgerInfo(UUID(int=NOW), f"contract-{backend.name}", NOW)
    store.add_ledger(fresh)
    assert store.ledger(fresh.name) == fresh
    assert store.ledger("no-such-ledger") is None
    assert fresh in store.ledgers()
    assert [one.name for one in store.ledgers()] == sorted(one.name for one in store.ledgers())
    assert store.head(fresh.ledger_id) == store.head(fresh.ledger_id, settled=True) == Head(0, (), 0)
    with pytest.raises(AlreadyExistsError):
        store.add_ledger(replace(fresh, ledger_id=UUID(int=NOW + 1)))
    with pytest.raises(IntegrityError):
        store.head(UUID(int=NOW + 1))


def test_of_many_who_take_a_name_at_once_one_gets_it(backend: Backend, store: SqlStore) -> None:
    """The others are told that it is taken, also when nobody had it yet as they looked."""
    start = threading.Barrier(6)

    def add(number: int) -> bool:
        start.wait(timeout=30)
        try:
            store.add_ledger(LedgerInfo(UUID(int=NOW + number), f"{backend.name}-at-once-{number // 6}", NOW))
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        added = list(pool.map(add, range(6, 66)))
    assert [sum(added[first : first + 6]) for first in range(0, 60, 6)] == [1] * 10


def test_events_come_back_as_they_were_written(store: SqlStore, ledger_id: UUID) -> None:
    """Every field of every event, whatever its parts, survives the way through the rows."""
    written = write(
        store,
        ledger_id,
        sealed(ledger_id, 1),
        sealed(
            ledger_id, 2, occurred_at=-5, correlation_id=CORRELATION, causation_id=UUID(int=1), schema_version=2**31 - 1
        ),
        sealed(
            ledger_id, 3, stream_ref=T, category="a_b.C9", parts=tuple(SealedPart(role, KEY_2, b"") for role in Role)
        ),
        sealed(ledger_id, 4, parts=()),
    )
    assert store.select_events(ledger_id, EventFilter(0, 99), None, 10) == written
    assert store.find_events(ledger_id, [UUID(int=n) for n in (3, 1, 9)]) == {
        UUID(int=3): written[2],
        UUID(int=1): written[0],
    }
    assert sorted(store.events_at(ledger_id, {1, 3, 99}), key=lambda event: event.position) == [written[1], written[3]]
    assert store.find_events(ledger_id, []) == {}
    head = store.head(ledger_id)
    assert (head.size, head.last_recorded_at) == (4, NOW)
    assert root_of(head.frontier) == root_of(extend_frontier(0, (), [event.leaf_hash for event in written])[1])
    assert [store.recorded_at(ledger_id, position) for position in range(4)] == [NOW] * 4
    with pytest.raises(IntegrityError):
        store.recorded_at(ledger_id, 4)


def test_versions_are_those_of_streams_that_have_events(store: SqlStore, ledger_id: UUID) -> None:
    """A stream without events is absent, inside the lock and outside, for thousands of refs too."""
    write(store, ledger_id, *(sealed(ledger_id, n, stream_ref=S if n % 3 else T) for n in range(1, 8)))
    many = [number.to_bytes(16) for number in range(2500)]
    assert store.versions(ledger_id, [S, T, *many]) == {S: 5, T: 2}
    assert store.versions(ledger_id, []) == {}
    with store.locked_head(ledger_id) as lock:
        assert lock.versions([T, S, b"u" * 16]) == {S: 5, T: 2}
        assert lock.find_ids([UUID(int=n) for n in (1, 7, 8)]) == {UUID(int=1), UUID(int=7)}
        assert lock.head == store.head(ledger_id)


def test_one_look_tells_all_that_an_append_must_know(store: SqlStore, ledger_id: UUID) -> None:
    """The same as each question by itself, for nothing, for what is not there, and for thousands."""
    write(store, ledger_id, *(sealed(ledger_id, n, stream_ref=S if n % 3 else T) for n in range(1, 8)))
    refs = [S, T, *(number.to_bytes(16) for number in range(2500))]
    ids = [UUID(int=n) for n in range(1, 2500)]
    keys = [KEY_1, KEY_2, *(number.to_bytes(32) for number in range(2500))]
    with store.locked_head(ledger_id) as lock:
        lock.abandon(refs[7])
        lock.close(S, 6)
        lock.shred([KEY_2], 3, ERASURE, BEFORE, before=BEFORE)
        assert lock.survey([], [], []) == LogSurvey(frozenset(), frozenset(), frozenset(), frozenset(), {})
        found = lock.survey(ids, keys, refs)
        assert found == LogSurvey(
            lock.find_ids(ids), lock.shredded(keys), lock.closed(refs), lock.abandoned(refs), lock.versions(refs)
        )
    assert (len(found.recorded), set(found.dead), set(found.closed)) == (7, {KEY_2}, {S})
    assert (set(found.abandoned), dict(found.versions)) == ({refs[7]}, {S: 5, T: 2})


def test_a_time_resolves_to_the_last_event_at_or_before_it(store: SqlStore, ledger_id: UUID) -> None:
    """Exactly at a recorded-at includes all events of that time; a microsecond before includes none of them."""
    for number, now in enumerate((100, 100, 200, 200, 200, 300), 1):
        write(store, ledger_id, sealed(ledger_id, number), now=now)
    expected = {99: -1, 100: 1, 101: 1, 199: 1, 200: 4, 299: 4, 300: 5, 10**15: 5, -1: -1}
    assert {time: store.position_at(ledger_id, time, 6) for time in expected} == expected
    assert store.position_at(ledger_id, 200, 4) == 3
    assert store.position_at(ledger_id, 10**15, 0) == -1


def naive(events: list[RecordedEvent], which: EventFilter) -> list[int]:
    """The positions that a filter selects, by its definition."""

    def occurred(event: RecordedEvent) -> int:
        return event.recorded_at if event.envelope.occurred_at is None else event.envelope.occurred_at

    def matches(event: RecordedEvent) -> bool:
        envelope = event.envelope
        return (
            which.first_position <= event.position <= which.last_position
            and which.stream_ref in (None, envelope.stream_ref)
            and event.stream_version > which.after_version
            and which.category in (None, envelope.category)
            and (not which.types or envelope.event_type in which.types)
            and which.correlation_id in (None, envelope.correlation_id)
            and which.recorded_by in (None, event.recorded_by)
            and (which.occurred_from is None or occurred(event) >= which.occurred_from)
            and (which.occurred_to is None or occurred(event) < which.occurred_to)
            and all(
                any(part.role in condition.roles and part.key_id in condition.key_ids for part in event.parts)
                for condition in which.keys
            )
        )

    found = [event for event in events if matches(event)]
    if which.order_by == "occurred":
        found.sort(key=lambda event: (occurred(event), event.position))
    return [event.position for event in (found if which.order == "asc" else reversed(found))]


def test_every_filter_selects_what_it_says_on_pages_of_every_size(store: SqlStore, ledger_id: UUID) -> None:
    """Each condition alone, in both orders of both axes; pages join without a gap and without a repeat."""
    for number in range(1, 13):
        parts = (SealedPart(Role.SUBJECT if number % 2 else Role.ACTOR, KEY_1 if number % 3 else KEY_2, b"x"),)
        event = sealed(
            ledger_id,
            number,
            stream_ref=S if number % 4 else T,
            category="patient" if number % 5 else "ward",
            event_type=f"T{number % 3}",
            occurred_at=None if number % 3 == 0 else 50 * (number % 4),
            correlation_id=CORRELATION if number % 6 == 0 else None,
            recorded_by=WRITER if number % 2 else OTHER_WRITER,
            parts=parts,
        )
        write(store, ledger_id, event, now=100 + number // 3)
    events = list(store.select_events(ledger_id, EventFilter(0, 99), None, 99))
    conditions: list[dict[str, Any]] = [
        {},
        {"first_position": 3},
        {"last_position": 7},
        {"stream_ref": T},
        {"stream_ref": S, "after_version": 4},
        {"category": "ward"},
        {"types": ("T0", "T2")},
        {"correlation_id": CORRELATION},
        {"recorded_by": OTHER_WRITER},
        {"occurred_from": 100},
        {"occurred_to": 100},
        {"occurred_from": 50, "occurred_to": 103},
        {"keys": (KeyCondition((Role.SUBJECT,), (KEY_1, KEY_2)),)},
        {"keys": (KeyCondition((Role.SUBJECT, Role.ACTOR), (KEY_2,)), KeyCondition((Role.ACTOR,), (KEY_1, KEY_2)))},
        {"keys": (KeyCondition((Role.FURTHER,), (KEY_1,)),)},
    ]
    for fields in conditions:
        for order_by in ("recorded", "occurred"):
            for order in ("asc", "desc"):
                bounds = {"first_position": 0, "last_position": 99}
                which = EventFilter(**{**bounds, **fields}, order_by=order_by, order=order)
                expected = naive(events, which)
                for limit in (1, 5, 50):
                    assert expected == walk(store, ledger_id, which, limit)


def walk(store: SqlStore, ledger_id: UUID, which: EventFilter, limit: int) -> list[int]:
    """All positions that match, page by page."""
    found: list[int] = []
    place: Place | None = None
    while page := store.select_events(ledger_id, which, place, limit):
        found += [event.position for event in page]
        last = page[-1]
        occurred = last.recorded_at if last.envelope.occurred_at is None else last.envelope.occurred_at
        place = Place(last.position, occurred if which.order_by == "occurred" else None)
    return found


def test_keys_lead_to_their_events(store: SqlStore, ledger_id: UUID) -> None:
    """``event_keys`` has a row for every part of a person and none for nonpersonal parts."""
    write(store, ledger_id, sealed(ledger_id, 1), sealed(ledger_id, 2, parts=(SealedPart(Role.ACTOR, KEY_2, b"z"),)))
    write(store, ledger_id, sealed(ledger_id, 3), sealed(ledger_id, 4, parts=(SealedPart(Role.SHREDDED, KEY_1, b""),)))
    usage = store.key_usage(ledger_id, [KEY_1])
    assert (usage.events, usage.first, usage.last) == (2, 0, 2)
    usage = store.key_usage(ledger_id, [KEY_1, KEY_2])
    assert (usage.events, usage.first, usage.last) == (3, 0, 2)
    for nothing in ([], [OWN], [b"9" * 32]):
        usage = store.key_usage(ledger_id, nothing)
        assert (usage.events, usage.first, usage.last) == (0, None, None)

    rows = [(0, 0, 1, KEY_1), (2, 0, 1, KEY_1), (3, 0, 6, KEY_1), (1, 0, 2, KEY_2)]
    assert store.count_event_keys(ledger_id) == 4
    assert store.key_rows_in(ledger_id, 0, 9, 99) == sorted(rows)
    assert store.key_rows_in(ledger_id, 1, 2, 1) == [rows[3]]


def test_shredded_keys_are_known_from_the_commit_on(store: SqlStore, ledger_id: UUID) -> None:
    """Dead keys stand with position, time and erasure, inside the lock and outside; the tree's root beside them."""
    with store.locked_head(ledger_id) as lock:
        recorded, head = place_events([sealed(ledger_id, 1)], lock.head, {}, NOW)
        lock.write(recorded, head)
        lock.shred([KEY_1, KEY_2], 0, ERASURE, root_of(head.frontier), before=BEFORE)
    assert store.shreddings(ledger_id, [KEY_1, OWN]).keys() == {KEY_1}
    # More than a statement takes, given twice, and what is no key among them.
    living = [number.to_bytes(32) for number in range(1, 2500)]
    asked = [*living, b"short", KEY_2, b"", *living[:3], KEY_1, KEY_1]
    assert store.shreddings(ledger_id, asked).keys() == {KEY_1, KEY_2}
    assert store.shreddings(ledger_id, living) == {}
    shredding = store.shredded_keys(ledger_id)[KEY_2]
    assert (shredding.position, shredding.at, shredding.erasure_id) == (0, NOW, ERASURE)
    assert store.shredded_keys(ledger_id).keys() == {KEY_1, KEY_2}
    assert store.roots_of_erasure(ledger_id, ERASURE) == ErasureRoots(root_of(head.frontier), BEFORE)
    with store.locked_head(ledger_id) as lock:
        assert lock.shredded([KEY_2, OWN]) == {KEY_2}
        lock.shred([], 0, UUID(int=99), bytes(32), before=BEFORE)
    with pytest.raises(IntegrityError):
        store.roots_of_erasure(ledger_id, UUID(int=98))
    assert store.shredded_keys(UUID(int=5)) == {}


def test_refs_can_be_given_up(store: SqlStore, ledger_id: UUID) -> None:
    """An abandoned ref is known to every later holder of the lock."""
    with store.locked_head(ledger_id) as lock:
        assert lock.abandoned([S, T]) == frozenset()
        lock.abandon(S)
    with store.locked_head(ledger_id) as lock:
        assert lock.abandoned([S, T]) == {S}


def test_ledgers_do_not_see_each_other(backend: Backend, store: SqlStore, ledger_id: UUID) -> None:
    """Two ledgers with the same ids, refs and keys: no method of one answers with what is in the other."""
    other = backend.new_ledger().ledger_id
    write(store, ledger_id, sealed(ledger_id, 1))
    assert store.find_events(other, [UUID(int=1)]) == {}
    assert store.select_events(other, EventFilter(0, 99), None, 9) == []
    assert store.versions(other, [S]) == {}
    assert store.key_usage(other, [KEY_1]).events == store.count_event_keys(other) == 0
    assert store.head(other).size == 0
    write(store, other, sealed(other, 1))
    assert store.find_events(other, [UUID(int=1)])[UUID(int=1)].envelope.ledger_id == other


def test_api_keys(store: SqlStore, ledger_id: UUID) -> None:
    """A key is kept with all that it is; revoking holds from its first time on, and touching changes nothing else."""
    key = ApiKey(
        UUID(int=ledger_id.int + 1), "n", "p", frozenset(AccessRole), ledger_id, b"h" * 32, NOW, NOW + 9, None, None
    )
    everywhere = replace(key, key_id=UUID(int=ledger_id.int + 2), ledger_id=None, expires_at=None, created_at=NOW + 1)
    store.add_api_key(everywhere)
    store.add_api_key(key)
    assert [one for one in store.api_keys() if one in (key, everywhere)] == [key, everywhere]
    store.touch_api_key(key.key_id, NOW + 5)
    assert store.revoke_api_key(key.key_id, NOW + 6)
    assert store.revoke_api_key(key.key_id, NOW + 7)
    assert store.api_key(key.key_id) == replace(key, last_used_at=NOW + 5, revoked_at=NOW + 6)
    assert store.api_key(everywhere.key_id) == everywhere
    assert not store.revoke_api_key(UUID(int=ledger_id.int + 3), NOW)
    assert store.api_key(UUID(int=ledger_id.int + 3)) is None


# The head lock


def test_what_raises_under_the_lock_leaves_nothing(store: SqlStore, ledger_id: UUID) -> None:
    """I12: rows, keys and head of a block that fails are rolled back together, and the lock is free."""

    def fail_at_last() -> None:
        with store.locked_head(ledger_id) as lock:
            recorded, head = place_events([sealed(ledger_id, 1)], lock.head, {}, NOW)
            lock.write(recorded, head)
            lock.shred([KEY_1], 0, ERASURE, bytes(32), before=BEFORE)
            lock.abandon(S)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_at_last()
    assert store.head(ledger_id) == Head(0, (), 0)
    assert store.find_events(ledger_id, [UUID(int=1)]) == {}
    assert store.count_event_keys(ledger_id) == 0
    assert store.shredded_keys(ledger_id) == {}
    assert [event.position for event in write(store, ledger_id, sealed(ledger_id, 1))] == [0]


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start ``work`` beside this thread; its result will stand in the list."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    return thread, result


def test_whoever_waits_for_the_head_sees_what_its_holder_did(store: SqlStore, ledger_id: UUID) -> None:
    """I2: a second appender and a settled head wait for the holder's commit; a plain read does not."""
    with store.locked_head(ledger_id) as lock:
        settled, seen = in_thread(lambda: store.head(ledger_id, settled=True))
        second, placed = in_thread(lambda: write(store, ledger_id, sealed(ledger_id, 2)))
        recorded, head = place_events([sealed(ledger_id, 1)], lock.head, {}, NOW)
        lock.write(recorded, head)
        assert store.head(ledger_id).size == 0
        settled.join(0.1)
        assert settled.is_alive()
        assert second.is_alive()
    settled.join(20)
    second.join(20)
    assert seen[0].size in (1, 2)
    assert [event.position for event in placed[0]] == [1]
    assert store.head(ledger_id).size == 2


def test_two_events_cannot_share_a_place(store: SqlStore, ledger_id: UUID) -> None:
    """I2, I3, I4 below the lock: position, (stream, version) and event id are unique whatever a writer believes."""
    (event,) = write(store, ledger_id, sealed(ledger_id, 1))
    twins = [
        replace(event, envelope=replace(event.envelope, event_id=UUID(int=2)), stream_version=2),
        replace(event, envelope=replace(event.envelope, event_id=UUID(int=2)), position=1),
        replace(event, position=1, stream_version=2),
    ]
    for twin in twins:
        with pytest.raises(IntegrityError) as caught, store.locked_head(ledger_id) as lock:
            lock.write([twin], lock.head)
        assert "audit-ledger verify" in caught.value.detail
        assert caught.value.__cause__ is None
    assert store.head(ledger_id).size == 1
    fine = replace(event, position=1, stream_version=2, envelope=replace(event.envelope, event_id=UUID(int=2)))
    with store.locked_head(ledger_id) as lock:
        lock.write([fine], replace(lock.head, size=2, frontier=(bytes(32),)))


# When the database is away


def test_a_database_that_is_away_is_a_dependency_s_fault(tmp_path: Path, postgres: PostgresCluster) -> None:
    """Neither a missing folder nor a closed port shows the caller anything but ``StoreUnavailableError``."""
    gone = make_url(postgres.create_database()).set(port=1).render_as_string(hide_password=False)
    for url in (f"sqlite:///{tmp_path}/no/such/folder/ledger.db", gone):
        store = SqlStore(open_engine(url))
        for call in (store.check, store.ledgers, lambda store=store: store.head(UUID(int=1), settled=True)):
            with pytest.raises(StoreUnavailableError) as caught:
                call()
            assert caught.value.__cause__ is None
        store.close()


def test_another_process_that_closes_the_database_does_not_take_its_log_away(tmp_path: Path) -> None:
    """I11: as long as this process has the database open, no other is the last one, however many connections it
    opens."""
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    migrate(engine)
    store = SqlStore(engine)
    with reading(engine), reading(engine):
        pass
    command = [sys.executable, "-c", READ_AND_CLOSE, str(tmp_path / "ledger.db")]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"0\n"
    store.add_ledger(LedgerInfo(UUID(int=1), "kept", NOW))
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"1\n"
    store.close()


def test_an_empty_database_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    """``check`` fails before the migrations, and after them it does not."""
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    store = SqlStore(engine)
    with pytest.raises((StoreUnavailableError, IntegrityError)):
        store.check()
    migrate(engine, revision="0001")
    with pytest.raises(StoreUnavailableError, match="audit-ledger migrate"):
        store.check()
    migrate(engine)
    store.check()
    store.close()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///x?mode=ro", "mysql://x/y", "postgresql://x/y"]
)
def test_a_database_that_would_lose_events_is_refused(url: str) -> None:
    """Only files and PostgreSQL by psycopg: nothing in memory, no other driver."""
    with pytest.raises((ValueError, sa.exc.SQLAlchemyError)):
        open_engine(url)


def kill_connections(backend: Backend) -> int:
    """End every connection of the engine's pool on the server's side."""
    database = make_url(backend.urls[0]).database
    statement = sa.text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
    )
    other = open_engine(backend.urls[0])
    with other.connect() as connection:
        killed = len(connection.execute(statement, {"name": database}).all())
    other.dispose()
    return killed


def test_a_read_outlives_its_connection(service: tuple[Backend, Any]) -> None:
    """A connection that was killed while it was idle is replaced, and a read on it is done again."""
    opened, _ = service
    ledger_id = opened.new_ledger().ledger_id
    store = opened.store
    write(store, ledger_id, sealed(ledger_id, 1))
    assert kill_connections(opened) >= 1
    assert store.head(ledger_id).size == 1

    looks: list[Callable[[], object]] = [
        lambda: store.find_events(ledger_id, [UUID(int=1)]).keys() == {UUID(int=1)},
        lambda: store.head(ledger_id).size == 1,
    ]
    for right in looks:
        killed: list[int] = []

        def kill_once(*_: Any, killed: list[int] = killed) -> None:
            if not killed:
                killed.append(kill_connections(opened))

        with watching(opened.engine, kill_once):
            assert right()
        assert killed[0] >= 1


def test_a_look_that_fails_leaves_no_connection_without_transactions(service: tuple[Backend, Any]) -> None:
    """Looks are taken outside of transactions. However one ends, what the next writer gets has them: else its rows
    would stand though it failed (I1)."""
    opened, _ = service
    ledger_id = opened.new_ledger().ledger_id

    def fail(*_: Any) -> None:
        raise ValueError("not of the driver")

    with watching(opened.engine, fail), pytest.raises(ValueError, match="not of the driver"):
        opened.store.head(ledger_id)
    with suppress(RuntimeError), opened.store.locked_head(ledger_id) as lock:
        lock.abandon(b"r" * 16)
        raise RuntimeError
    with opened.store.locked_head(ledger_id) as lock:
        assert lock.abandoned([b"r" * 16]) == frozenset()


@pytest.mark.parametrize(("name", "instead"), [("_PING_AFTER_SECONDS", 60.0), ("_has_input", lambda _: False)])
def test_a_write_never_begins_on_a_connection_that_is_gone(
    service: tuple[Backend, Any], monkeypatch: pytest.MonkeyPatch, name: str, instead: Any
) -> None:
    """A write is not done again, so its connection is looked at before: by what the server has said, and by asking it
    when the last use is long ago. Each of the two is enough."""
    opened, _ = service
    ledger_id = opened.new_ledger().ledger_id
    monkeypatch.setattr(database, "_PING_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(database, name, instead)
    write(opened.store, ledger_id, sealed(ledger_id, 1))
    assert kill_connections(opened) >= 1
    write(opened.store, ledger_id, sealed(ledger_id, 2))
    assert opened.store.head(ledger_id).size == 2


def test_a_write_that_loses_its_connection_is_not_repeated(service: tuple[Backend, Any]) -> None:
    """What was under the lock is rolled back by the server, and the caller is told that the store went away."""
    opened, _ = service
    ledger_id = opened.new_ledger().ledger_id
    store = opened.store

    def lose_the_connection() -> None:
        with store.locked_head(ledger_id) as lock:
            recorded, head = place_events([sealed(ledger_id, 1)], lock.head, {}, NOW)
            lock.write(recorded, head)
            kill_connections(opened)

    with pytest.raises(StoreUnavailableError):
        lose_the_connection()
    assert store.head(ledger_id) == Head(0, (), 0)
    assert [event.position for event in write(store, ledger_id, sealed(ledger_id, 1))] == [0]
