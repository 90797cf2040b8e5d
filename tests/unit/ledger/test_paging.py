"""A page ends before it grows too large, and all pages together are the whole answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ledger.services.timetravel.paging import PAGE_BYTES, STREAMS_AT_FIRST, fill_page, json_size
from tests.support.streams import OBJECTS

SIZES = st.integers(0, 200) | st.integers(0, PAGE_BYTES // 4) | st.integers(0, 3 * PAGE_BYTES)


@given(st.lists(SIZES, max_size=300))
def test_pages_are_as_large_as_they_may_be_and_leave_nothing_out(sizes: list[int]) -> None:
    """Whatever the sizes: each page ends because the next item would be too much, or has one item alone."""
    refs = [number.to_bytes(2) for number in range(len(sizes))]
    size_of = dict(zip(refs, sizes, strict=True))

    def make(some: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {ref: ref for ref in some}

    pages, begin = [], 0
    while begin < len(refs):
        page = fill_page(refs[begin:], make, size_of.__getitem__)
        assert page
        begin += len(page)
        total = sum(size_of[ref] for ref in page)
        assert total <= PAGE_BYTES or len(page) == 1
        assert begin == len(refs) or total + sizes[begin] > PAGE_BYTES or total >= PAGE_BYTES
        pages.append(page)

    assert [ref for page in pages for ref in page] == refs
    assert fill_page([], make, size_of.__getitem__) == {}


def test_about_a_page_is_in_memory_at_a_time() -> None:
    """After the first few streams, no more are worked out than are expected to fit."""
    asked: list[int] = []

    def make(some: Sequence[bytes]) -> Mapping[bytes, int]:
        asked.append(len(some))
        return dict.fromkeys(some, PAGE_BYTES // 50)

    page = fill_page([number.to_bytes(2) for number in range(1000)], make, lambda size: size)

    assert len(page) == 50
    assert asked == [STREAMS_AT_FIRST, 42, 1]


@given(OBJECTS)
def test_a_size_is_never_less_than_what_is_sent(value: object) -> None:
    """Which is UTF-8."""
    assert json_size(value) >= len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
