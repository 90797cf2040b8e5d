"""What states are made of: JSON Merge Patch (RFC 7396), and the count of what could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ledger.domain.events import Redaction


@dataclass(frozen=True, slots=True)
class HiddenParts:
    """How many parts of a stream's events are hidden for the same reason. ``positions``: of the first and the last."""

    redaction: Redaction
    events: int
    positions: tuple[int, int]


class HiddenCount:
    """Counts hidden parts by what hides them, in the order in which they were first met."""

    def __init__(self, known: Iterable[HiddenParts] = ()) -> None:
        self._parts = {_reason_of(hidden.redaction): hidden for hidden in known}

    def add(self, redaction: Redaction, position: int) -> None:
        """Count one more."""
        key = _reason_of(redaction)
        known = self._parts.get(key)
        if known is None:
            self._parts[key] = HiddenParts(redaction, 1, (position, position))
            return
        first, last = known.positions
        positions = (min(first, position), max(last, position))
        self._parts[key] = HiddenParts(known.redaction, known.events + 1, positions)

    def result(self) -> tuple[HiddenParts, ...]:
        """All that was counted."""
        return tuple(self._parts.values())


def _reason_of(redaction: Redaction) -> tuple[str, bytes | None, str | None, str, UUID | None]:
    return redaction.pointer, redaction.subject_ref, redaction.purpose, redaction.reason, redaction.erasure_id


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a patch as RFC 7396 §2 says; neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
