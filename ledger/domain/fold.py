"""Folds: from the events of a stream to what they amount to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger.domain.events import JsonObject, OpenedEvent, Role
from ledger.domain.state import merge_patch


@dataclass(frozen=True, slots=True)
class Fold:
    """A pure function from a state and an event to the next state, with a name and a version.

    States are JSON objects. ``apply`` changes neither of its arguments and lets events of unknown types pass.
    ``roles``: the parts of an event that it looks at; no other part is opened for it. A snapshot belongs to name and
    version: who changes what ``apply`` does raises ``version``.
    """

    name: str
    version: int
    apply: Callable[[JsonObject, OpenedEvent], JsonObject]
    roles: frozenset[Role] = frozenset({Role.SUBJECT, Role.NONPERSONAL})

    @property
    def label(self) -> str:
        """``name/version``, as snapshots are filed."""
        return f"{self.name}/{self.version}"


def _merge(state: JsonObject, event: OpenedEvent) -> JsonObject:
    for patch in (event.nonpersonal, event.subject.data if event.subject else None):
        if patch is not None:
            state = merge_patch(state, patch)
    return state


MERGE_PATCH: Final = Fold("merge-patch", 1, _merge)
"""The default: JSON Merge Patch (RFC 7396) of each event's nonpersonal part, then its data."""
