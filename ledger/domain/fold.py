"""Folds: from the events of a stream to what they amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from ledger.domain.events import JsonObject, OpenedEvent, Redaction, Role
from ledger.domain.shapes import Shapes, in_unknown_shape, note_shape
from ledger.domain.state import HiddenCount, HiddenParts, merge_patch


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


@dataclass(frozen=True, slots=True)
class Folded:
    """What the events of a stream amount to.

    ``stream_version``, ``position``, ``leaf_hash``: of the last event that went in; 0, -1 and nothing before the first.
    ``hidden``: what could not be read of the parts that the fold looks at. ``key_ids``: of the subjects' keys that went
    in, in order of their first use. ``unknown_versions``: events shown as recorded although their type is registered,
    because nobody knows the way from their version. ``shapes``: event type → the shape in which its events went in.
    """

    stream_version: int = 0
    position: int = -1
    leaf_hash: bytes = b""
    state: JsonObject = field(default_factory=dict)
    hidden: tuple[HiddenParts, ...] = ()
    key_ids: tuple[bytes, ...] = ()
    unknown_versions: int = 0
    shapes: Shapes = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """False when a hidden part could have changed ``state``."""
        return not self.hidden

    @property
    def final(self) -> bool:
        """Whether the same events will always fold to this, until somebody is erased or a type gets a new version: what
        is erased stays so; what is restricted, unreadable or of an unknown version may be readable tomorrow."""
        return (
            self.unknown_versions == 0
            and not any(shape.mixed for shape in self.shapes.values())
            and all(part.redaction.reason == "erased" for part in self.hidden)
        )


NOTHING: Final = Folded()
"""A stream before its first event. Shared: nobody changes a state."""


class Folding:
    """Folds events, given in the order in which they count, without keeping them."""

    def __init__(self, fold: Fold, start: Folded = NOTHING) -> None:
        self._fold = fold
        self._state = start.state
        self._version = start.stream_version
        self._position = start.position
        self._leaf_hash = start.leaf_hash
        self._hidden = HiddenCount(start.hidden)
        self._key_ids = dict.fromkeys(start.key_ids)
        self._unknown_versions = start.unknown_versions
        self._shapes = dict(start.shapes)

    @property
    def state(self) -> JsonObject:
        """As it is now. Not to be changed."""
        return self._state

    @property
    def stream_version(self) -> int:
        """The highest that went in."""
        return self._version

    def add(self, event: OpenedEvent) -> None:
        """Fold one more event."""
        recorded = event.recorded
        self._state = self._fold.apply(self._state, event)
        self._version = max(self._version, recorded.stream_version)
        if recorded.position > self._position:
            self._position, self._leaf_hash = recorded.position, recorded.leaf_hash
        for redaction in hidden_from(self._fold, event):
            self._hidden.add(redaction, recorded.position)
        self._key_ids.update(dict.fromkeys(event.opened_keys))
        if in_unknown_shape(event):
            self._unknown_versions += 1
        else:
            note_shape(self._shapes, event)

    def extend(self, events: Iterable[OpenedEvent]) -> None:
        """Fold further events."""
        for event in events:
            self.add(event)

    def result(self) -> Folded:
        """What all that was folded amounts to."""
        return Folded(
            stream_version=self._version,
            position=self._position,
            leaf_hash=self._leaf_hash,
            state=self._state,
            hidden=self._hidden.result(),
            key_ids=tuple(self._key_ids),
            unknown_versions=self._unknown_versions,
            shapes=dict(self._shapes),
        )


def hidden_from(fold: Fold, event: OpenedEvent) -> list[Redaction]:
    """What is hidden of an event that the fold would have looked at."""
    return [redaction for redaction in event.redactions if _looks_at(fold, redaction.pointer)]


def _looks_at(fold: Fold, pointer: str) -> bool:
    # "": the event as a whole is not what was recorded.
    return pointer == "" or _ROLES.get(pointer, Role.FURTHER) in fold.roles


_ROLES: Final = {
    "/data": Role.SUBJECT,
    "/actor": Role.ACTOR,
    "/nonpersonal": Role.NONPERSONAL,
    "/stream": Role.STREAM_NAME,
}
"""Which part stands at a pointer of an event; what is not here is one of the further persons' parts."""


def _merge(state: JsonObject, event: OpenedEvent) -> JsonObject:
    for patch in (event.nonpersonal, event.subject.data if event.subject else None):
        if patch is not None:
            state = merge_patch(state, patch)
    return state


MERGE_PATCH: Final = Fold("merge-patch", 1, _merge)
"""The default: JSON Merge Patch (RFC 7396) of each event's nonpersonal part, then its data."""
