"""Read the Merkle tree in tiles, and store the tiles that are complete.

Full tiles never change, so they are stored once, by whoever publishes, off the way of appends. What is not stored is
at the right edge: the hashes of a partial tile of level 0 stand in the events, and those of a higher one in the rows of
the full tiles below it. So a proof in a ledger of any size reads a handful of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from ledger.domain.tiles import MOST_LEVELS, TILE_BYTES, TILE_HEIGHT, TILE_WIDTH, ReadTiles, Tile, tile_root, width_of
from ledger.ports import FullTile, HashRange
from ledger.services.dependencies import Dependencies

BATCH: Final = 64
"""Tiles that are made at once: half a megabyte of hashes."""


def store_tiles(deps: Dependencies, ledger_id: UUID, size: int, *, since: int) -> None:
    """Store every full tile of the tree of ``size`` leaves that the tree of ``since`` leaves has not. Several may do so
    at once."""
    for level in range(MOST_LEVELS):
        stored, full = (leaves >> (TILE_HEIGHT * (level + 1)) for leaves in (since, size))
        while stored < full:
            count = min(BATCH, full - stored)
            part = (level, stored * TILE_WIDTH, count * TILE_WIDTH)
            hashes = deps.transparency.hashes(ledger_id, (), [part], fresh=True)[1][part]
            parts = [hashes[at : at + TILE_BYTES] for at in range(0, len(hashes), TILE_BYTES)]
            tiles = [FullTile(level, stored + at, tile_root(part), part) for at, part in enumerate(parts)]
            deps.transparency.add_tiles(ledger_id, tiles)
            stored += count


def tile_reader(deps: Dependencies, ledger_id: UUID, size: int, *, fresh: bool = False) -> ReadTiles:
    """Reads tiles of the tree of the first ``size`` leaves, which the ledger has and whose full tiles are stored.

    What it gives raises ``ValueError`` for a tile that this tree does not have. ``fresh``: nothing from memory.
    """

    def read(tiles: Collection[Tile]) -> Mapping[Tile, bytes]:
        for tile in tiles:
            if not 1 <= tile.width <= width_of(tile.level, tile.number, size):
                raise ValueError(f"{tile.path} is not in a tree of {size} leaves")
        full = [tile for tile in tiles if tile.width == TILE_WIDTH]
        edge = [tile for tile in tiles if tile.width != TILE_WIDTH]
        stored, ranges = deps.transparency.hashes(
            ledger_id,
            [(tile.level, tile.number) for tile in full],
            [_range(tile) for tile in edge],
            fresh=fresh,
        )
        found = {tile: ranges[_range(tile)] for tile in edge}
        found.update({tile: stored[tile.level, tile.number] for tile in full if (tile.level, tile.number) in stored})
        missing = [tile for tile in full if tile not in found]
        if missing:
            # Nobody has published so far yet.
            ranges = deps.transparency.hashes(ledger_id, (), [_range(tile) for tile in missing], fresh=fresh)[1]
            found.update({tile: ranges[_range(tile)] for tile in missing})
        return found

    return read


def _range(tile: Tile) -> HashRange:
    return tile.level, tile.first, tile.width
