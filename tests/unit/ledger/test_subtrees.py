"""A tree that is built in pieces is the tree that is built leaf by leaf."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.fingerprint import MODULUS, fingerprint
from ledger.domain.merkle import extend_frontier
from ledger.domain.subtrees import extend_at_once, join
from ledger.domain.verdicts import MOST_LISTED, Finding, Findings, at, worst


def leaves(first: int, number: int) -> list[bytes]:
    """The hashes of made-up leaves."""
    return [sha256(index.to_bytes(8, "big")).digest() for index in range(first, first + number)]


@given(st.integers(0, 300), st.integers(0, 700))
def test_many_leaves_at_once(size: int, number: int) -> None:
    """Whatever the tree had before."""
    before = extend_frontier(0, (), leaves(0, size))[1]
    further = leaves(size, number)
    assert extend_at_once(size, before, further) == extend_frontier(size, before, further)


@given(st.integers(0, 20), st.integers(0, 6), st.data())
def test_ranges_that_were_hashed_apart(number: int, height: int, data: st.DataObject) -> None:
    """A tree of so many ranges, and one more of any size up to theirs."""
    width = 1 << height
    size, further = number * width, data.draw(st.integers(0, width))
    before = extend_frontier(0, (), leaves(0, size))[1]
    apart = extend_frontier(0, (), leaves(size, further))[1]
    assert join(size, before, further, apart) == extend_frontier(0, (), leaves(0, size + further))


def test_what_is_no_subtree_cannot_be_joined() -> None:
    """Its hashes would stand for leaves of nobody."""
    with pytest.raises(ValueError, match="do not begin"):
        join(3, extend_frontier(0, (), leaves(0, 3))[1], 2, extend_frontier(0, (), leaves(3, 2))[1])


RECORDS = st.lists(st.binary(max_size=3), max_size=8)


@given(RECORDS, RECORDS)
def test_fingerprints_are_equal_exactly_for_the_same_records(one: list[bytes], other: list[bytes]) -> None:
    """In any order; how often each is there counts."""
    assert (fingerprint(b"k", one) == fingerprint(b"k", other)) == (sorted(one) == sorted(other))


@given(RECORDS, RECORDS)
def test_fingerprints_of_parts_add_up(one: list[bytes], other: list[bytes]) -> None:
    """So the parts may be read by anybody."""
    assert (fingerprint(b"k", one) + fingerprint(b"k", other)) % MODULUS == fingerprint(b"k", one + other)


def test_the_key_decides_the_fingerprint() -> None:
    """Who does not know it can aim at none."""
    assert fingerprint(b"k", [b"a"]) != fingerprint(b"l", [b"a"])


def test_the_worst_verdict_is_said() -> None:
    """Of an event without parts, that it is intact."""
    assert worst(["intact", "erased", "tampered", "missing key"]) == "tampered"
    assert worst(["restricted", "erased"]) == "erased"
    assert worst([]) == "intact"


def test_findings_are_all_counted_and_the_first_are_kept() -> None:
    """Memory has a bound; whatever is not kept may explain a tree that differs."""
    findings = Findings()
    findings.add(*(at(position, "wrong") for position in range(MOST_LISTED)))
    assert not findings.explain(0, MOST_LISTED)
    other = Findings()
    other.add(Finding(5, 5, "wrong", "tampered"))
    findings.take(other)
    assert (findings.number, len(findings.listed)) == (MOST_LISTED + 1, MOST_LISTED)
    assert findings.explain(7, 7)
    assert (other.explain(0, 5), other.explain(6, 9)) == (True, False)
