"""What a drill has found: checks with their verdicts, and what is told without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["held", "failed", "not looked at"]
HELD: Final = "held"
FAILED: Final = "failed"
NOT_LOOKED_AT: Final = "not looked at"
BLIND: Final = "the search does not see"
"""What a check says whose search did not find, before the erasure, what is known to be there: it shows nothing."""


class DrillError(Exception):
    """The drill cannot go on. The message says what to do, and holds nothing of anybody."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried. ``control``: what showed that the search would have seen it; ``sees``: it did."""

    name: str
    where: str
    verdict: Verdict
    found: str
    control: str = ""
    sees: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """Something that a reader of the report should know, and that decides nothing."""

    name: str
    text: str


def judged(name: str, where: str, *, faults: Sequence[str], held: str, sees: bool = True, control: str = "") -> Check:
    """Held when there is no fault and the search was seen to see. A fault that was found counts either way."""
    if faults:
        return Check(name, where, FAILED, "; ".join(faults), control, sees)
    if not sees:
        return Check(name, where, FAILED, f"{BLIND}: not so: {control}", control, sees)
    return Check(name, where, HELD, held, control)


def unseen(name: str, where: str, why: str) -> Check:
    """Not looked at, which is never as good as held."""
    return Check(name, where, NOT_LOOKED_AT, why)


def overall(checks: Sequence[Check]) -> Verdict:
    """The worst of them. Of no checks at all: failed, since nothing was shown."""
    verdicts = {check.verdict for check in checks}
    if FAILED in verdicts or not verdicts:
        return FAILED
    return NOT_LOOKED_AT if NOT_LOOKED_AT in verdicts else HELD
