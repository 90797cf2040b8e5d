"""A log in memory: leaves, tiles, roots and proofs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ledger.domain.merkle import hash_leaf
from ledger.domain.tiles import TILE_BYTES, TILE_WIDTH, Tile, consistency_proof, root_from_tiles, tile_root


class Tree:
    """A tree of some leaves. Can grow."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self.leaves: list[bytes] = []
        self._levels: list[bytearray] = [bytearray()]
        self.extend(leaves)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaves."""
        for leaf in leaves:
            self.leaves.append(leaf)
            self._add(0, hash_leaf(leaf))

    def _add(self, level: int, node: bytes) -> None:
        if level == len(self._levels):
            self._levels.append(bytearray())
        hashes = self._levels[level]
        hashes += node
        if len(hashes) % TILE_BYTES == 0:
            self._add(level + 1, tile_root(bytes(hashes[-TILE_BYTES:])))

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return len(self.leaves)

    def tile(self, tile: Tile) -> bytes:
        """The hashes of one tile; less than asked for where there are less."""
        hashes = self._levels[tile.level] if tile.level < len(self._levels) else b""
        return bytes(hashes[tile.first * 32 : (tile.first + tile.width) * 32])

    def bundle(self, tile: Tile) -> bytes:
        """The leaves of a tile of level 0, each behind its length."""
        leaves = self.leaves[tile.number * TILE_WIDTH :][: tile.width]
        return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)

    def read(self, tiles: Collection[Tile]) -> dict[Tile, bytes]:
        """Satisfies ``ledger.domain.tiles.ReadTiles``."""
        return {tile: self.tile(tile) for tile in tiles}

    def root(self, size: int) -> bytes:
        """The root of the first leaves."""
        return root_from_tiles(self.read, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof between two sizes."""
        return consistency_proof(self.read, old, new)
