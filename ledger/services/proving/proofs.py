"""Proofs about events and sizes, under checkpoints that were published."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from ledger.domain.checkpoints import TlogProof
from ledger.domain.encoding import leaf_of
from ledger.domain.merkle import ProofError, hash_leaf, verify_inclusion
from ledger.domain.tiles import TILE_HEIGHT, Tile, consistency_proof, inclusion_proofs, root_from_tiles, width_of
from ledger.errors import Fault, IntegrityError, InvalidError, NotFoundError
from ledger.ports import PublishedCheckpoint
from ledger.services.dependencies import Dependencies
from ledger.services.proving.publishing import log_name, note_of, publish
from ledger.services.proving.tiles import tile_reader


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the tree of ``old`` leaves is the beginning of the tree of ``new``."""

    old: int
    new: int
    hashes: Sequence[bytes]


def prove_inclusion(
    deps: Dependencies, ledger_id: UUID, positions: Collection[int], size: int
) -> Mapping[int, Sequence[bytes]]:
    """The inclusion proof of each of these positions in the tree of ``size`` leaves, which must have been published."""
    return inclusion_proofs(tile_reader(deps, ledger_id, size), positions, size)


def prove_under(
    deps: Dependencies, checkpoint: PublishedCheckpoint, leaf_hashes: Mapping[int, bytes]
) -> Mapping[int, Sequence[bytes]]:
    """The proof of each of these leaves, by position, under a checkpoint; verified, since nobody is helped by one that
    does not verify. Where there is none, after an alarm, the position is absent."""
    proofs: dict[int, Sequence[bytes]] = {}
    for fresh in (False, True):
        # What is remembered may have been read while somebody had altered it.
        left = leaf_hashes.keys() - proofs.keys()
        read = tile_reader(deps, checkpoint.ledger_id, checkpoint.size, fresh=fresh)
        for position, hashes in inclusion_proofs(read, left, checkpoint.size).items() if left else ():
            with suppress(ProofError):
                verify_inclusion(
                    index=position,
                    size=checkpoint.size,
                    leaf_hash=leaf_hashes[position],
                    proof=hashes,
                    root=checkpoint.root,
                )
                proofs[position] = hashes
    for position in sorted(leaf_hashes.keys() - proofs.keys()):
        deps.alarm(checkpoint.ledger_id, position, None, "no proof leads from the event to what was published")
    return proofs


def prove_consistency(deps: Dependencies, ledger_id: UUID, old: int, new: int) -> Sequence[bytes]:
    """The consistency proof between two sizes; the new one must have been published, or be below one that was."""
    return consistency_proof(tile_reader(deps, ledger_id, new), old, new)


def root_at(deps: Dependencies, ledger_id: UUID, size: int) -> bytes:
    """The root of the tree of the first ``size`` leaves."""
    return root_from_tiles(tile_reader(deps, ledger_id, size), size)


def prove_event(deps: Dependencies, ledger_id: UUID, event_id: UUID) -> TlogProof:
    """The proof that an event is recorded, with its leaf, under the newest checkpoint, which is published for it where
    it has to be. Raises ``NotFoundError``, and ``IntegrityError`` for an event that is not what its leaf says."""
    event = deps.store.find_events(ledger_id, [event_id]).get(event_id)
    if event is None:
        raise NotFoundError("there is no event of this id in this ledger")
    leaf = leaf_of(event)
    if hash_leaf(leaf) != event.leaf_hash:
        raise IntegrityError(f"the event at position {event.position} is not what its leaf says")
    checkpoint = publish(deps, ledger_id, at_least=event.position + 1)
    hashes = prove_under(deps, checkpoint, {event.position: event.leaf_hash}).get(event.position)
    if hashes is None:
        raise IntegrityError(f"the event at position {event.position} is not in the tree that was published")
    return TlogProof(event.position, tuple(hashes), note_of(deps, checkpoint), leaf)


def prove_growth(deps: Dependencies, ledger_id: UUID, old: int, new: int | None) -> Consistency:
    """The consistency proof between two sizes of the published tree; ``new`` None: the newest. Raises
    ``InvalidError``."""
    size = publish(deps, ledger_id, at_least=max(old, new or 0)).size
    new = size if new is None else new
    if not 0 <= old <= new <= size:
        raise InvalidError(
            "there is no proof between these sizes",
            [Fault("/from" if old > new or old < 0 else "/to", f"must be 0 ≤ from ≤ to ≤ {size}")],
        )
    return Consistency(old, new, prove_consistency(deps, ledger_id, old, new))


def published_tile(deps: Dependencies, ledger_id: UUID, tile: Tile) -> bytes:
    """The hashes of a tile of the published tree. Raises ``NotFoundError``."""
    require_published(deps, ledger_id, tile)
    return tile_reader(deps, ledger_id, (tile.first + tile.width) << (TILE_HEIGHT * tile.level))([tile])[tile]


def require_published(deps: Dependencies, ledger_id: UUID, tile: Tile) -> None:
    """Raise ``NotFoundError`` unless a published checkpoint has all of this tile."""
    last = deps.transparency.latest_published(ledger_id, log_name(deps, ledger_id))
    if tile.width > width_of(tile.level, tile.number, last.size if last is not None else 0):
        raise NotFoundError("there is no such tile in the published tree")
