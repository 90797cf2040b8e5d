"""Appends that wait for one ledger's head share a transaction, and nothing else: on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import JsonObject
from ledger.errors import (
    IdConflictError,
    IntegrityError,
    InvalidError,
    StoreUnavailableError,
    StreamClosedError,
    SubjectErasedError,
    VersionConflictError,
)
from ledger.services.appending import group
from ledger.services.appending.append import AppendResult
from ledger.services.evolution.types import register_type
from tests.support.ledgers import PRIVACY_OFFICER, Backend, Ledger, a_fact, a_visit, new_event_id


class Crowd:
    """Appends that come while the first is held up: they are prepared together, and written together."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transactions = 0
        self.surveys = 0
        self.broken: Callable[[], None] | None = None
        self._inner = ledger
        self._free = threading.Event()
        self._begun = threading.Event()
        self.ledger = ledger.with_parts(store=self, vault=_Counted(self, ledger.deps.vault))
        self._results: dict[int, AppendResult | Exception] = {}
        self._threads: list[threading.Thread] = []
        monkeypatch.setattr(group, "_meetings", type(group._meetings)(group._Meeting))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner.deps.store, name)

    @contextmanager
    def locked_head(self, ledger_id: UUID) -> Iterator[Any]:
        """Counted; the first is held up."""
        with self._inner.deps.store.locked_head(ledger_id) as lock:
            self.transactions += 1
            if self._begun.is_set() and self.broken is not None:
                self.broken()
            yield lock

    def hold_up(self) -> None:
        """The first who asks the vault waits for the others to come, and they for the first to be done."""
        if not self._begun.is_set():
            self._begun.set()
            assert self._free.wait(30)
        elif threading.current_thread() is not self._threads[0]:
            self._threads[0].join(30)

    def come(self, *events: JsonObject) -> None:
        """Somebody appends, behind those who came before."""
        number = len(self._threads)
        thread = threading.Thread(target=self._append, args=(number, events))
        self._threads.append(thread)
        thread.start()
        if number == 0:
            assert self._begun.wait(30)
        else:
            while len(group._meetings[self.ledger.ledger_id].preparing._queue) < number:
                pass

    def _append(self, number: int, events: tuple[JsonObject, ...]) -> None:
        try:
            self._results[number] = self.ledger.append(*events)
        except Exception as error:  # noqa: BLE001 - it is looked at
            self._results[number] = error

    def end(self) -> list[AppendResult | Exception]:
        """What became of each but the first."""
        self._free.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return [self._results[number] for number in range(1, len(self._threads))]


class _Counted:
    """A vault whose first reservation is held up, and of which reservations are counted."""

    def __init__(self, crowd: Crowd, vault: Any) -> None:
        self._crowd = crowd
        self._vault = vault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def reserve(self, *arguments: Any, **options: Any) -> Any:
        self._crowd.hold_up()
        self._crowd.surveys += 1
        return self._vault.reserve(*arguments, **options)


@pytest.fixture
def crowd(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    """Ready to come, in a ledger where A, B and the ward are known."""
    ledger.append(a_visit("A"), a_visit("B"), a_fact())
    return Crowd(ledger, monkeypatch)


def positions(result: AppendResult | Exception) -> list[int]:
    """Where the events are."""
    assert isinstance(result, AppendResult), result
    return [event.position for event in result.events]


def test_those_who_wait_share_a_transaction_and_a_look_at_the_vault(crowd: Crowd) -> None:
    """In the order in which they came; each gets its own places."""
    crowd.come(a_fact())
    for name in "ABABAB":
        crowd.come(a_visit(name), a_fact())
    results = crowd.end()
    assert [positions(result) for result in results] == [[4 + 2 * at, 5 + 2 * at] for at in range(6)]
    assert (crowd.transactions, crowd.surveys) == (2, 2)
    crowd.ledger.assert_intact()


def test_each_keeps_its_own_error(crowd: Crowd) -> None:
    """All or nothing is said of one append, not of those that it shares a transaction with."""
    ledger = crowd.ledger
    known = a_visit("A", id=new_event_id())
    crowd._inner.append(known)
    crowd._inner.append(a_visit("C"))
    crowd._inner.erase("patient:C")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Counted", 1, schema=schema), PRIVACY_OFFICER)
    crowd.come(a_fact())
    twin = a_visit("A", id=new_event_id())
    for events in (
        [a_visit("A")],
        [a_fact(), a_visit("B", expected_version=7)],
        [a_visit("C")],
        [a_visit("A", type="Counted", data={})],
        [{**known, "data": {"crp": 1}}],
        [known],
        [twin],
        [twin],
        [a_visit("B", expected_version=1)],
        [a_visit("B", expected_version=1)],
        [a_visit("D"), a_fact()],
    ):
        crowd.come(*events)
    results = crowd.end()
    wrong = {number: type(result) for number, result in enumerate(results) if isinstance(result, Exception)}
    assert wrong == {
        1: VersionConflictError,
        2: SubjectErasedError,
        3: InvalidError,
        4: IdConflictError,
        9: VersionConflictError,
    }
    said = [result for result in results if isinstance(result, AppendResult)]
    assert [result.duplicate for result in said] == [False, True, False, True, False, False]
    assert said[2].events == said[3].events
    # What was refused has left nothing behind.
    recorded = {event.position for result in said for event in result.events if not result.duplicate}
    assert len(recorded) == 5
    assert ledger.size() == 7 + 5
    ledger.assert_intact()


def test_versions_go_on_within_a_transaction(crowd: Crowd) -> None:
    """Each sees its streams as those before it leave them."""
    crowd.come(a_fact())
    for version in (1, 2, 3, 3, 4):
        crowd.come(a_visit("A", expected_version=version))
    results = crowd.end()
    assert [type(result) is AppendResult for result in results] == [True, True, True, False, True]
    assert crowd.transactions == 2


def test_a_stream_that_ends_has_ended_for_those_behind(crowd: Crowd) -> None:
    """Also where they share a transaction."""
    ledger = crowd.ledger
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Closed", 1, closes_stream=True), PRIVACY_OFFICER)
    crowd.come(a_fact())
    crowd.come(a_visit("A"))
    crowd.come(a_visit("A", type="Closed"))
    crowd.come(a_visit("A"))
    crowd.come(a_visit("B"))
    results = crowd.end()
    assert [type(result) for result in results] == [AppendResult, AppendResult, StreamClosedError, AppendResult]
    ledger.assert_intact()


def test_who_comes_first_owns_a_stream_that_several_begin(crowd: Crowd) -> None:
    """The owner of a stream is the subject of its first event, whoever shares the transaction."""
    crowd.come(a_fact())
    for name in ("X", "Y", "X", "Z"):
        crowd.come(a_visit(name, stream="case-1"))
    results = crowd.end()
    first = min(positions(result)[0] for result in results)
    assert [positions(result)[0] for result in results].index(first) == 0
    assert sorted(positions(result)[0] for result in results) == [4, 5, 6, 7]
    owner = crowd.ledger.deps.vault.find_streams(crowd.ledger.ledger_id, ["case-1"])["case-1"].owner_ref
    assert owner == crowd.ledger.subject_ref("patient:X")
    crowd.ledger.erase("patient:X")
    assert all(event.stream is None for event in crowd.ledger.query(after_position=3) if event.recorded.position < 8)
    crowd.ledger.assert_intact()


def test_what_fails_for_all_is_tried_one_by_one(crowd: Crowd) -> None:
    """Whose fault it was shows then, and the others do not suffer for it."""

    def poison() -> None:
        # The second is the shared one; of those by themselves it is the second again.
        if crowd.transactions in (2, 4):
            raise IntegrityError("one of them is poison")

    crowd.broken = poison
    crowd.come(a_fact())
    for event in (a_visit("A"), a_visit("B"), a_fact()):
        crowd.come(event)
    results = crowd.end()
    assert crowd.transactions == 5
    assert sorted(type(result).__name__ for result in results) == ["AppendResult", "AppendResult", "IntegrityError"]
    assert crowd.ledger.size() == 3 + 1 + 2
    crowd.ledger.assert_intact()


@pytest.mark.parametrize("persisted", [False, True], ids=["failed", "failed but persisted"])
def test_a_shared_commit_of_unknown_outcome_is_asked_again_by_each(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, persisted: bool
) -> None:
    """I4, I11: each is recorded once, and says that it was not before."""
    crowd.come(a_fact())
    for name in "ABA":
        crowd.come(a_visit(name))
    inner = crowd._inner.deps.store.locked_head
    failed: list[int] = []

    @contextmanager
    def flaky(ledger_id: UUID) -> Iterator[Any]:
        crowd.transactions += 1
        second = crowd.transactions == 2
        if second and not persisted:
            raise StoreUnavailableError("away")
        with inner(ledger_id) as lock:
            yield lock
        if second:
            failed.append(1)
            raise StoreUnavailableError("away")

    monkeypatch.setattr(crowd, "locked_head", flaky)
    results = crowd.end()
    assert sorted(positions(result)[0] for result in results) == [4, 5, 6]
    assert all(isinstance(result, AppendResult) and not result.duplicate for result in results)
    assert bool(failed) == persisted
    assert crowd.ledger.size() == 7
    crowd.ledger.assert_intact()


def test_a_large_append_is_prepared_by_itself_and_holds_nobody_up(crowd: Crowd) -> None:
    """What is sealing thousands of events does not keep small ones from the vault."""
    crowd.come(*(a_fact() for _ in range(group.SMALL + 1)))
    assert len(crowd._inner.append(a_visit("A")).events) == 1
    crowd.end()
    assert crowd.ledger.size() == 3 + 1 + group.SMALL + 1
    crowd.ledger.assert_intact()


def test_ledgers_do_not_wait_for_each_other(backend: Backend, crowd: Crowd) -> None:
    """Each has its own head."""
    crowd.come(a_fact())
    other = backend.new_ledger()
    other.append(a_fact())
    crowd.end()
    other.assert_intact()
