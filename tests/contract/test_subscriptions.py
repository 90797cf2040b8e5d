"""Durable subscriptions, on each engine: every event at least once, in order within its stream, and none skipped."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from ledger.domain.events import OpenedEvent
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.subscription import LONGEST_RETRY, partition_of
from ledger.errors import AlreadyExistsError, InvalidError, LeaseLostError, NotFoundError
from ledger.services.following import subscriptions
from ledger.services.following.consumer import consume
from ledger.services.following.delivery import Batch
from ledger.services.following.scanning import scan
from ledger.services.following.subscriptions import (
    list_subscriptions,
    remove_subscription,
    restart_subscription,
)
from tests.support.desk import MINUTE, NAME, SECOND, A, B, Desk, positions, subscribe_to
from tests.support.ledgers import Ledger, a_fact, a_visit, reasons


@pytest.fixture
def subscribe(ledger: Ledger) -> Callable[..., Desk]:
    """Make a subscription."""

    return partial(subscribe_to, ledger)


@pytest.fixture
def desk(subscribe: Callable[..., Desk]) -> Desk:
    """A subscription to everything, in one partition."""
    return subscribe(partitions=1, max_tries=3)


def in_order_within_streams(ledger: Ledger, handled: Sequence[int]) -> bool:
    """Whether the first handlings of each stream were in order of its versions, without a hole."""
    rows = {row.position: row for row in ledger.recorded()}
    seen: dict[bytes, int] = defaultdict(int)
    for position in handled:
        row = rows[position]
        if row.stream_version > seen[row.envelope.stream_ref] + 1:
            return False
        seen[row.envelope.stream_ref] = max(seen[row.envelope.stream_ref], row.stream_version)
    return True


def test_everything_is_handled_once_when_nothing_goes_wrong(subscribe: Callable[..., Desk]) -> None:
    """What was recorded before, and what comes later, in order within each stream."""
    desk = subscribe()
    for number in range(60):
        desk.ledger.append(a_fact(f"ward-{number % 7}"))
    desk.consume()
    for number in range(60):
        desk.ledger.append(a_fact(f"ward-{number % 9}"))
    desk.consume()

    assert sorted(desk.handled) == list(range(120))
    assert in_order_within_streams(desk.ledger, desk.handled)
    assert [partition.behind for partition in desk.status().partitions] == [0] * 8


def test_filters_by_category_and_type(subscribe: Callable[..., Desk]) -> None:
    """And the cursors pass what does not match, so that nobody is behind."""
    ledger = subscribe("all").ledger
    for event in (a_fact(), a_visit(), a_fact(type="Closed"), a_visit(type="Left"), a_visit(type="Closed")):
        ledger.append(event)
    desks = [
        subscribe("patients", category="patient"),
        subscribe("closings", types=["Closed", "Left"]),
        subscribe("both", category="patient", types=["Closed"]),
        subscribe("nothing", types=["Unheard"]),
    ]
    for each in desks:
        each.consume()

    assert [sorted(each.handled) for each in desks] == [[1, 3, 4], [2, 3, 4], [4], []]
    assert {partition.behind for each in desks for partition in each.status().partitions} == {0}


@pytest.mark.parametrize(("after", "expected"), [(-1, [0, 1, 2]), (0, [1, 2]), ("end", [2])])
def test_a_subscription_begins_where_it_is_told(
    subscribe: Callable[..., Desk], after: object, expected: list[int]
) -> None:
    """Behind a position, or at the end."""
    ledger = subscribe("other").ledger
    ledger.append(a_fact(), a_fact())
    desk = subscribe(after=after)
    ledger.append(a_fact())
    desk.consume()

    assert desk.handled == expected


def test_a_subscription_cannot_begin_in_the_future(subscribe: Callable[..., Desk]) -> None:
    """Nor twice, nor with what cannot be; and nobody is told more than where the mistake is."""
    desk = subscribe()

    with pytest.raises(InvalidError):
        subscribe("late", after=0)
    with pytest.raises(AlreadyExistsError):
        subscribe()
    with pytest.raises(InvalidError) as refused:
        subscribe("Not A Name", category="no-word", types=["no word"], partitions=65, max_tries=0, after=-2)
    assert [fault.pointer for fault in refused.value.faults] == [
        "/name",
        "/category",
        "/type",
        "/partitions",
        "/max_tries",
        "/after",
    ]
    assert [status.subscription.name for status in list_subscriptions(desk.ledger.deps, desk.ledger.ledger_id)] == [
        NAME
    ]


def test_the_furthest_behind_comes_first_and_no_two_get_the_same(subscribe: Callable[..., Desk]) -> None:
    """Each consumer has partitions of its own for as long as it holds them."""
    desk = subscribe(partitions=4)
    for number in range(40):
        desk.ledger.append(a_fact(f"ward-{number}"))
    streams = {row.position: row.envelope.stream_ref for row in desk.ledger.recorded()}
    first, second = desk.fetched(A, limit=2), desk.fetched(B)

    assert first.partition != second.partition
    for batch in (first, second):
        assert {partition_of(streams[position], 4) for position in positions(batch)} == {batch.partition}
    desk.acknowledge(second, B)
    # The others have not moved at all; the second has, and the first is not free.
    assert desk.fetched(B).partition not in (first.partition, second.partition)


def test_what_was_not_acknowledged_is_delivered_again_when_the_lease_is_over(desk: Desk) -> None:
    """And the one who was too slow is told, and has changed nothing."""
    desk.ledger.append(a_fact(), a_fact(), a_fact())
    slow = desk.fetched(A)
    desk.acknowledge(slow, A, position=0, lease=MINUTE)
    assert desk.fetch(B) is None
    desk.later(MINUTE + 1)
    again = desk.fetched(B)

    assert (positions(slow), positions(again)) == ([0, 1, 2], [1, 2])
    with pytest.raises(LeaseLostError):
        desk.acknowledge(slow, A)
    with pytest.raises(LeaseLostError):
        desk.fail(slow, 1, A)
    desk.acknowledge(again, B)
    with pytest.raises(LeaseLostError):
        desk.acknowledge(slow, A)
    assert desk.status().partitions[0].cursor.position == 2


def test_an_acknowledgement_that_is_late_counts_if_nobody_was_faster(desk: Desk) -> None:
    """Else it would only be handled again for nothing."""
    desk.ledger.append(a_fact())
    late = desk.fetched()
    desk.later(MINUTE + 1)
    desk.acknowledge(late)

    assert desk.fetch(B) is None


def test_acknowledging_again_changes_nothing(desk: Desk) -> None:
    """Not even when more was acknowledged since; and what is not there yet cannot be."""
    desk.ledger.append(a_fact(), a_fact())
    batch = desk.fetched()
    desk.acknowledge(batch, position=1, lease=MINUTE)
    desk.acknowledge(batch, position=0)
    desk.acknowledge(batch, position=1, lease=MINUTE)

    assert desk.status().partitions[0].cursor.position == 1
    with pytest.raises(InvalidError):
        desk.acknowledge(batch, position=2)


def test_an_event_that_fails_is_tried_again_later_and_later(desk: Desk) -> None:
    """Nothing behind it is handled before; and what was handled before it is not handled again."""
    desk.ledger.append(a_fact(), a_fact(), a_fact())
    desk.consume(desk.failing_at(1))
    first = desk.status().partitions[0].cursor
    assert (desk.handled, first.position, first.tries, first.error) == ([0], 0, 1, "OutOfPaperError")
    assert desk.fetch(B) is None
    desk.later(1)
    desk.consume(desk.failing_at(1))
    second = desk.status().partitions[0].cursor
    assert second.tries == 2
    assert 0.5 <= (first.retry_at - desk.ledger.backend.clock.now + SECOND) / SECOND + 1 <= 2
    assert desk.fetch(B) is None
    desk.later(2)
    desk.consume()

    assert desk.handled == [0, 1, 2]
    assert desk.status().partitions[0].cursor.error is None


def test_after_its_last_try_an_event_is_parked_with_all_that_comes_after_it_in_its_stream(desk: Desk) -> None:
    """The other streams go on."""
    for number in range(6):
        desk.ledger.append(a_fact(f"ward-{number % 2}"))
    desk.fail_for_good(2)
    desk.ledger.append(a_fact("ward-0"), a_fact("ward-1"))
    desk.consume()

    assert desk.handled == [0, 1, 3, 5, 7]
    assert desk.parked() == [(2, 3, "OutOfPaperError", False), (4, 0, "", False), (6, 0, "", False)]
    assert desk.status().parked == 3
    assert desk.status().partitions[0].behind == 0


def test_replayed_messages_come_in_order_before_what_is_new_of_their_stream(desk: Desk) -> None:
    """Replaying one replays its stream; what is recorded meanwhile comes behind it."""
    for number in range(6):
        desk.ledger.append(a_fact(f"ward-{number % 2}"))
    desk.fail_for_good(2)
    desk.consume()
    desk.handled.clear()
    assert desk.replay(4) == 2
    assert desk.replay(4) == 0
    desk.ledger.append(a_fact("ward-0"), a_fact("ward-1"))
    desk.consume()

    assert [position for position in desk.handled if position % 2 == 0] == [2, 4, 6]
    assert sorted(desk.handled) == [2, 4, 6, 7]
    assert desk.parked() == []


def test_a_replay_that_fails_stays_parked_with_the_rest(desk: Desk) -> None:
    """What was handled before it is gone from there, and nothing is tried again by itself."""
    for _ in range(4):
        desk.ledger.append(a_fact())
    desk.fail_for_good(0)
    desk.consume()
    desk.handled.clear()
    desk.replay()
    desk.consume(desk.failing_at(2))
    desk.later(LONGEST_RETRY)
    desk.consume()

    assert desk.handled == [0, 1]
    assert desk.parked() == [(2, 1, "OutOfPaperError", False), (3, 0, "", False)]
    desk.replay()
    desk.consume()
    assert (desk.handled, desk.parked()) == ([0, 1, 2, 3], [])


def test_a_replay_can_be_acknowledged_piece_by_piece(desk: Desk) -> None:
    """And what is not being replayed cannot be."""
    desk.ledger.append(a_fact(), a_fact(), a_fact())
    desk.fail_for_good(0)
    desk.consume()
    desk.replay()
    batch = desk.fetched()
    assert (positions(batch), batch.replay) == ([0, 1, 2], True)
    desk.acknowledge(batch, position=1, lease=MINUTE)

    assert [position for position, *_ in desk.parked()] == [2]
    for position in (0, 1, 3):
        with pytest.raises(InvalidError):
            desk.fail(batch, position)
    with pytest.raises(InvalidError):
        desk.acknowledge(batch, position=3)
    desk.acknowledge(batch)
    assert desk.parked() == []


def test_a_replay_waits_for_its_partition_alone(subscribe: Callable[..., Desk]) -> None:
    """While another consumer handles the partition, nobody gets its parked messages."""
    desk = subscribe(partitions=2, max_tries=1)
    for number in range(20):
        desk.ledger.append(a_fact(f"ward-{number}"))
    desk.consume(desk.failing_at(0))
    desk.ledger.append(a_fact("ward-0"), *(a_fact(f"ward-{number}") for number in range(1, 20)))
    streams = {row.position: row.envelope.stream_ref for row in desk.ledger.recorded()}
    mine = partition_of(streams[0], 2)
    held = [desk.fetched(A), desk.fetched(B)]
    desk.replay()
    assert desk.fetch(uuid4()) is None
    for batch, consumer in zip(held, (A, B), strict=True):
        desk.acknowledge(batch, consumer)
    replayed = desk.fetched(A)

    assert (replayed.partition, replayed.replay, positions(replayed)) == (mine, True, [0, 20])


def test_a_subscription_that_stops_is_seen_and_goes_on_where_it_stopped(subscribe: Callable[..., Desk]) -> None:
    """It skips nothing, and says of the failure no more than its class (I5)."""
    desk = subscribe(partitions=1, max_tries=2, on_failure="stop")
    desk.ledger.append(a_visit(), a_visit(), a_visit())
    for _ in range(4):
        desk.consume(desk.failing_at(1))
        desk.later(LONGEST_RETRY)
    (partition,) = desk.status().partitions

    assert (partition.cursor.state, partition.cursor.error, partition.cursor.tries) == (
        "stopped",
        "OutOfPaperError",
        2,
    )
    assert (partition.behind, partition.age > 0, desk.parked()) == (2, True, [])
    assert restart_subscription(desk.ledger.deps, desk.ledger.ledger_id, NAME) == 1
    assert restart_subscription(desk.ledger.deps, desk.ledger.ledger_id, NAME) == 0
    desk.consume()
    assert desk.handled == [0, 1, 2]


def test_an_erased_person_in_a_parked_message_is_a_redaction_when_it_is_replayed(desk: Desk) -> None:
    """A parked message is only a reference: the event is opened anew (I7)."""
    desk.ledger.append(a_visit("A", data={"crp": 12}), a_visit("B"))
    desk.fail_for_good(0)
    desk.consume()
    desk.ledger.erase("patient:A")
    desk.replay()
    seen: list[OpenedEvent] = []
    desk.consume(seen.append)
    replayed, erasure = seen

    assert reasons(replayed) == {"/data": "erased"}
    assert replayed.recorded.position == 0
    assert (replayed.subject is not None, replayed.stream) == (True, None)
    assert replayed.subject is not None
    assert (replayed.subject.subject, replayed.subject.data) == (None, None)
    # And the subscriber learns that the person is to be forgotten.
    assert erasure.recorded.envelope.event_type == SUBJECT_ERASED
    assert erasure.nonpersonal is not None
    assert erasure.nonpersonal["subject_ref"] == f"sub_{desk.ledger.subject_ref('patient:A').hex()}"


def test_subscribers_learn_of_erasures_if_their_filter_lets_them(subscribe: Callable[..., Desk]) -> None:
    """Without a category, or with the ledger's own."""
    ledger = subscribe("all").ledger
    ledger.append(a_visit())
    ledger.erase("patient:A")
    desks = [
        Desk(ledger, "all"),
        subscribe("own", category=LEDGER_CATEGORY),
        subscribe("type", types=[SUBJECT_ERASED]),
        subscribe("patients", category="patient"),
    ]
    for each in desks:
        each.consume()

    assert [sorted(each.handled) for each in desks] == [[0, 1], [1], [1], [0]]


def test_erasures_are_spread_over_the_partitions_as_other_streams_are(subscribe: Callable[..., Desk]) -> None:
    """Their refs begin with the time, so it is the last byte that counts."""
    desk = subscribe(partitions=2, types=[SUBJECT_ERASED])
    for number in range(12):
        desk.ledger.append(a_visit(f"{number}"))
        desk.ledger.erase(f"patient:{number}")
    erasures = [row for row in desk.ledger.recorded() if row.envelope.event_type == SUBJECT_ERASED]

    assert {partition_of(row.envelope.stream_ref, 2) for row in erasures} == {0, 1}


def test_a_consumer_that_stops_leaves_nothing_undone_and_nothing_leased(desk: Desk) -> None:
    """It is asked before each event; what was handled is acknowledged, the rest is free at once."""
    desk.ledger.append(*(a_fact() for _ in range(5)))
    ledger = desk.ledger
    stop = lambda: len(desk.handled) >= 2  # noqa: E731 - read aloud it is a condition
    consume(ledger.deps, ledger.ledger_id, NAME, desk.note, consumer=A, stop=stop)

    assert desk.handled == [0, 1]
    assert positions(desk.fetch(B)) == [2, 3, 4]


def test_a_long_batch_is_acknowledged_on_the_way(desk: Desk) -> None:
    """So that a lease need only be longer than one event takes."""
    desk.ledger.append(*(a_fact() for _ in range(6)))

    def slow(event: OpenedEvent) -> None:
        desk.note(event)
        desk.later(20)
        assert desk.fetch(B) is None

    desk.consume(slow)
    assert desk.handled == list(range(6))


def test_a_handler_that_breaks_off_gives_the_partition_back(desk: Desk) -> None:
    """An interrupt is no failure of the event."""
    desk.ledger.append(a_fact())

    def interrupted(_: OpenedEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.consume(interrupted)
    assert desk.status().partitions[0].cursor.tries == 0
    assert positions(desk.fetch(B)) == [0]


def test_a_vault_that_is_down_leaves_nothing_leased(desk: Desk) -> None:
    """And parks nothing: it is not the event's fault."""
    desk.ledger.append(a_visit())

    class VaultDownError(Exception):
        pass

    class Down:
        def look_up_keys(self, *_: object, **__: object) -> object:
            raise VaultDownError

    broken = replace(desk, ledger=desk.ledger.with_parts(vault=Down()))
    with pytest.raises(VaultDownError):
        broken.consume()
    assert positions(desk.fetch(B)) == [0]
    assert desk.status().partitions[0].cursor.tries == 0


def test_a_rare_event_is_found_behind_many_that_do_not_match(
    subscribe: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded steps, each of which moves the cursor on; one fetch goes through them all."""
    monkeypatch.setattr("ledger.services.following.delivery.WINDOW", 7)
    desk = subscribe(partitions=2, types=["Rare"])
    desk.ledger.append(*(a_fact(f"ward-{number}") for number in range(50)))
    assert desk.fetch() is None
    assert {partition.behind for partition in desk.status().partitions} == {0}
    desk.ledger.append(*(a_fact(f"ward-{number}") for number in range(50)), a_fact(type="Rare"))

    assert positions(desk.fetch()) == [100]


def test_a_subscription_that_is_made_again_begins_anew(desk: Desk, subscribe: Callable[..., Desk]) -> None:
    """Who consumed the old one has lost its lease, and moves nothing of the new."""
    desk.ledger.append(a_fact(), a_fact())
    desk.fail_for_good(0)
    desk.ledger.append(a_fact("ward-1"))
    old = desk.fetched(lease=3600)
    remove_subscription(desk.ledger.deps, desk.ledger.ledger_id, NAME)
    with pytest.raises(NotFoundError):
        desk.fetch()
    subscribe(partitions=1)

    assert old.replay is False
    with pytest.raises(LeaseLostError):
        desk.acknowledge(old)
    assert desk.parked() == []
    assert positions(desk.fetch()) == [0, 1, 2]


@pytest.mark.parametrize("moment", ["scanned", "passed"])
def test_a_fetch_of_the_old_subscription_moves_nothing_of_the_new(
    subscribe: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Even when the new one is made between two of its steps, with another filter and the cursors at the same place."""
    desk = subscribe(partitions=1, types=["Opened"] if moment == "scanned" else ["Rare"])
    ledger = desk.ledger
    ledger.append(a_fact(), a_fact(type="Rare" if moment == "scanned" else "Opened"))
    made = itertools.count()

    def scan_and_replace(*arguments: Any) -> Any:
        step = scan(*arguments)
        if next(made) == 0:
            remove_subscription(ledger.deps, ledger.ledger_id, NAME)
            subscribe(partitions=1)
        return step

    monkeypatch.setattr("ledger.services.following.delivery.scan", scan_and_replace)

    assert positions(desk.fetch()) in ([], [0, 1])
    monkeypatch.undo()
    desk.later(MINUTE + 1)
    assert positions(desk.fetch()) == [0, 1]


def test_what_there_is_not_is_not_found(desk: Desk) -> None:
    """By whatever way it is asked for."""
    nobody = Desk(desk.ledger, "nobody")
    batch = Batch(0, -1, 0, 0, replay=False, events=())
    asking: list[Callable[[], object]] = [
        nobody.fetch,
        lambda: nobody.acknowledge(batch),
        lambda: nobody.fail(batch, 0),
        nobody.status,
        nobody.parked,
        nobody.replay,
        lambda: restart_subscription(desk.ledger.deps, desk.ledger.ledger_id, "nobody"),
        lambda: remove_subscription(desk.ledger.deps, desk.ledger.ledger_id, "nobody"),
    ]
    for ask in asking:
        with pytest.raises(NotFoundError):
            ask()
    with pytest.raises(InvalidError):
        desk.acknowledge(replace(batch, partition=1))


def test_only_what_was_delivered_can_fail(subscribe: Callable[..., Desk]) -> None:
    """Else an event that nobody has seen would be parked."""
    desk = subscribe(partitions=2, max_tries=1, types=["Opened"])
    desk.ledger.append(*(a_fact(f"ward-{number}") for number in range(20)), a_fact(type="Closed"))
    batch = desk.fetched()
    others = sorted(set(range(22)) - set(positions(batch)))
    for position in others:
        with pytest.raises(InvalidError):
            desk.fail(batch, position)

    assert desk.parked() == []
    assert desk.fail(batch, positions(batch)[0]).outcome == "parked"


def crashing(handled: list[int], at: Iterator[int]) -> Callable[[OpenedEvent], None]:
    """A handler in a process that dies at some of its calls."""
    deaths = set(itertools.islice(at, 8))
    calls = itertools.count()

    def handle(event: OpenedEvent) -> None:
        if next(calls) in deaths:
            raise KeyboardInterrupt
        handled.append(event.recorded.position)

    return handle


def test_consumers_that_die_anywhere_leave_nothing_out(subscribe: Callable[..., Desk]) -> None:
    """At least once, and in order within a stream, whoever takes over."""
    desk = subscribe(partitions=3)
    for number in range(80):
        desk.ledger.append(a_fact(f"ward-{number % 11}"))
    handle = crashing(desk.handled, iter(range(3, 80, 9)))
    while True:
        try:
            desk.consume(handle, uuid4())
            break
        except KeyboardInterrupt:
            # Dead, without a word: its lease has to run out.
            desk.later(MINUTE)

    assert set(desk.handled) == set(range(80))
    assert in_order_within_streams(desk.ledger, desk.handled)


def test_nothing_of_a_subscription_is_personal(desk: Desk) -> None:
    """What is stored of parked messages and failures are positions, refs and words (I5)."""
    desk.ledger.append(a_visit("kanarie"))
    desk.fail_for_good(0)
    statuses = list_subscriptions(desk.ledger.deps, desk.ledger.ledger_id)
    messages = subscriptions.list_parked(desk.ledger.deps, desk.ledger.ledger_id, NAME).messages

    assert "kanarie" not in repr((statuses, messages))
    assert "address" not in repr((statuses, messages))
