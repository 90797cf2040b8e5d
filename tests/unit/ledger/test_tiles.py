"""Tiles are those of C2SP tlog-tiles; roots and proofs out of them are those of RFC 6962, in trees of every shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.merkle import (
    EMPTY_ROOT,
    extend_frontier,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from ledger.domain.tiles import (
    TILE_WIDTH,
    ReadTiles,
    Tile,
    consistency_proof,
    inclusion_proof,
    inclusion_proofs,
    parse_tile_path,
    root_from_tiles,
    tile_root,
    width_of,
)
from ledger.errors import IntegrityError

LARGEST = 2 * TILE_WIDTH**2 + 300


@cache
def levels() -> list[list[bytes]]:
    """The hashes of each level of tiles, in a tree of the largest size here."""
    found = [[hash_leaf(number.to_bytes(4, "big")) for number in range(LARGEST)]]
    while len(found[-1]) >= TILE_WIDTH:
        below = found[-1]
        full = range(0, len(below) // TILE_WIDTH * TILE_WIDTH, TILE_WIDTH)
        found.append([root_of(extend_frontier(0, (), below[at : at + TILE_WIDTH])[1]) for at in full])
    return found


def tiles_of(size: int) -> ReadTiles:
    """The tiles of the tree of so many leaves, and no others."""

    def read(tiles: Collection[Tile]) -> Mapping[Tile, bytes]:
        for tile in tiles:
            assert tile.width == width_of(tile.level, tile.number, size) > 0
        return {tile: b"".join(levels()[tile.level][tile.first : tile.first + tile.width]) for tile in tiles}

    return read


@cache
def root_at(size: int) -> bytes:
    """The root, leaf by leaf."""
    return root_of(extend_frontier(0, (), levels()[0][:size])[1])


sizes = st.integers(1, 40) | st.integers(1, 3 * TILE_WIDTH) | st.integers(1, LARGEST)


@given(sizes)
def test_the_root_out_of_tiles_is_that_of_the_leaves(size: int) -> None:
    """Whatever the size."""
    assert root_from_tiles(tiles_of(size), size) == root_at(size)


def test_the_empty_tree_has_a_root() -> None:
    """The hash of nothing, and no tile is read for it."""
    assert root_from_tiles(tiles_of(0), 0) == EMPTY_ROOT


@given(st.data(), sizes)
def test_inclusion_proofs_verify(data: st.DataObject, size: int) -> None:
    """Of every leaf, and for several at once as for one."""
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))
    proofs = inclusion_proofs(tiles_of(size), indices, size)

    for index in indices:
        leaf_hash = levels()[0][index]
        verify_inclusion(index=index, size=size, leaf_hash=leaf_hash, proof=proofs[index], root=root_at(size))
        assert inclusion_proof(tiles_of(size), index, size) == proofs[index]


@given(st.data(), sizes)
def test_consistency_proofs_verify(data: st.DataObject, new: int) -> None:
    """Between any two sizes."""
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(tiles_of(new), old, new)

    verify_consistency(old_size=old, new_size=new, old_root=root_at(old), new_root=root_at(new), proof=proof)


def test_what_has_no_proof_is_refused() -> None:
    """A leaf that is not in the tree, and an old size above the new one."""
    with pytest.raises(ValueError, match="below the size"):
        inclusion_proof(tiles_of(3), 3, 3)
    with pytest.raises(ValueError, match="above the new"):
        consistency_proof(tiles_of(3), 4, 3)


def test_a_proof_reads_a_handful_of_tiles() -> None:
    """One of each level, and those on the right edge."""
    read: list[Tile] = []

    def counting(tiles: Collection[Tile]) -> Mapping[Tile, bytes]:
        read.extend(tiles)
        return tiles_of(LARGEST)(tiles)

    inclusion_proof(counting, 1000, LARGEST)

    assert len(read) == 5


def test_a_tile_of_another_length_is_an_error() -> None:
    """It would shift every hash behind it."""
    with pytest.raises(IntegrityError, match="tile/0/000"):
        root_from_tiles(lambda tiles: dict.fromkeys(tiles, bytes(32)), 2)
    with pytest.raises(IntegrityError):
        tile_root(bytes(32))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0, 256), "tile/0/000"),
        (Tile(3, 42, 7), "tile/3/042.p/7"),
        (Tile(0, 1234067, 256), "tile/0/x001/x234/067"),
        (Tile(1, 1000, 1), "tile/1/x001/000.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile, path: str) -> None:
    """Both ways."""
    level, rest = path.removeprefix("tile/").split("/", 1)

    assert (tile.path, parse_tile_path(level, rest)) == (path, tile)


@given(st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_every_tile_has_one_path(level: int, number: int, width: int) -> None:
    """Out and in."""
    tile = Tile(level, number, width)

    assert parse_tile_path(*tile.path.removeprefix("tile/").split("/", 1)) == tile


@pytest.mark.parametrize(
    ("level", "rest"),
    [
        ("00", "000"),
        ("-1", "000"),
        ("100", "000"),
        ("0", "0"),
        ("0", "0000"),
        ("0", "x000/001"),
        ("0", "001/002"),
        ("0", "x001"),
        ("0", "000.p/0"),
        ("0", "000.p/256"),
        ("0", "000.p/01"),
        ("0", "000.p/"),
        ("0", "\u0660\u0660\u0660"),
        ("0", "x999/" * 9 + "999"),
    ],
)
def test_other_ways_to_write_a_path_are_refused(level: str, rest: str) -> None:
    """Every tile has one address, so that caches hold it once."""
    with pytest.raises(ValueError, match="not the path"):
        parse_tile_path(level, rest)


def test_the_example_of_the_specification() -> None:
    """A tree of 70,000: 273 full tiles, then 112 hashes; one full tile of level 1, then 17; and one hash above."""
    widths = {(0, 272): 256, (0, 273): 112, (0, 274): 0, (1, 0): 256, (1, 1): 17, (2, 0): 1, (3, 0): 0}

    assert {place: width_of(*place, 70_000) for place in widths} == widths
