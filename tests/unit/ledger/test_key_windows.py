"""The bits from which events are counted: whatever the windows cover, what they say and what is read beside them is
exactly what there is."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.key_windows import SHAPE, Range, Window, bits_of, cover, decode_bits, encode_bits, joined

WIDTH = 16
SIZE = 5 * WIDTH
KEYS = (b"a", b"b", b"c")

uses = st.fixed_dictionaries({key_id: st.frozensets(st.integers(0, SIZE - 1)) for key_id in KEYS})
"""Key → the positions at which it is used."""

places = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 4), st.integers(1, WIDTH)), unique_by=lambda place: place[:2]
)
"""Which keys have windows, in which stretches, and how far they go."""


@given(st.integers(0, 2**40), st.integers(1, 200), st.data())
def test_bits_come_back(first: int, length: int, data: st.DataObject) -> None:
    """As the same positions, from whatever was sealed of them."""
    positions = data.draw(st.frozensets(st.integers(first, first + length - 1)))
    bits = bits_of(positions, first, first + length)
    assert decode_bits(encode_bits(bits, first, first + length), first, first + length) == bits
    assert {first + number for number in range(length) if bits >> number & 1} == positions


def test_a_whole_window_is_small() -> None:
    """What is read for a million events fits into what anybody can wait for, even if chance has strewn them."""
    half = int.from_bytes(bytes(index * 167 % 251 for index in range(SHAPE.window // 8)), "little")
    assert len(encode_bits(half, 0, SHAPE.window)) < 8300


@pytest.mark.parametrize("position", [-1, 3, 8, 1000])
def test_a_position_outside_is_refused(position: int) -> None:
    """A window says nothing of what lies outside."""
    with pytest.raises(ValueError, match="outside"):
        bits_of([5, position], 4, 8)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        zlib.compress(b""),
        zlib.compress(b"\x01"),
        zlib.compress(b"\x01\x00\x00"),
        zlib.compress(b"\x00\x10"),
        zlib.compress(b"\x01\x00")[:-1],
        zlib.compress(bytes(10_000_000)),
    ],
)
def test_what_are_no_bits_of_a_window_is_refused(body: bytes) -> None:
    """Too few, too many, or of positions outside of it; and nobody unpacks more than a window can have."""
    with pytest.raises(ValueError, match="not the bits"):
        decode_bits(body, 0, 12)


def windows_of(used: dict[bytes, frozenset[int]], where: list[tuple[bytes, int, int]]) -> list[Window]:
    """The windows at these places, in order."""
    made = []
    for key_id, number, length in where:
        first, beyond = number * WIDTH, number * WIDTH + length
        here = [position for position in used[key_id] if first <= position < beyond]
        made.append(Window(key_id, first, beyond, bits_of(here, first, beyond)))
    return sorted(made, key=lambda window: window.first)


def counted(used: dict[bytes, frozenset[int]], windows: list[Window], keys: tuple[bytes, ...]) -> int:
    """As the service counts: what is covered with what is lacking there, and all the rest one by one."""
    total = reached = 0
    rest: set[int] = set()
    everything = frozenset[int]().union(*(used[key_id] for key_id in keys))
    for covered in cover(windows, keys):
        assert covered.first >= reached
        bits = covered.bits
        for lack in covered.lacks:
            here = [position for position in used[lack.key_id] if lack.first <= position < lack.beyond]
            bits |= bits_of(here, covered.first, covered.beyond)
        total += bits.bit_count()
        rest |= {position for position in everything if reached <= position < covered.first}
        reached = covered.beyond
    return total + len(rest | {position for position in everything if position >= reached})


@given(uses, places)
def test_every_mix_of_windows_gives_the_same_number(
    used: dict[bytes, frozenset[int]], where: list[tuple[bytes, int, int]]
) -> None:
    """An event under several keys counts once, whichever of them have windows there."""
    windows = windows_of(used, where)
    assert counted(used, windows, KEYS) == len(frozenset[int]().union(*used.values()))
    only = [window for window in windows if window.key_id == b"a"]
    assert counted(used, only, (b"a",)) == len(used[b"a"])


@given(uses, places, st.integers(1, SIZE - 1))
def test_windows_that_overlap_are_not_counted_twice(
    used: dict[bytes, frozenset[int]], where: list[tuple[bytes, int, int]], first: int
) -> None:
    """Of another width they begin within one another; the number stays what it is."""
    here = [position for position in used[b"b"] if position >= first]
    windows = [*windows_of(used, where), Window(b"b", first, SIZE, bits_of(here, first, SIZE))]
    windows = list({(window.key_id, window.first): window for window in windows}.values())
    windows.sort(key=lambda window: window.first)
    assert counted(used, windows, KEYS) == len(frozenset[int]().union(*used.values()))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9))), st.integers(9, 40))
def test_ranges_are_joined_and_stay_the_same_positions(gaps: list[tuple[int, int]], most: int) -> None:
    """Each position once, in order, and no more of them at once than asked for."""
    ranges: list[Range] = []
    at = 0
    for gap, length in gaps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    made = list(joined(ranges, most))
    expected = [position for first, beyond in ranges for position in range(first, beyond)]
    assert [position for first, beyond in made for position in range(first, beyond)] == expected
    assert all(beyond - first <= most for first, beyond in made)
    # None could have been joined to the one before it.
    assert all(one[1] != two[0] or two[1] - one[0] > most - 9 for one, two in pairwise(made))
