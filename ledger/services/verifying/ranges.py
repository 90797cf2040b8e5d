"""Check a range of positions: a piece of work that any process can do, whatever the others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.domain.subtrees import Frontier, extend_at_once
from ledger.domain.verdicts import Finding, Findings, Verdict, at
from ledger.ports import ShreddedKey
from ledger.services.dependencies import Dependencies
from ledger.services.verifying import quick, readable
from ledger.services.verifying.chunks import Chunk, How, KeyRegister, Shredder
from ledger.services.verifying.published import ERASURE_ROOT, Claim, Published, check_tiles

RANGE: Final = 1 << 14
"""Positions of a range. A power of two: a range is then a subtree, which can be hashed before those in front of it."""

CHUNK: Final = 2048
"""Events in memory at a time, at most."""

CHUNK_BYTES: Final = 16 * 2**20
"""Sealed bytes that a chunk aims at, so that large events make small chunks."""

_FIRST_CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class Mark:
    """A claim, to be compared when all before is known. ``frontier``: of the range's own tree, at the claim's size."""

    claim: Claim
    frontier: Frontier


@dataclass(frozen=True, slots=True)
class RangeResult:
    """What a range's rows show. ``frontier``: of the tree that ends with them."""

    first: int
    beyond: int
    frontier: Frontier
    marks: Sequence[Mark]
    counts: Counter[Verdict]
    findings: Findings
    keys: int
    first_time: int | None
    last_time: int | None


@dataclass(frozen=True, slots=True)
class RangeJob:
    """Check the positions from ``first`` on and below ``beyond``.

    ``tree``: what stands in front of them: (number of leaves, frontier), or an empty tree where a subtree begins.
    ``claims``: about roots at sizes in this range, besides those that are found here.
    """

    ledger_id: UUID
    first: int
    beyond: int
    how: How
    tree: tuple[int, Frontier] = (0, ())
    claims: tuple[Claim, ...] = ()

    def work(self, deps: Dependencies) -> RangeResult:
        """Do it."""
        return _Range(deps, self).checked()


@dataclass
class _Range:
    """A range while it is checked."""

    deps: Dependencies
    job: RangeJob
    marks: list[Mark] = field(default_factory=list)
    counts: Counter[Verdict] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    keys: int = 0
    first_time: int | None = None
    last_time: int | None = None
    claims: Sequence[Claim] = ()
    hashes: list[bytes] = field(default_factory=list)
    size: int = 0
    frontier: Frontier = ()

    def checked(self) -> RangeResult:
        job = self.job
        self.size, self.frontier = job.tree
        published = Published(self.deps, job.ledger_id, check_signatures=job.how.opening)
        self.claims = [*job.claims, *published.between(job.first, job.beyond, self.findings)]
        register = KeyRegister.of_range(self.deps, job.ledger_id, opening=job.how.opening)
        position, width = job.first, min(_FIRST_CHUNK, CHUNK)
        while position < job.beyond:
            last = min(position + width, job.beyond) - 1
            chunk = check_chunk(register, position, last, job.how)
            self._take(position, chunk)
            number, position = last + 1 - position, last + 1
            width = max(1, min(CHUNK, CHUNK_BYTES * number // chunk.sealed_bytes)) if chunk.sealed_bytes else CHUNK
        self.findings.add(*check_tiles(self.deps, job.ledger_id, job.first, self.hashes, job.tree[1]))
        return RangeResult(
            job.first,
            job.beyond,
            self.frontier,
            self.marks,
            self.counts,
            self.findings,
            self.keys,
            self.first_time,
            self.last_time,
        )

    def _take(self, first: int, chunk: Chunk) -> None:
        self.counts += chunk.counts
        self.findings.add(*chunk.findings)
        self.keys += chunk.keys
        if chunk.first_time is not None:
            if self.last_time is not None and chunk.first_time < self.last_time:
                self.findings.add(at(first, "recorded before the event in front of it"))
            if self.first_time is None:
                self.first_time = chunk.first_time
            self.last_time = chunk.last_time
        beyond = first + len(chunk.hashes)
        claims = [one for one in self.claims if first < one.size <= beyond]
        done = 0
        for claim in sorted([*claims, *self._erasure_roots(chunk.shredders)], key=lambda claim: claim.size):
            self._extend(chunk.hashes[done : claim.size - first])
            done = claim.size - first
            self.marks.append(Mark(claim, self.frontier))
        self._extend(chunk.hashes[done:])
        self.hashes += chunk.hashes

    def _extend(self, hashes: Sequence[bytes]) -> None:
        self.size, self.frontier = extend_at_once(self.size, self.frontier, hashes)

    def _erasure_roots(self, shredders: Sequence[Shredder]) -> list[Claim]:
        """What was claimed of the roots at erasures; looks at their dead keys too."""
        if not shredders:
            return []
        ledger_id, store = self.job.ledger_id, self.deps.store
        roots = store.roots_of(ledger_id, [one.event_id for one in shredders if one.is_erasure])
        shredded = store.shredded_among(ledger_id, {key for one in shredders for key in one.key_ids})
        claims = []
        for shredder in shredders:
            self.findings.add(*_check_shredder(shredder, shredded))
            kept = roots.get(shredder.event_id)
            if kept is not None:
                claims.append(Claim(shredder.position + 1, kept.root, ERASURE_ROOT))
                if kept.before is not None:
                    claims.append(Claim(shredder.position, kept.before, ERASURE_ROOT))
            elif shredder.is_erasure:
                self.findings.add(at(shredder.position, "the root of this erasure is missing"))
        return claims


def check_chunk(register: KeyRegister, first: int, last: int, how: How) -> Chunk:
    """Check a few events: the quick way, and where that does not find all to be right, the other."""
    deps, ledger_id = register.deps, register.ledger_id
    rows = deps.store.leaf_rows(ledger_id, first, last)
    chunk = None
    if rows is not None and len(rows) == last - first + 1:
        chunk = quick.check(register, first, rows, how)
    return chunk if chunk is not None else readable.check(deps, ledger_id, first, last, how)


def _check_shredder(shredder: Shredder, shredded: Mapping[bytes, ShreddedKey]) -> list[Finding]:
    """The ledger's own record of each dead key names the first event that says so."""
    for key_id in shredder.key_ids:
        row = shredded.get(key_id)
        as_recorded = row is not None and (
            (row.recorded and row.position < shredder.position)
            or (row.position, row.erasure_id) == (shredder.position, shredder.event_id)
        )
        if not as_recorded:
            return [at(shredder.position, "shreds a key of which shredded_keys says otherwise")]
    return []
