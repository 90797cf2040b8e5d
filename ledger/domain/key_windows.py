"""Which events of a stretch of the log have a part under a key, as bits; and how many events several keys have, from
such bits and from what is read beside them.

Bit n stands for the position ``first + n``. A window begins at a multiple of ``Shape.window`` and covers the positions
from there up to some point; it never says anything of those behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """``window``: positions that one window covers at most. ``step``: by so many positions it grows; a divisor. Of
    each ``stretch`` of a step, a divisor too, one event is looked at, and a key that ``fewest`` of these have is worth
    a window: fewer events are counted as quickly one by one."""

    window: int
    step: int
    stretch: int
    fewest: int


SHAPE: Final = Shape(window=1 << 16, step=1 << 12, stretch=1 << 3, fewest=4)

Range = tuple[int, int]
"""Positions from the first number on and below the second."""


@dataclass(frozen=True, slots=True)
class Window:
    """The positions from ``first`` on and below ``beyond`` at which a key is used."""

    key_id: bytes
    first: int
    beyond: int
    bits: int


@dataclass(frozen=True, slots=True)
class Lack:
    """Where another key's window begins as this one's does and goes further: there this key's positions are needed."""

    key_id: bytes
    first: int
    beyond: int


@dataclass(frozen=True, slots=True)
class Covered:
    """What the windows of some keys say of the positions from ``first`` on and below ``beyond``, but for ``lacks``."""

    first: int
    beyond: int
    bits: int
    lacks: tuple[Lack, ...]


def bits_of(positions: Iterable[int], first: int, beyond: int) -> int:
    """Positions as bits. Raises ``ValueError`` for one that lies outside."""
    flags = bytearray((beyond - first + 7) // 8)
    for position in positions:
        if not first <= position < beyond:
            raise ValueError("a position outside of its window")
        flags[(position - first) >> 3] |= 1 << ((position - first) & 7)
    return int.from_bytes(flags, "little")


def encode_bits(bits: int, first: int, beyond: int) -> bytes:
    """What is sealed of a window."""
    return zlib.compress(bits.to_bytes((beyond - first + 7) // 8, "little"), _LEVEL)


def decode_bits(body: bytes, first: int, beyond: int) -> int:
    """Undo ``encode_bits``. Raises ``ValueError`` for what it cannot have given."""
    length = (beyond - first + 7) // 8
    unpacking = zlib.decompressobj()
    try:
        flags = unpacking.decompress(body, length + 1)
    except zlib.error:
        raise ValueError("not the bits of a window") from None
    bits = int.from_bytes(flags, "little")
    if len(flags) != length or not unpacking.eof or bits >> (beyond - first):
        raise ValueError("not the bits of a window")
    return bits


def cover(windows: Sequence[Window], key_ids: Collection[bytes]) -> Iterator[Covered]:
    """What the windows say of these keys together, in order. ``windows``: in order of ``first``.

    Windows that begin within another one are left out: their positions are read beside.
    """
    reached = 0
    for first, group in groupby(windows, key=lambda window: window.first):
        if first < reached:
            continue
        ends: dict[bytes, int] = {}
        bits = 0
        for window in group:
            ends[window.key_id] = window.beyond
            bits |= window.bits
        reached = max(ends.values())
        lacks = [Lack(key_id, ends.get(key_id, first), reached) for key_id in sorted(key_ids)]
        yield Covered(first, reached, bits, tuple(lack for lack in lacks if lack.first < reached))


def joined(ranges: Iterable[Range], most: int) -> Iterator[Range]:
    """Ranges in order, those that follow on each other in one, as long as it has at most so many positions."""
    last: Range | None = None
    for first, beyond in ranges:
        if last is not None and last[1] == first and beyond - last[0] <= most:
            last = last[0], beyond
            continue
        if last is not None:
            yield last
        last = first, beyond
    if last is not None:
        yield last
