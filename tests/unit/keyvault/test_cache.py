"""The unwrap cache: it saves work and decides nothing."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from keyvault.cache import UnwrapCache
from keyvault.errors import NotAuthenticError


class Work:
    """Counts how often a wrap is really undone."""

    def __init__(self) -> None:
        self.times = 0

    def undo(self) -> bytes:
        self.times += 1
        return b"d" * 32


def test_the_same_wrap_is_undone_once() -> None:
    """Within its lifetime an entry saves the provider's work."""
    cache, work = UnwrapCache(), Work()
    for _ in range(3):
        assert cache.unwrap(b"id", b"blob", b"aad", work.undo) == b"d" * 32
    assert work.times == 1


@pytest.mark.parametrize(("blob", "aad"), [(b"other", b"aad"), (b"blob", b"other")])
def test_another_blob_or_row_is_undone_again(blob: bytes, aad: bytes) -> None:
    """I9: a row that was changed is not answered from the memory of what it was."""
    cache, work = UnwrapCache(), Work()
    cache.unwrap(b"id", b"blob", b"aad", work.undo)
    cache.unwrap(b"id", blob, aad, work.undo)
    assert work.times == 2


def test_entries_run_out() -> None:
    """After its lifetime an entry is gone from memory at the next use, whatever that is."""
    now = [0.0]
    cache, work = UnwrapCache(lifetime=60.0, clock=lambda: now[0]), Work()
    cache.unwrap(b"id", b"blob", b"", work.undo)
    now[0] = 59.9
    cache.unwrap(b"id", b"blob", b"", work.undo)
    assert work.times == 1
    now[0] = 60.0
    cache.unwrap(b"other", b"blob", b"", work.undo)
    assert len(cache) == 1
    cache.unwrap(b"id", b"blob", b"", work.undo)
    assert work.times == 3


def test_the_oldest_make_room() -> None:
    """The cache never holds more than its bound."""
    cache, work = UnwrapCache(most=2), Work()
    for name in (b"1", b"2", b"3"):
        cache.unwrap(name, b"blob", b"", work.undo)
    assert len(cache) == 2
    cache.unwrap(b"3", b"blob", b"", work.undo)
    assert work.times == 3


def test_forgetting_and_failing_leave_nothing() -> None:
    """What is forgotten is undone anew, and a failure is never remembered."""
    cache, work = UnwrapCache(), Work()
    cache.unwrap(b"id", b"blob", b"", work.undo)
    cache.forget([b"id", b"unknown"])
    assert len(cache) == 0

    def fail() -> bytes:
        raise NotAuthenticError("no")

    with pytest.raises(NotAuthenticError):
        cache.unwrap(b"id", b"blob", b"", fail)
    assert cache.unwrap(b"id", b"blob", b"", work.undo) == b"d" * 32


def test_each_use_is_noted() -> None:
    """Whether the key was remembered, for the metrics."""
    noted: list[bool] = []
    cache, work = UnwrapCache(note=noted.append), Work()
    for blob in (b"blob", b"blob", b"other"):
        cache.unwrap(b"id", blob, b"", work.undo)
    assert noted == [False, True, False]


class Row(NamedTuple):
    """A row with a wrap in it."""

    place: str
    wrap: bytes


def undo(row: Row) -> str:
    """What stands in a row, and nothing in a damaged one."""
    if row.wrap == b"damaged":
        raise NotAuthenticError("no")
    return f"{row.place}: {row.wrap!r}"


def test_many_rows_are_opened_at_once_and_each_only_once() -> None:
    """What is remembered of a batch is not undone again; the answers stand in the order of the rows."""
    noted: list[bool] = []
    cache, undone = UnwrapCache(note=noted.append), list[Row]()

    def work(row: Row) -> str:
        undone.append(row)
        return undo(row)

    first, second, other = Row("a", b"1"), Row("b", b"2"), Row("b", b"3")
    assert cache.opened([("a", first)], work) == ["a: b'1'"]
    assert cache.opened([("b", second), ("a", first)], work) == ["b: b'2'", "a: b'1'"]
    assert cache.opened([("a", first), ("b", second)], work) == ["a: b'1'", "b: b'2'"]
    assert cache.opened([("b", other), ("a", first)], work) == ["b: b'3'", "a: b'1'"]
    assert undone == [first, second, other]
    assert noted == [False, False, True, True, True, False, True]


@pytest.mark.parametrize("changed", [Row("elsewhere", b"1"), Row("a", b"other")])
def test_a_row_that_was_changed_is_opened_again(changed: Row) -> None:
    """I9: whichever field was changed, the answer is what that very row holds."""
    cache = UnwrapCache()
    cache.opened([("a", Row("a", b"1"))], undo)
    assert cache.opened([("a", changed)], undo) == [undo(changed)]


def test_a_batch_with_a_damaged_row_fails_and_remembers_the_others() -> None:
    """The exception passes through, and of what it is about nothing is kept."""
    cache = UnwrapCache()
    with pytest.raises(NotAuthenticError):
        cache.opened([("a", Row("a", b"1")), ("b", Row("b", b"damaged"))], undo)
    assert cache.recent(["a", "b"]) == [(Row("a", b"1"), "a: b'1'")]


def test_rows_of_a_batch_run_out_too() -> None:
    """What was opened a lifetime ago is opened again, however often it was used since."""
    now = [0.0]
    cache = UnwrapCache(lifetime=60.0, clock=lambda: now[0])
    cache.opened([("a", Row("a", b"1"))], undo)
    now[0] = 59.9
    cache.opened([("a", Row("a", b"1")), ("b", Row("b", b"2"))], undo)
    assert [row for row, _ in cache.recent(["a", "b"])] == [Row("a", b"1"), Row("b", b"2")]
    now[0] = 60.0
    assert [row for row, _ in cache.recent(["a", "b"])] == [Row("b", b"2")]
    assert len(cache) == 1
    cache.forget(["b"])
    assert cache.recent(["a", "b"]) == []
