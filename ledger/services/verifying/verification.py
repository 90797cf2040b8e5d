"""What is known of a ledger while it is verified, and how far one was found to be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.domain.events import Head
from ledger.domain.fingerprint import KEY_BYTES, MODULUS
from ledger.domain.merkle import check_frontier, root_of
from ledger.domain.notes import NoteError
from ledger.domain.query import EventFilter
from ledger.domain.subtrees import Frontier, join
from ledger.domain.verdicts import Finding, Findings, Verdict, VerifyReport, at
from ledger.errors import IntegrityError, InvalidError
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.books import BooksJob, BooksResult
from ledger.services.verifying.chunks import How
from ledger.services.verifying.keys import STRAY_KEY, KeysJob, KeysResult, NamingJob, key_jobs
from ledger.services.verifying.published import SIGNED, Claim, Published
from ledger.services.verifying.ranges import RANGE, Mark, RangeJob, RangeResult
from ledger.services.verifying.windows import WindowsJob, window_jobs

_STRANGERS: Final = 100
_TREE: Final = "a row here is not the one that the tree was built from"
_TREE_OF_BEFORE: Final = "a row here is not the one that the tree was built from, or that was verified earlier"


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a ledger was found to be right, for the next run to go on from.

    ``key``, ``sums``: of the fingerprints so far (``keys``), by number of range. Whoever knows the key could alter
    ``event_keys`` unseen by the runs that go on from here: keep it where the database's administrators cannot read it.
    ``opened``: whether parts were opened. ``at``: when, in microseconds. ``compared``: up to where what is kept beside
    the events was found to be right, too, which is known only at the end of a run; ``roots``: the fingerprint of
    ``erasure_roots`` up to there.
    """

    ledger_id: UUID
    size: int
    frontier: Frontier
    last_time: int | None
    key: bytes = field(repr=False)
    sums: tuple[tuple[int, int], ...]
    opened: bool
    at: int
    width: int = RANGE
    compared: int = 0
    roots: int = 0


class Verification:
    """What is known while a ledger is verified. The tree is built in order of position, whoever hashed its pieces."""

    def __init__(
        self,
        deps: Dependencies,
        ledger_id: UUID,
        *,
        opening: bool,
        since: Verified | None = None,
        width: int = RANGE,
    ) -> None:
        self._width = width
        self._deps = deps
        self._ledger_id = ledger_id
        self.head: Head = deps.store.head(ledger_id, settled=True)
        self.findings = Findings()
        self._published = Published(deps, ledger_id, check_signatures=opening)
        self._first, self._size, self._frontier = 0, 0, Frontier()
        self._last_time: int | None = None
        self.key = deps.entropy(KEY_BYTES)
        self._sums: dict[int, int] = {}
        self._key_sums: Counter[int] = Counter()
        self._outside: list[int] = []
        self._keys_fit = True
        self._counts: Counter[Verdict] = Counter()
        self._checkpoints = 0
        self._fitting = 0
        self._fits = True
        self._compared = self._roots = 0
        self._how = How(opening, self.key)
        self._claims = self._outside_claims()
        if since is not None:
            self._go_on_from(since)

    def _go_on_from(self, since: Verified) -> None:
        if (since.ledger_id, since.width, len(since.key)) != (self._ledger_id, self._width, KEY_BYTES):
            raise InvalidError("what is kept of an earlier run is of another ledger; name another file")
        if self._how.opening and not since.opened:
            raise InvalidError("the earlier run has not opened the parts: go on without opening, or name another file")
        check_frontier(since.size, since.frontier)
        if not 0 <= since.compared <= since.size:
            raise InvalidError("what is kept of an earlier run is damaged; name another file")
        if since.size > self.head.size:
            what = f"{since.size} events were verified earlier, and the ledger has {self.head.size}: it was cut off"
            self.findings.add(Finding(self.head.size, since.size - 1, what))
            return
        self._first, self._size, self._frontier = since.size, since.size, since.frontier
        self._last_time, self.key, self._sums = since.last_time, since.key, dict(since.sums)
        self._how = How(self._how.opening, since.key)
        self._compared, self._roots = since.compared, since.roots
        self._fitting = since.size

    def _outside_claims(self) -> list[Claim]:
        try:
            signed = self._published.kept_outside()
        except NoteError as error:
            self.findings.add(
                Finding(0, max(self.head.size - 1, 0), f"the kept checkpoint cannot be read: {error.detail}")
            )
            return []
        if signed is None:
            return []
        if signed.size > self.head.size:
            self._cut_off(signed.size, "signed")
            return []
        return [Claim(signed.size, signed.root, SIGNED)]

    def _cut_off(self, size: int, how: str) -> None:
        what = f"a checkpoint of {size} events was {how}, and the ledger has {self.head.size}: it was cut off"
        self.findings.add(Finding(self.head.size, size - 1, what))

    def range_jobs(self) -> Iterator[RangeJob]:
        """All ranges from where the earlier run ended. Only the first one can begin within a range."""
        first, tree = self._first, (self._size, self._frontier)
        while first < self.head.size:
            beyond = min((first // self._width + 1) * self._width, self.head.size)
            claims = tuple(claim for claim in self._claims if first < claim.size <= beyond)
            yield RangeJob(self._ledger_id, first, beyond, self._how, tree if first % self._width else (0, ()), claims)
            first = beyond

    def take_range(self, result: RangeResult) -> None:
        """Go on with the next range."""
        if result.first_time is not None:
            if self._last_time is not None and result.first_time < self._last_time:
                self.findings.add(at(result.first, "recorded before the event in front of it"))
            self._last_time = result.last_time
        self.findings.take(result.findings)
        self._counts += result.counts
        number = result.first // self._width
        self._sums[number] = (self._sums.get(number, 0) + result.keys) % MODULUS
        whole = result.first % self._width == 0
        for mark in result.marks:
            further = mark.claim.size - result.first
            frontier = join(self._size, self._frontier, further, mark.frontier)[1] if whole else mark.frontier
            self._compare(mark, root_of(frontier))
        if whole:
            self._frontier = join(self._size, self._frontier, result.beyond - result.first, result.frontier)[1]
        else:
            self._frontier = result.frontier
        self._size = result.beyond

    def _compare(self, mark: Mark, root: bytes) -> None:
        """A claim that does not fit is told, unless what is known already explains it."""
        claim = mark.claim
        self._checkpoints += claim.is_checkpoint
        if claim.root == root:
            self._fits = True
            # What was not signed can have been altered with the rows, so it vouches for none.
            if claim.is_checkpoint and self._how.opening:
                self._fitting = claim.size
        elif not claim.is_checkpoint and self._fitting >= claim.size:
            # The rows are those of which a checkpoint was signed; so what is altered is the claim.
            self.findings.add(at(claim.size - 1, "the root that is kept of an erasure here is another one"))
        elif (self._fits or not claim.is_checkpoint) and not self.findings.explain(0, claim.size - 1):
            last = max(claim.size - 1, 0)
            self.findings.add(Finding(min(self._fitting, last), last, claim.what, "tampered"))
            self._fits = False

    @property
    def is_right_so_far(self) -> bool:
        """Whether nothing is wrong up to here."""
        return self.findings.number == 0

    def so_far(self) -> Verified:
        """How far that is."""
        sums = tuple(sorted(self._sums.items()))
        return Verified(
            self._ledger_id,
            self._size,
            self._frontier,
            self._last_time,
            self.key,
            sums,
            self._how.opening,
            self._deps.clock(),
            self._width,
            self._compared,
            self._roots,
        )

    def check_ends(self) -> None:
        """What lies beyond either end of the log, and the head itself."""
        self._check_tree()
        last = max(self.head.size - 1, 0)
        # Not in the tree, but what as-of answers and the next recorded-at rest on.
        if not self.findings.number and self.head.last_recorded_at != (self._last_time or 0):
            self.findings.add(at(last, "the head has another time than the newest event"))
        store, ledger_id = self._deps.store, self._ledger_id
        before = store.select_events(ledger_id, EventFilter(-(2**62), -1), None, _STRANGERS)
        # From the end: what was appended meanwhile stands in front of what nobody appended.
        end = EventFilter(self.head.size, 2**62, order="desc")
        beyond = store.select_events(ledger_id, end, None, _STRANGERS)
        published = self._published.beyond(self.head.size)
        grown = store.head(ledger_id).size
        for event in (*before, *(event for event in beyond if event.position >= grown)):
            self.findings.add(at(event.position, "the row lies outside of the log"))
        if published is not None and published.size > grown:
            self._cut_off(published.size, "published")

    def _check_tree(self) -> None:
        """Compare the perfect subtrees of the rows with those of the head, to say where a difference lies."""
        try:
            check_frontier(self.head.size, self.head.frontier)
        except IntegrityError as error:
            self.findings.add(Finding(0, max(self.head.size - 1, 0), error.detail))
            return
        if self._size != self.head.size:
            return
        first = 0
        for node, expected in zip(self._frontier, self.head.frontier, strict=True):
            last = first + (1 << ((self.head.size - first).bit_length() - 1)) - 1
            if node != expected and not self.findings.explain(first, last):
                what = _TREE if first >= self._first else _TREE_OF_BEFORE
                self.findings.add(Finding(first, last, what, "tampered"))
            first = last + 1

    def key_jobs(self) -> Iterator[KeysJob]:
        """All of ``event_keys``, whatever was read before."""
        return key_jobs(self._ledger_id, self.head.size, self._width, self.key)

    def take_keys(self, result: KeysResult) -> None:
        """Add up what was found in ``event_keys``."""
        self._key_sums.update(result.sums)
        self._outside += result.outside

    def naming_jobs(self) -> Iterator[NamingJob]:
        """One for each range in which ``event_keys`` and the parts differ."""
        grown = self._deps.store.head(self._ledger_id).size
        for position in self._outside:
            signed = position - (1 << 64) if position >> 63 else position
            if not 0 <= signed < grown:
                self.findings.add(at(signed, STRAY_KEY))
        for number in sorted({*self._sums, *self._key_sums}):
            if (self._sums.get(number, 0) - self._key_sums[number]) % MODULUS:
                self._keys_fit = False
                first = number * self._width
                yield NamingJob(self._ledger_id, first, min(first + self._width, self.head.size))

    def window_jobs(self) -> Iterator[WindowsJob]:
        """All of ``key_windows``, whatever was read before. Without opening there is nothing to be seen in them."""
        if self._how.opening:
            yield from window_jobs(self._ledger_id, self.head.size, self._width)

    def books_job(self) -> BooksJob:
        """The comparison of what is kept beside the events."""
        opening, key = self._how.opening, self.key
        # By an ``event_keys`` that is wrong itself nothing is counted: it is told of already.
        counted = self._compared if self._keys_fit else self.head.size
        return BooksJob(
            self._ledger_id, self._first, self.head.size, opening, key, self._compared, self._roots, counted
        )

    def take_books(self, result: BooksResult) -> None:
        """Add what was found there."""
        self.findings.take(result.findings)
        self._compared, self._roots = self.head.size, result.roots

    def report(self) -> VerifyReport:
        """The verdict."""
        return VerifyReport(
            self.head.size,
            root_of(self._frontier),
            root_of(self.head.frontier),
            tuple(sorted(self.findings.listed, key=lambda one: (one.position, one.last, one.what))),
            self._counts,
            self.findings.number,
            self._first,
            self._how.opening,
            self._checkpoints,
        )
