"""Every question of the contract goes by an index, and touches little more than it shows: on either engine, and as the
engine itself plans it when it knows how the events are spread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa

from ledger.domain.events import PERSONAL_ROLES, Role
from ledger.domain.query import EventFilter, KeyCondition, Place
from ledger.ports import Between, StreamRange
from ledger.storage import tables
from ledger.storage.store import SqlStore
from tests.support.ledgers import NOW, Backend, open_postgresql, open_sqlite

EVENTS: Final = 20_000
STREAMS: Final = 400
ACTORS: Final = 100
BATCH: Final = 5_000
LIMIT: Final = 101
LAST: Final = EVENTS - 1
HALF: Final = EVENTS // 2
SECOND: Final = 1_000_000
HOUR: Final = 3600 * SECOND
CATEGORIES: Final = ("patient", "patient", "patient", "order", "order", "sample", "invoice", "ward")
OF_A_STREAM: Final = EVENTS // STREAMS
OF_AN_ACTOR: Final = EVENTS // ACTORS
A_LITTLE_MORE: Final = LIMIT + 20
A_PAGE: Final = 10 * LIMIT
"""Rows that a page may touch whose filter is not served by one index alone: one in ten or more of them match."""

BOTH: Final = ("events", "event_keys")
SERVED: Final = {
    "stream_ref": ["INDEX sqlite_autoindex_events_2"],
    "category": ["INDEX events_by_category", "INDEX events_first_of_stream"],
    "event_type": ["INDEX events_by_type"],
    "correlation_id": ["INDEX events_by_correlation"],
    "recorded_by": ["INDEX events_by_recorder"],
    "key_id": ["PRIMARY KEY"],
}
"""Column → the indexes that serve a filter by it, as SQLite names them. Several types have none: they are looked for
event by event, in the order of the answer."""


def _digest(text: str) -> bytes:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _ref(number: int) -> bytes:
    return _digest(f"stream {number}")


def _key(number: int) -> bytes:
    return _digest(f"key {number}") * 2


def _actor(number: int) -> bytes:
    return _digest(f"actor {number}") * 2


def _id(text: str) -> UUID:
    return UUID(bytes=_digest(text))


def _event_row(ledger_id: UUID, at: int) -> dict[str, Any]:
    """Streams grow side by side; half of the events are correlated, in threes; one in a hundred comes from another
    writer than the rest; a third occurred up to a day before they were recorded."""
    recorded_at = NOW + at * SECOND
    return {
        "ledger_id": ledger_id,
        "position": at,
        "event_id": _id(f"event {at}"),
        "stream_ref": _ref(at % STREAMS),
        "stream_version": 1 + at // STREAMS,
        "category": CATEGORIES[at % STREAMS % len(CATEGORIES)],
        "event_type": f"Type{int((at * 7919 % 1000 / 1000) ** 2 * 30)}",
        "schema_version": 1,
        "recorded_at": recorded_at,
        "occurred_at": recorded_at - at * 104_729 % (24 * HOUR) if at % 3 == 0 else None,
        "correlation_id": _id(f"correlation {at // 6}") if at % 2 == 0 else None,
        "causation_id": None,
        "recorded_by": _id(f"writer {at % 7 + 1 if at % 100 == 0 else 0}"),
        "sealed": bytes(400),
        "leaf_hash": bytes(32),
    }


def _key_rows(ledger_id: UUID, at: int) -> list[dict[str, Any]]:
    parts = [(_key(at % STREAMS), Role.SUBJECT), (_actor(at % ACTORS), Role.ACTOR)]
    if at % 4 == 0:
        parts.append((_key(at * 31 % STREAMS), Role.FURTHER))
    return [
        {"ledger_id": ledger_id, "key_id": key_id, "position": at, "part": part, "role": int(role)}
        for part, (key_id, role) in enumerate(parts)
    ]


@dataclass(frozen=True, slots=True)
class Planted:
    """A ledger with many events, none of which can be opened, in a database of its own."""

    backend: Backend
    ledger_id: UUID

    @property
    def store(self) -> SqlStore:
        """The store, which makes the statements."""
        return self.backend.store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """The events, and what each engine wants to know of them before it plans."""
    home = tmp_path_factory.mktemp("planted")
    if request.param == "sqlite":
        backend = open_sqlite(home)
    else:
        backend = open_postgresql(request.getfixturevalue("postgres"), home)
    ledger_id = backend.new_ledger().ledger_id
    for start in range(0, EVENTS, BATCH):
        places = range(start, start + BATCH)
        with backend.engine.begin() as connection:
            connection.execute(sa.insert(tables.events), [_event_row(ledger_id, at) for at in places])
            connection.execute(sa.insert(tables.event_keys), [row for at in places for row in _key_rows(ledger_id, at)])
    with backend.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if request.param == "postgresql":
            connection.exec_driver_sql("VACUUM ANALYZE events, event_keys")
    yield Planted(backend, ledger_id)
    backend.close()


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``reach``: the rows of one table that may be touched for it, at most. ``sorts``: what matches is
    put in order, all of it: one stream, one person, one correlation; never what a ledger has of a category or type."""

    ask: Callable[[SqlStore, UUID], Any]
    reach: int = A_LITTLE_MORE
    sorts: bool = False


def _events(
    after: Place | None = None, *, reach: int = A_LITTLE_MORE, sorts: bool = False, last: int = LAST, **fields: Any
) -> Question:
    which = EventFilter(fields.pop("first", 0), last, **fields)
    return Question(lambda store, ledger_id: store.select_events(ledger_id, which, after, LIMIT), reach, sorts)


def _under(roles: Sequence[Role], *key_ids: bytes) -> dict[str, Any]:
    return {"keys": (KeyCondition(tuple(roles), key_ids),)}


SUBJECT: Final[dict[str, Any]] = _under((Role.SUBJECT,), _key(7))
ACTOR: Final[dict[str, Any]] = _under((Role.ACTOR,), _actor(7))
OCCURRED: Final[dict[str, Any]] = {"order_by": "occurred"}
DESCENDING: Final[dict[str, Any]] = {"order": "desc"}
LATE: Final[dict[str, Any]] = {
    "occurred_from": NOW + (EVENTS - 500) * SECOND,
    "occurred_to": NOW + (EVENTS - 400) * SECOND,
}
"""A range of times with few events, all of them near the end."""

QUESTIONS: Final[Mapping[str, Question]] = {
    "everything": _events(),
    "everything, backwards": _events(**DESCENDING),
    "the next page": _events(Place(HALF)),
    "as of a moment": _events(last=HALF, **DESCENDING),
    "recorded in a window": _events(first=HALF, last=HALF + 5000, category="ward"),
    "a stream": _events(stream_ref=_ref(5), reach=OF_A_STREAM, sorts=True),
    "a stream behind a version": _events(stream_ref=_ref(5), after_version=20, reach=OF_A_STREAM, sorts=True),
    "a category": _events(category="ward"),
    "a category, the next page": _events(Place(HALF), category="ward", **DESCENDING),
    "a category that is not there": _events(category="nothing", reach=0),
    "a type": _events(types=("Type29",)),
    "types": _events(types=("Type3", "Type29", "Type7"), reach=A_PAGE + LIMIT, sorts=True),
    "types that are not there": _events(types=("Nothing", "None"), reach=0, sorts=True),
    "a type in a category": _events(types=("Type29",), category="ward", reach=A_PAGE),
    "a correlation": _events(correlation_id=_id("correlation 1234"), reach=3, sorts=True),
    "a writer": _events(recorded_by=_id("writer 3"), reach=EVENTS // 100),
    "the writer of nearly all": _events(recorded_by=_id("writer 0")),
    "a writer who is not there": _events(recorded_by=_id("nobody"), reach=0),
    "a subject": _events(**SUBJECT, reach=2 * OF_A_STREAM, sorts=True),
    "a subject with several keys": _events(
        **_under((Role.SUBJECT,), _key(7), _key(8), _key(9)), reach=6 * OF_A_STREAM, sorts=True
    ),
    "an actor": _events(**ACTOR, reach=OF_AN_ACTOR, sorts=True),
    "an actor, backwards": _events(Place(HALF), **ACTOR, **DESCENDING, reach=OF_AN_ACTOR, sorts=True),
    "an actor as of a moment": _events(**ACTOR, last=HALF, reach=OF_AN_ACTOR, sorts=True),
    "somebody in any role": _events(**_under(PERSONAL_ROLES, _key(7)), reach=2 * OF_A_STREAM, sorts=True),
    "a subject and an actor": _events(
        keys=(*SUBJECT["keys"], *ACTOR["keys"]), reach=OF_AN_ACTOR + 2 * OF_A_STREAM, sorts=True
    ),
    "a subject and a type": _events(**SUBJECT, types=("Type3",), reach=2 * OF_A_STREAM, sorts=True),
    "an actor in a category": _events(**ACTOR, category="ward", reach=OF_AN_ACTOR, sorts=True),
    "occurred in a range": _events(occurred_from=NOW, occurred_to=NOW + HOUR, reach=EVENTS // 4, sorts=True),
    "occurred in a narrow range": _events(**LATE, reach=A_PAGE, sorts=True),
    "by occurrence": _events(**OCCURRED),
    "by occurrence, backwards, the next page": _events(Place(HALF, NOW), **OCCURRED, **DESCENDING, reach=A_PAGE),
    "by occurrence in a range": _events(occurred_from=NOW, occurred_to=NOW + HOUR, **OCCURRED),
    "by occurrence, a category": _events(category="ward", **OCCURRED, reach=EVENTS // 8, sorts=True),
    "by occurrence, a stream": _events(stream_ref=_ref(5), **OCCURRED, reach=OF_A_STREAM, sorts=True),
    "by occurrence, a subject": _events(**SUBJECT, **OCCURRED, reach=2 * OF_A_STREAM, sorts=True),
    "by occurrence, an actor": _events(**ACTOR, **OCCURRED, reach=OF_AN_ACTOR, sorts=True),
    "by occurrence, a correlation": _events(correlation_id=_id("correlation 1234"), **OCCURRED, reach=3, sorts=True),
    "streams of a category": Question(
        lambda store, ledger_id: store.streams_of_category(ledger_id, "ward", LAST, _ref(3), LIMIT)
    ),
    "streams of a subject": Question(
        lambda store, ledger_id: store.streams_of_subject(ledger_id, [_key(7)], LAST, None, LIMIT),
        2 * OF_A_STREAM,
        sorts=True,
    ),
    "streams of somebody who acts in many": Question(
        lambda store, ledger_id: store.streams_of_subject(ledger_id, [_actor(7)], LAST, None, LIMIT),
        OF_AN_ACTOR,
        sorts=True,
    ),
    "streams that have changed": Question(
        lambda store, ledger_id: store.changed_streams(
            ledger_id, "ward", Between(first=HALF, last=HALF + 2000), None, LIMIT
        ),
        2000,
        sorts=True,
    ),
    "states of streams": Question(
        lambda store, ledger_id: store.stream_events(
            ledger_id, [StreamRange(_ref(number), 1, OF_A_STREAM) for number in range(20)], LAST
        ),
        20 * OF_A_STREAM,
        sorts=True,
    ),
    "state of a stream": Question(
        lambda store, ledger_id: store.stream_events(ledger_id, [StreamRange(_ref(5), 1, OF_A_STREAM)], LAST)
    ),
    "what had occurred in streams": Question(
        lambda store, ledger_id: store.occurrences(ledger_id, [_ref(5), _ref(6)], LAST, NOW + HOUR), 2 * OF_A_STREAM
    ),
    "how much of somebody there is": Question(
        lambda store, ledger_id: store.key_usage(ledger_id, [_key(7)]), 2 * OF_A_STREAM, sorts=True
    ),
    "how much of somebody there is here and there": Question(
        lambda store, ledger_id: store.count_events_between(ledger_id, [_key(7)], [(0, HALF), (HALF + 9, None)]),
        2 * OF_A_STREAM,
        sorts=True,
    ),
    "where somebody begins and ends": Question(
        lambda store, ledger_id: store.key_ends(ledger_id, [_key(7), _actor(3)], PERSONAL_ROLES), 9
    ),
    "where a key is used in a range": Question(
        lambda store, ledger_id: store.key_positions(ledger_id, _key(7), 0, HALF), 2 * OF_A_STREAM
    ),
    "where a key is used": Question(
        lambda store, ledger_id: store.streams_under_keys(ledger_id, [_key(7)], -1, 1000), 2 * OF_A_STREAM, sorts=True
    ),
    "events by their ids": Question(
        lambda store, ledger_id: store.find_events(ledger_id, [_id(f"event {at}") for at in range(5)])
    ),
    "a moment": Question(lambda store, ledger_id: store.position_at(ledger_id, NOW + HOUR, EVENTS)),
    "versions of streams": Question(
        lambda store, ledger_id: store.versions(ledger_id, [_ref(number) for number in range(50)])
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_goes_by_an_index(planted: Planted, name: str) -> None:
    """It reads no table from one end to the other, touches no more rows than it may, and sorts no more than it must."""
    question = QUESTIONS[name]
    with _statements(planted.backend.engine) as made:
        question.ask(planted.store, planted.ledger_id)
    assert made
    for statement, values in made:
        with planted.backend.engine.connect() as connection:
            if planted.backend.name == "sqlite":
                _check_sqlite(connection, statement, values, question)
            else:
                _check_postgresql(connection, statement, values, question)


@pytest.mark.parametrize("planted", ["sqlite"], indirect=True)
@pytest.mark.parametrize("further", [{}, {"category": "patient"}, {"types": ("Type0",)}, DESCENDING])
def test_sqlite_goes_by_a_narrow_range_of_times_and_in_order_through_a_wide_one(
    planted: Planted, further: dict[str, Any]
) -> None:
    """What is found is the same either way. What PostgreSQL touches is counted above."""

    def plan_of(**times: Any) -> tuple[list[int], str]:
        with _statements(planted.backend.engine) as made:
            which = EventFilter(0, LAST, **times, **further)
            found = planted.store.select_events(planted.ledger_id, which, None, LIMIT)
        statement, values = made[-1]
        with planted.backend.engine.connect() as connection:
            steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            return [event.position for event in found], str([row[-1] for row in steps])

    found, narrow = plan_of(**LATE)
    _, wide = plan_of(occurred_from=NOW, occurred_to=LATE["occurred_to"])
    rows = (_event_row(planted.ledger_id, at) for at in range(EVENTS))
    asked = {name: value for name, value in further.items() if name == "category"}
    expected = [
        row["position"]
        for row in rows
        if LATE["occurred_from"] <= (row["occurred_at"] or row["recorded_at"]) < LATE["occurred_to"]
        and all(row[name] == value for name, value in asked.items())
        and row["event_type"] in further.get("types", (row["event_type"],))
    ]
    assert found == sorted(expected, reverse=further.get("order") == "desc")[:LIMIT]
    assert "events_by_occurrence" in narrow
    assert "events_by_occurrence" not in wide


@contextmanager
def _statements(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collects the statements on events that are executed meanwhile, with their values."""
    made: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if any(table in statement for table in BOTH):
            made.append((statement, values))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield made
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def _check_sqlite(connection: sa.Connection, statement: str, values: Any, question: Question) -> None:
    plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    for words in map(str.split, plan):
        if words[0] in ("SCAN", "SEARCH") and words[1] in BOTH:
            assert words[0] == "SEARCH", plan
    served = [one for one in SERVED if f".{one} = ?" in statement or f".{one} IN (?)" in statement]
    steps = {f"{index} (ledger_id=? AND {column}=?" for column in served for index in SERVED[column]}
    # It says nothing of rows, but by which index it goes: one that serves a filter.
    assert not served or any(begin in step for begin in steps for step in plan), plan
    assert question.sorts or not any("TEMP B-TREE FOR ORDER BY" in step for step in plan), plan


def _check_postgresql(connection: sa.Connection, statement: str, values: Any, question: Question) -> None:
    found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar_one()
    (explained,) = found if isinstance(found, list) else json.loads(found)
    for node in _nodes(explained["Plan"]):
        if node.get("Relation Name") in BOTH:
            assert node["Node Type"] not in ("Seq Scan", "Sample Scan"), found
            assert _touched(node) <= question.reach, found
        if node["Node Type"] in ("Sort", "Incremental Sort"):
            assert question.sorts, found


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _touched(node: Mapping[str, Any]) -> float:
    seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    touched: float = seen * node["Actual Loops"]
    return touched
