"""The Merkle tree in tiles of 256 hashes (https://c2sp.org/tlog-tiles), and proofs out of them (RFC 6962 §2.1).

A tile of level L holds the hashes of 256 neighbouring subtrees of 256^L leaves each. Every node between is computed
from them, so that a proof in a tree of any size reads a handful of tiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ledger.domain.merkle import EMPTY_ROOT, HASH_BYTES, TREE_SIZES, hash_node
from ledger.errors import IntegrityError

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
MOST_LEVELS: Final = 8
"""Levels that a tree of less than 2^63 leaves can have."""

_PATH: Final = re.compile(r"(?P<number>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?", re.ASCII)
_LEVEL: Final = re.compile(r"0|[1-9][0-9]?", re.ASCII)
_GROUP: Final = 1000

_Node = tuple[int, int]
"""(height, index) of a perfect subtree: the leaves from index·2^height on, 2^height of them."""
_Range = tuple[int, int]
"""The leaves from the first on, without the second. Always a subtree of some RFC 6962 tree."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The coordinates of a tile. ``width``: how many hashes it has, 1 to 256."""

    level: int
    number: int
    width: int

    @property
    def path(self) -> str:
        """Where it is served, below the log's prefix."""
        return f"tile/{self.level}/{number_path(self.number)}" + self.suffix

    @property
    def entries_path(self) -> str:
        """Where the leaves of a tile of level 0 are served."""
        return f"tile/entries/{number_path(self.number)}" + self.suffix

    @property
    def suffix(self) -> str:
        """What says that it is partial."""
        return "" if self.width == TILE_WIDTH else f".p/{self.width}"

    @property
    def first(self) -> int:
        """The index of its first hash within its level."""
        return self.number * TILE_WIDTH


ReadTiles = Callable[[Collection[Tile]], Mapping[Tile, bytes]]
"""Gives the hashes of each of these tiles, one after another. Raises when there is one that it cannot give."""


def number_path(number: int) -> str:
    """1234067 is ``x001/x234/067``."""
    groups = [f"{number % _GROUP:03}"]
    while number := number // _GROUP:
        groups.insert(0, f"x{number % _GROUP:03}")
    return "/".join(groups)


def parse_tile_path(level: str, rest: str) -> Tile:
    """Read ``<L>`` and ``<N>[.p/<W>]``, in the one way in which they are written. Raises ``ValueError``."""
    found = _PATH.fullmatch(rest)
    if _LEVEL.fullmatch(level) is None or found is None:
        raise ValueError("not the path of a tile")
    number = int(found["number"].replace("x", "").replace("/", ""))
    width = int(found["width"] or TILE_WIDTH)
    whole = found["width"] is None
    if number_path(number) != found["number"] or (width >= TILE_WIDTH) != whole or number >= TREE_SIZES:
        raise ValueError("not the path of a tile")
    return Tile(int(level), number, width)


def width_of(level: int, number: int, size: int) -> int:
    """How many hashes the tile of these coordinates has in a tree of ``size`` leaves; 0: there is no such tile."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - number * TILE_WIDTH))


def tile_root(hashes: bytes) -> bytes:
    """The root over the hashes of a full tile: one hash of the level above."""
    if len(hashes) != TILE_BYTES:
        raise IntegrityError("a full tile has another length")
    return _nodes_over(hashes)[TILE_HEIGHT][0]


def split_hashes(hashes: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [hashes[offset : offset + HASH_BYTES] for offset in range(0, len(hashes), HASH_BYTES)]


def root_from_tiles(read: ReadTiles, size: int) -> bytes:
    """The root of the tree of the first ``size`` leaves."""
    if size == 0:
        return EMPTY_ROOT
    return _Nodes(read, size, [(0, size)]).hash_of((0, size))


def inclusion_proof(read: ReadTiles, index: int, size: int) -> list[bytes]:
    """The proof that the leaf at ``index`` stands in the tree of ``size`` leaves (RFC 6962 §2.1.1)."""
    return inclusion_proofs(read, [index], size)[index]


def inclusion_proofs(read: ReadTiles, indices: Collection[int], size: int) -> dict[int, list[bytes]]:
    """The same for several leaves; what they have in common is read and hashed once."""
    if not all(0 <= index < size for index in indices):
        raise ValueError("an index is not below the size of the tree")
    paths = {index: _siblings(index, size) for index in indices}
    nodes = _Nodes(read, size, (sibling for path in paths.values() for sibling in path))
    return {index: [nodes.hash_of(sibling) for sibling in path] for index, path in paths.items()}


def consistency_proof(read: ReadTiles, old: int, new: int) -> list[bytes]:
    """The proof that the tree of ``old`` leaves is the beginning of that of ``new`` (RFC 6962 §2.1.2). Empty for sizes
    that are equal, and for the empty tree, which is the beginning of every tree."""
    if not 0 <= old <= new:
        raise ValueError("the old size is above the new one")
    if old in (0, new):
        return []
    ranges = _consistency_ranges(old, 0, new, whole=True)
    nodes = _Nodes(read, new, ranges)
    return [nodes.hash_of(one) for one in ranges]


def _split(width: int) -> int:
    """The largest power of two below ``width``, which is at least 2."""
    return 1 << ((width - 1).bit_length() - 1)


def _siblings(index: int, size: int) -> list[_Range]:
    path: list[_Range] = []
    first, beyond = 0, size
    while beyond - first > 1:
        middle = first + _split(beyond - first)
        if index < middle:
            path.append((middle, beyond))
            beyond = middle
        else:
            path.append((first, middle))
            first = middle
    return path[::-1]


def _consistency_ranges(old: int, first: int, beyond: int, *, whole: bool) -> list[_Range]:
    """``old``: counted from ``first``. ``whole``: the verifier has the root of the old tree already."""
    if old == beyond - first:
        return [] if whole else [(first, beyond)]
    middle = first + _split(beyond - first)
    if old <= middle - first:
        return [*_consistency_ranges(old, first, middle, whole=whole), (middle, beyond)]
    return [*_consistency_ranges(old - (middle - first), middle, beyond, whole=False), (first, middle)]


def _perfect_subtrees(part: _Range) -> list[_Node]:
    """The perfect subtrees that a range falls into, the largest first."""
    first, beyond = part
    nodes = []
    while first < beyond:
        height = (beyond - first).bit_length() - 1
        nodes.append((height, first >> height))
        first += 1 << height
    return nodes


class _Nodes:
    """The hashes of some subtrees; reads every tile that they need at once."""

    def __init__(self, read: ReadTiles, size: int, ranges: Iterable[_Range]) -> None:
        self._size = size
        wanted = {self._tile_of(node) for part in ranges for node in _perfect_subtrees(part)}
        self._tiles = read(wanted)
        for tile, hashes in self._tiles.items():
            if len(hashes) != tile.width * HASH_BYTES:
                raise IntegrityError(f"{tile.path} has another length than it must have")

    def _tile_of(self, node: _Node) -> Tile:
        height, index = node
        level = height // TILE_HEIGHT
        number = (index << (height - TILE_HEIGHT * level)) // TILE_WIDTH
        return Tile(level, number, width_of(level, number, self._size))

    def hash_of(self, part: _Range) -> bytes:
        *larger, root_node = _perfect_subtrees(part)
        root = self._perfect(root_node)
        for node in reversed(larger):
            root = hash_node(self._perfect(node), root)
        return root

    def _perfect(self, node: _Node) -> bytes:
        tile, (height, index) = self._tile_of(node), node
        above = height - TILE_HEIGHT * tile.level
        return _nodes_over(self._tiles[tile])[above][index - (tile.first >> above)]


@lru_cache(maxsize=128)
def _nodes_over(hashes: bytes) -> Sequence[Sequence[bytes]]:
    """The roots of all perfect subtrees over the hashes of a tile, by height above it. Remembered, since nearly every
    proof goes through the same few tiles of the higher levels; 30 KiB each."""
    level = split_hashes(hashes)
    levels = [level]
    while len(level) > 1:
        level = [hash_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        levels.append(level)
    return levels
