"""What ``verify`` can say of an event, and of a ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Verdict = Literal["missing row", "tampered", "missing key", "erased", "restricted", "intact"]
"""``missing row``: there is no row at this position. ``tampered``: the row is not what its leaf says, or a part of it
does not open under its own key. ``missing key``: a key is gone or damaged, and the ledger has no record that it was
shredded. ``erased``, ``restricted``: a part cannot be, or was not, opened for that reason, and the row is what its leaf
says. Of an event for which several are true, the first in this order is said."""

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
WRONG: Final[frozenset[Verdict]] = frozenset({"missing row", "tampered", "missing key"})

MOST_LISTED: Final = 1000
"""Findings that a report lists; how many there are in all, it counts."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that is said of an event for whose parts these are true."""
    return min(verdicts, key=VERDICTS.index, default="intact")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``last``: of a range of positions, where it cannot be told more exactly. ``verdict``: on
    the event, or on some event of the range; None: what is wrong is beside the events. ``event_id``: as the row has it
    now. Nothing personal (I5)."""

    position: int
    last: int
    what: str
    verdict: Verdict | None = None
    event_id: str | None = None


def at(position: int, what: str) -> Finding:
    """Something about one position."""
    return Finding(position, position, what)


@dataclass
class Findings:
    """Collects what is wrong: counts all, and keeps the first ones, so that a ledger without a single good row needs no
    more memory than any other."""

    listed: list[Finding] = field(default_factory=list)
    number: int = 0

    def add(self, *findings: Finding) -> None:
        """Add some."""
        self.number += len(findings)
        self.listed.extend(findings[: max(0, MOST_LISTED - len(self.listed))])

    def take(self, other: Findings) -> None:
        """Add those that somebody else has collected."""
        self.listed.extend(other.listed[: max(0, MOST_LISTED - len(self.listed))])
        self.number += other.number

    def explain(self, first: int, last: int) -> bool:
        """Whether something is known that makes a tree over these positions another one. Where not all findings are
        kept, what is not kept may."""
        if self.number > len(self.listed):
            return True
        return any(
            finding.verdict in ("missing row", "tampered") and finding.position <= last and first <= finding.last
            for finding in self.listed
        )


Counts = Mapping[Verdict, int]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what was found.

    ``root``: recomputed from the rows; ``head_root``: what the head says. ``counts``: the events that were read, by
    verdict. ``number``: of all findings; ``findings`` has the first of them, in order of position. ``first``: the
    position from which on rows were read; those before it were read by an earlier run. ``opened``: whether parts were
    opened. ``checkpoints``: how many published ones were compared.
    """

    size: int
    root: bytes
    head_root: bytes
    findings: tuple[Finding, ...]
    counts: Counts = field(default_factory=Counter)
    number: int = 0
    first: int = 0
    opened: bool = True
    checkpoints: int = 0

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and not self.number and self.root == self.head_root
