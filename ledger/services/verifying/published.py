"""What was said of the tree to others, or is kept of it: checkpoints and tiles. The rows are held to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from ledger.domain.merkle import TREE_SIZES
from ledger.domain.notes import ED25519, NoteError, VerifierKey, parse_note
from ledger.domain.subtrees import Frontier, extend_at_once
from ledger.domain.tiles import MOST_LEVELS, TILE_BYTES, TILE_WIDTH, split_hashes, tile_root
from ledger.domain.verdicts import MOST_LISTED, Finding, Findings, at
from ledger.ports import FullTile, PublishedCheckpoint
from ledger.services.dependencies import Dependencies
from ledger.services.proving.publishing import log_name

ERASURE_ROOT: Final = "a row here is not the one that the tree was built from, or the root of this erasure was altered"
CHECKPOINT: Final = "a row here is not the one of which a checkpoint was signed"
SIGNED: Final = "a row here is not the one of which the checkpoint was signed that is kept outside of the databases"

_PAGE: Final = 500
_TILES_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """That the first ``size`` events have this root. ``what``: what is wrong if they have another. ``is_checkpoint``:
    it was published."""

    size: int
    root: bytes
    what: str
    is_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """The published checkpoints of a ledger. ``check_signatures``: by the ledger's own key, for which the vault needs
    its KEK."""

    deps: Dependencies
    ledger_id: UUID
    check_signatures: bool

    def between(self, first: int, last: int, findings: Findings) -> list[Claim]:
        """What was published of sizes above ``first`` and up to ``last``. Adds a finding for a checkpoint that is not
        what was signed."""
        claims = []
        for checkpoint, wrong in self._checked(first, last):
            if wrong is not None:
                findings.add(wrong)
            else:
                claims.append(Claim(checkpoint.size, checkpoint.root, CHECKPOINT, is_checkpoint=True))
        return claims

    def wrong(self, first: int, last: int) -> Iterator[Finding]:
        """The checkpoints of sizes above ``first`` and up to ``last`` that are not what was signed."""
        return (wrong for _, wrong in self._checked(first, last) if wrong is not None)

    def _checked(self, first: int, last: int) -> Iterator[tuple[PublishedCheckpoint, Finding | None]]:
        public_key: bytes | None = None
        for checkpoint in self._stored(first, last):
            if public_key is None and self.check_signatures:
                public_key = self.deps.vault.verifying_key(self.ledger_id)
            try:
                self._check(checkpoint, public_key)
            except NoteError as error:
                yield checkpoint, _unsigned(checkpoint, error.detail)
            else:
                yield checkpoint, None

    def beyond(self, size: int) -> PublishedCheckpoint | None:
        """One that was published of more events than this."""
        return next(self._stored(size, TREE_SIZES - 1), None)

    def kept_outside(self) -> Checkpoint | None:
        """The last one that was signed, as it is kept outside of the databases. Raises ``NoteError``."""
        kept = self.deps.signed.read(self.ledger_id, log_name(self.deps, self.ledger_id))
        return parse_checkpoint(parse_note(kept).text) if kept is not None else None

    def _stored(self, first: int, last: int) -> Iterator[PublishedCheckpoint]:
        after: tuple[int, str] | None = None
        while page := self.deps.store.checkpoints_between(self.ledger_id, first, last, after, _PAGE):
            yield from page
            after = (page[-1].size, page[-1].origin)

    def _check(self, stored: PublishedCheckpoint, public_key: bytes | None) -> None:
        if public_key is None:
            said = parse_checkpoint(parse_note(stored.note).text)
        else:
            key = VerifierKey(stored.origin, ED25519, public_key)
            said = open_checkpoint(stored.note, key, self.deps.vault.check_signature)
        if (said.origin, said.size, said.root) != (stored.origin, stored.size, stored.root):
            raise NoteError("its row says something else than its note")


def _unsigned(checkpoint: PublishedCheckpoint, why: str) -> Finding:
    what = f"the stored checkpoint of {checkpoint.size} events is not what was published: {why}"
    return Finding(0, max(checkpoint.size - 1, 0), what)


def check_tiles(
    deps: Dependencies, ledger_id: UUID, first: int, hashes: Sequence[bytes], before: Frontier
) -> list[Finding]:
    """Compare the stored tiles of level 0 with these leaves, which begin at ``first``, as far as they are about them.

    ``before``: the frontier of the tree in front of them, where it is known; what a tile has of it is compared too.
    """
    number, last = first // TILE_WIDTH, (first + len(hashes) - 1) // TILE_WIDTH
    findings: list[Finding] = []
    for tile in deps.store.full_tiles(ledger_id, 0, number, last - number + 1):
        findings += _check_tile(tile, first, hashes, before)
    return findings


def _check_tile(tile: FullTile, first: int, hashes: Sequence[bytes], before: Frontier) -> list[Finding]:
    begin, beyond = tile.number * TILE_WIDTH, (tile.number + 1) * TILE_WIDTH
    ends_here = beyond <= first + len(hashes)
    if len(tile.hashes) != TILE_BYTES:
        # Told once, however many pieces it lies in.
        return [Finding(begin, beyond - 1, "the stored tile over these events is damaged")] if ends_here else []
    stored = split_hashes(tile.hashes)
    known = max(first - begin, 0)
    if known and before and extend_at_once(0, (), stored[:known])[1] != before[-known.bit_count() :]:
        return [Finding(begin, first - 1, "the stored tile has another hash of a row that was verified earlier")]
    rows = hashes[max(begin - first, 0) : beyond - first]
    found = [
        at(begin + known + index, "the stored tile has another hash of this row: the row or the tile was altered")
        for index, (one, other) in enumerate(zip(stored[known:], rows, strict=False))
        if one != other
    ]
    if not found and ends_here and tile.root != tile_root(tile.hashes):
        return [Finding(begin, beyond - 1, "the stored tile over these events has another root")]
    return found


def check_upper_tiles(deps: Dependencies, ledger_id: UUID, last: int) -> Iterator[Finding]:
    """Compare the stored tiles above level 0 with the roots of those below them, and name those of any level that
    have no place in the tree."""
    for level, index in deps.store.misplaced_tiles(ledger_id, MOST_LISTED):
        width = TILE_WIDTH ** (level + 1) if 0 <= level < MOST_LEVELS else 1
        first, beyond = (min(max(edge, 0), last) for edge in (index * width, (index + 1) * width - 1))
        what = "is not full in the tree of the ledger, and stops checkpoints or proofs"
        yield Finding(first, beyond, f"a stored tile of level {level}, number {index}, {what}")
    for level in range(1, MOST_LEVELS):
        width = TILE_WIDTH ** (level + 1)
        # Whatever is missing: they can be dropped, and are made again.
        for number in range(0, (last + 1) // width, _TILES_AT_ONCE):
            for tile in deps.store.full_tiles(ledger_id, level, number, _TILES_AT_ONCE):
                first = tile.number * width
                if first + width <= last + 1 and not _fits_below(deps, ledger_id, tile):
                    what = f"a stored tile of level {level} over these events does not fit those below it"
                    yield Finding(first, first + width - 1, what)


def _fits_below(deps: Dependencies, ledger_id: UUID, tile: FullTile) -> bool:
    below = deps.store.full_tiles(ledger_id, tile.level - 1, tile.number * TILE_WIDTH, TILE_WIDTH)
    hashes = b"".join(one.root for one in below)
    return (tile.hashes, len(hashes)) == (hashes, TILE_BYTES) and tile.root == tile_root(hashes)
