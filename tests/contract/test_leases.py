"""What a lease of a subscription's partition allows: to say what became of what was delivered under it, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.errors import InvalidError, LeaseLostError
from ledger.services.following import delivery
from ledger.services.following.subscriptions import remove_subscription
from tests.support.desk import MINUTE, NAME, A, B, Desk, positions, subscribe_to
from tests.support.ledgers import Ledger, a_fact


@pytest.fixture
def desk(ledger: Ledger) -> Desk:
    """A subscription to everything, in one partition, of a ledger with six events."""
    made = subscribe_to(ledger, partitions=1, max_tries=3)
    ledger.append(*(a_fact(f"ward-{number % 2}") for number in range(6)))
    return made


def test_what_was_not_delivered_cannot_be_acknowledged(desk: Desk) -> None:
    """Nor failed: what lies between would never be delivered to anybody."""
    batch = desk.fetched(limit=2)
    with pytest.raises(InvalidError):
        desk.acknowledge(batch, position=2)
    with pytest.raises(InvalidError):
        desk.fail(batch, 2)
    desk.acknowledge(batch, position=0, lease=MINUTE)
    desk.acknowledge(batch, position=1)
    desk.consume()
    assert desk.handled == [2, 3, 4, 5]


def test_the_newest_batch_of_a_consumer_counts(desk: Desk) -> None:
    """Whoever fetches again, because the answer got lost, has leased what came then, and no more."""
    lost = desk.fetched(limit=6)
    batch = desk.fetched(limit=2)
    with pytest.raises(InvalidError):
        desk.acknowledge(lost)
    desk.acknowledge(batch)
    desk.consume()
    assert desk.handled == [2, 3, 4, 5]


def test_nothing_is_acknowledged_past_a_failure(desk: Desk) -> None:
    """Whether the event is tried again or parked, the lease is over with it."""
    for _ in range(3):
        batch = desk.fetched()
        desk.fail(batch, 2)
        with pytest.raises((LeaseLostError, InvalidError)):
            desk.acknowledge(batch)
        desk.later(MINUTE)
    assert [position for position, *_ in desk.parked()] == [2]
    desk.consume()
    assert desk.handled == [3, 5]
    assert [position for position, *_ in desk.parked()] == [2, 4]


def test_a_replay_is_acknowledged_as_a_replay(desk: Desk) -> None:
    """And only as far as it was delivered; said as if it were none, it moves nothing."""
    desk.fail_for_good(0)
    desk.consume()
    assert [position for position, *_ in desk.parked()] == [0, 2, 4]
    desk.replay()
    replayed = desk.fetched(limit=2)
    assert (replayed.replay, positions(replayed)) == (True, [0, 2])
    with pytest.raises(InvalidError):
        desk.acknowledge(replayed, position=4)
    desk.ledger.append(a_fact("ward-1"))
    with pytest.raises(InvalidError):
        desk.acknowledge(replace(replayed, replay=False), position=6)
    desk.acknowledge(replayed)
    assert positions(desk.fetched()) == [4]


def test_an_acknowledgement_can_be_repeated(desk: Desk) -> None:
    """Its answer may have been lost; of a replay, too."""
    batch = desk.fetched(limit=2)
    for _ in range(2):
        desk.acknowledge(batch)
    desk.fail_for_good(2)
    desk.replay()
    replayed = desk.fetched()
    assert replayed.replay
    for _ in range(2):
        desk.acknowledge(replayed)


def test_what_was_replayed_is_not_delivered_again(ledger: Ledger) -> None:
    """Messages were put aside behind a batch whose consumer died: they wait until the cursor has come to them."""
    desk = subscribe_to(ledger, partitions=1, max_tries=1)
    ledger.append(a_fact("b-1"))
    desk.fail(desk.fetched(), 0)
    ledger.append(a_fact("a-1"), a_fact("b-1"), a_fact("b-1"))
    assert positions(desk.fetched()) == [1]
    assert [position for position, *_ in desk.parked()] == [0, 2, 3]
    desk.later(2 * MINUTE)
    desk.replay()
    desk.consume(consumer=B)
    assert desk.handled == [0, 1, 2, 3]
    assert desk.parked() == []


def test_a_consumer_that_keeps_its_lease_looks_on_behind_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not for it is passed over under its own lease: it neither waits for that to end nor spins."""
    monkeypatch.setattr(delivery, "WINDOW", 3)
    ledger = desk.ledger
    wanted = subscribe_to(ledger, "wanted", partitions=1, types=["Wanted"])
    ledger.append(a_fact("ward-1", type="Wanted"), *(a_fact("ward-1") for _ in range(20)))
    batch = wanted.fetched(lease=MINUTE)
    wanted.acknowledge(batch, lease=MINUTE)
    looks = count_looks(monkeypatch)
    assert wanted.fetch() is None
    assert wanted.fetch(B) is None
    assert len(looks) < 20
    ledger.append(a_fact("ward-1", type="Wanted"))
    assert positions(wanted.fetched()) == [27]


def test_a_subscription_that_is_made_anew_is_seen_while_looking(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that goes through a long history notices that its subscription is another one by now."""
    monkeypatch.setattr(delivery, "WINDOW", 1)
    ledger = desk.ledger
    subscribe_to(ledger, "wanted", partitions=1, types=["Wanted"])
    looks = count_looks(monkeypatch)
    take = delivery._Turn.take

    def change_meanwhile(turn: delivery._Turn) -> delivery.Batch | None:
        if len(looks) == 2:
            remove_subscription(ledger.deps, ledger.ledger_id, "wanted")
            subscribe_to(ledger, "wanted", partitions=1, types=["Opened"])
        return take(turn)

    monkeypatch.setattr(delivery._Turn, "take", change_meanwhile)
    anew = Desk(ledger, "wanted")
    assert positions(anew.fetch() or anew.fetch()) == [0]
    assert len(looks) < 20


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each look that a fetch takes from now on."""
    looks: list[None] = []
    take = delivery._Turn.take

    def counted(turn: delivery._Turn) -> delivery.Batch | None:
        looks.append(None)
        return take(turn)

    monkeypatch.setattr(delivery._Turn, "take", counted)
    return looks


def test_looking_ends_in_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the history is; the next call goes on where this one stopped."""
    monkeypatch.setattr(delivery, "WINDOW", 1)
    monkeypatch.setattr(delivery, "_LONGEST_LOOK", 0.0)
    ledger = desk.ledger
    wanted = subscribe_to(ledger, "wanted", partitions=1, types=["Wanted"])
    ledger.append(a_fact("ward-1", type="Wanted"))
    batches = [wanted.fetch() for _ in range(8)]
    assert [positions(batch) for batch in batches][-2:] == [[6], [6]]
    assert batches[:6] == [None] * 6
    assert wanted.name != NAME
    assert wanted.fetch(A) is not None
