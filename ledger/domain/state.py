"""The state of a stream: the fold of its events by JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ledger.domain.events import JsonObject, OpenedEvent, Redaction


@dataclass(frozen=True, slots=True)
class HiddenParts:
    """How many parts of a stream's events are hidden for the same reason. ``positions``: of the first and the last."""

    redaction: Redaction
    events: int
    positions: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream amounts to. ``complete`` is False when a hidden part could have changed ``state``."""

    stream_version: int
    state: JsonObject
    complete: bool
    hidden: tuple[HiddenParts, ...]


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


class StateFold:
    """Folds events, given in the order in which they count, without keeping them."""

    def __init__(self) -> None:
        self._state: JsonObject = {}
        self._version = 0
        self._hidden: dict[tuple[str, bytes | None, str | None, str, UUID | None], HiddenParts] = {}

    def extend(self, events: Iterable[OpenedEvent]) -> None:
        """Fold further events: of each the nonpersonal part, then the data."""
        for event in events:
            for patch in (event.nonpersonal, event.subject.data if event.subject else None):
                if patch is not None:
                    self._state = merge_patch(self._state, patch)
            self._version = max(self._version, event.recorded.stream_version)
            for redaction in event.redactions:
                self._hide(redaction, event.recorded.position)

    def _hide(self, redaction: Redaction, position: int) -> None:
        # The parts of actors and further persons, and a stream's name, do not enter the state.
        if redaction.pointer not in ("", "/data", "/nonpersonal"):
            return
        key = (
            redaction.pointer,
            redaction.subject_ref,
            redaction.purpose,
            redaction.reason,
            redaction.erasure_id,
        )
        known = self._hidden.get(key)
        if known is None:
            self._hidden[key] = HiddenParts(redaction, 1, (position, position))
        else:
            first, last = known.positions
            self._hidden[key] = HiddenParts(
                known.redaction, known.events + 1, (min(first, position), max(last, position))
            )

    def result(self) -> StreamState:
        """The state after all that was folded."""
        return StreamState(self._version, self._state, not self._hidden, tuple(self._hidden.values()))
