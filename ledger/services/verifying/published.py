"""What was said of the tree to others, or is kept of it: checkpoints and tiles. The rows are held to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from ledger.domain.notes import ED25519, NoteError, VerifierKey, parse_note
from ledger.domain.tiles import MOST_LEVELS, TILE_BYTES, TILE_WIDTH, split_hashes, tile_root
from ledger.domain.verdicts import Finding, Findings, at
from ledger.ports import PublishedCheckpoint
from ledger.services.dependencies import Dependencies
from ledger.services.proving.publishing import log_name

ERASURE_ROOT: Final = "a row here is not the one that the tree was built from, or the root of this erasure was altered"
CHECKPOINT: Final = "a row here is not the one of which a checkpoint was signed"
SIGNED: Final = "a row here is not the one of which the checkpoint was signed that is kept outside of the databases"

_PAGE: Final = 500
_LAST: Final = "\U0010ffff"
"""Behind every origin."""


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
        public_key: bytes | None = None
        for checkpoint in self._stored((first, _LAST)):
            if checkpoint.size > last:
                break
            if public_key is None and self.check_signatures:
                public_key = self.deps.vault.verifying_key(self.ledger_id)
            try:
                self._check(checkpoint, public_key)
            except NoteError as error:
                findings.add(_unsigned(checkpoint, error.detail))
            else:
                claims.append(Claim(checkpoint.size, checkpoint.root, CHECKPOINT, is_checkpoint=True))
        return claims

    def beyond(self, size: int) -> PublishedCheckpoint | None:
        """One that was published of more events than this."""
        return next(self._stored((size, _LAST)), None)

    def kept_outside(self) -> Checkpoint | None:
        """The last one that was signed, as it is kept outside of the databases. Raises ``NoteError``."""
        kept = self.deps.signed.read(self.ledger_id, log_name(self.deps, self.ledger_id))
        return parse_checkpoint(parse_note(kept).text) if kept is not None else None

    def _stored(self, after: tuple[int, str] | None) -> Iterator[PublishedCheckpoint]:
        while page := self.deps.transparency.checkpoints(self.ledger_id, after, _PAGE):
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


def check_tiles(deps: Dependencies, ledger_id: UUID, first: int, hashes: Sequence[bytes]) -> list[Finding]:
    """Compare the stored tiles of level 0 that lie wholly within these leaves."""
    number = -(-first // TILE_WIDTH)
    beyond = (first + len(hashes)) // TILE_WIDTH
    findings: list[Finding] = []
    if number >= beyond:
        return findings
    for tile in deps.store.full_tiles(ledger_id, 0, number, beyond - number):
        begin = tile.number * TILE_WIDTH
        rows = b"".join(hashes[begin - first : begin - first + TILE_WIDTH])
        if tile.hashes != rows:
            findings += _differences(begin, tile.hashes, rows)
        elif tile.root != tile_root(rows):
            findings.append(
                Finding(begin, begin + TILE_WIDTH - 1, "the stored tile over these events has another root")
            )
    return findings


def check_upper_tiles(deps: Dependencies, ledger_id: UUID) -> Iterator[Finding]:
    """Compare the stored tiles above level 0 with the roots of those below them."""
    for level in range(1, MOST_LEVELS):
        number = 0
        while tiles := deps.store.full_tiles(ledger_id, level, number, 1):
            below = deps.store.full_tiles(ledger_id, level - 1, number * TILE_WIDTH, TILE_WIDTH)
            hashes = b"".join(tile.root for tile in below)
            if (tiles[0].hashes, len(hashes)) != (hashes, TILE_BYTES) or tiles[0].root != tile_root(hashes):
                width = TILE_WIDTH ** (level + 1)
                what = f"a stored tile of level {level} over these events does not fit those below it"
                yield Finding(number * width, (number + 1) * width - 1, what)
            number += 1
        if number == 0:
            return


def _differences(begin: int, stored: bytes, rows: bytes) -> list[Finding]:
    if len(stored) != TILE_BYTES:
        return [Finding(begin, begin + TILE_WIDTH - 1, "the stored tile over these events is damaged")]
    return [
        at(begin + index, "the stored tile has another hash of this row: the row or the tile was altered")
        for index, (one, other) in enumerate(zip(split_hashes(stored), split_hashes(rows), strict=True))
        if one != other
    ]
