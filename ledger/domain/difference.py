"""What is different between two states, where, and which event made it so.

Objects are compared member by member, everything else as a whole: an array that has one more item is another array. An
absent member is not the same as one that is null, and true is not the same as 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal
from uuid import UUID

from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import NOTHING, Fold, Folded, Folding

Path = tuple[str, ...]
"""The members that lead to a value, from the outside in."""


class Absence(Enum):
    """The type of ``ABSENT``."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT
"""In place of a value: there is none, not even null."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``old`` is None for ``add``, ``new`` for ``remove``."""

    path: Path
    op: Literal["add", "replace", "remove"]
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Cause:
    """Which event did something, and who acted in it. Not what else it said: an answer that names a thousand events
    shall not hold a thousand events. Times in microseconds."""

    event_id: UUID
    position: int
    event_type: str
    actor: str | None
    actor_ref: bytes | None
    recorded_at: int
    occurred_at: int | None


def cause_of(event: OpenedEvent) -> Cause:
    """The event as a cause. Its actor has a name if the part in this role was opened."""
    recorded, envelope = event.recorded, event.recorded.envelope
    return Cause(
        event_id=envelope.event_id,
        position=recorded.position,
        event_type=envelope.event_type,
        actor=event.actor.subject if event.actor is not None else None,
        actor_ref=event.actor.subject_ref if event.actor is not None else None,
        recorded_at=recorded.recorded_at,
        occurred_at=envelope.occurred_at,
    )


@dataclass(frozen=True, slots=True)
class AttributedChange:
    """A change, and the event that gave the value its new form."""

    change: Change
    event: Cause


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: as ``==``, but true is not 1."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def differences(old: JsonObject, new: JsonObject) -> list[Change]:
    """All changes from ``old`` to ``new``, in order of their paths."""
    return sorted(_changes((), old, new), key=lambda change: change.path)


def _changes(path: Path, old: Any, new: Any) -> Iterator[Change]:
    if old is new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _changes((*path, key), old.get(key, ABSENT), new.get(key, ABSENT))
    elif old is ABSENT:
        yield Change(path, "add", None, new)
    elif new is ABSENT:
        yield Change(path, "remove", old, None)
    elif not same_json(old, new):
        yield Change(path, "replace", old, new)


def apply_changes(changes: Iterable[Change], state: JsonObject) -> JsonObject:
    """The state that ``differences`` was given as the new one, from the old one; neither argument is changed."""
    for change in changes:
        state = _changed(state, change.path, ABSENT if change.op == "remove" else change.new)
    return state


def _changed(state: JsonObject, path: Path, value: Any) -> JsonObject:
    key, *rest = path
    changed = dict(state)
    if rest:
        changed[key] = _changed(state[key], tuple(rest), value)
    elif value is ABSENT:
        del changed[key]
    else:
        changed[key] = value
    return changed


def changed_paths(old: Any, new: Any, path: Path = ()) -> Iterator[Path]:
    """Every path, inner and outer, whose value is another in ``new`` than in ``old``, or absent in one of them."""
    if same_json(old, new):
        return
    yield path
    before = old if isinstance(old, dict) else {}
    after = new if isinstance(new, dict) else {}
    for key in dict.fromkeys([*before, *after]):
        yield from changed_paths(before.get(key, ABSENT), after.get(key, ABSENT), (*path, key))


class Comparison:
    """Folds the events of a stream to two states at once, and remembers which event changed what.

    Every event of the old state is one of the new state, too, and in the same order; ``start`` is what both begin with.
    """

    def __init__(self, fold: Fold, start: Folded = NOTHING) -> None:
        self._old = Folding(fold, start)
        self._new = Folding(fold, start)
        self._last: dict[Path, Cause] = {}
        self._newest: Cause | None = None

    def add(self, event: OpenedEvent, *, to_both: bool = False) -> None:
        """Fold one more event, into the new state or into both."""
        cause = cause_of(event)
        if to_both:
            self._old.add(event)
        else:
            self._newest = cause
        before = self._new.state
        self._new.add(event)
        for path in changed_paths(before, self._new.state):
            self._last[path] = cause

    @property
    def old(self) -> Folded:
        """The old state."""
        return self._old.result()

    @property
    def new(self) -> Folded:
        """The new state."""
        return self._new.result()

    def changes(self) -> list[AttributedChange]:
        """What is different, each with the last event that changed the value on the way to the new state."""
        found = differences(self._old.state, self._new.state)
        return [AttributedChange(change, event) for change in found if (event := self._cause_of(change)) is not None]

    def _cause_of(self, change: Change) -> Cause | None:
        # A fold of which what an event does hangs on the events before it can lack a change here: a late event kept
        # another from having its effect. Without such an event the two states would be one.
        return self._last.get(change.path, self._newest)
