"""Every value that one field of a state ever had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger.domain.difference import ABSENT, Cause, Path, cause_of, same_json
from ledger.domain.events import OpenedEvent, Redaction
from ledger.domain.fold import NOTHING, Fold, Folded, Folding, hidden_from
from ledger.domain.pointers import value_at


@dataclass(frozen=True, slots=True)
class FieldValue:
    """What an event made of a field.

    ``absent``: True when it took the field away, and None when nobody can tell what it did: then the value is None and
    ``redactions`` says what hides it. Redactions beside a value: the event had more to say, which may have changed the
    field again.
    """

    value: Any
    absent: bool | None
    redactions: tuple[Redaction, ...]
    event: Cause


class FieldHistory:
    """Folds events, and tells after each one whether it did something to the field at ``path``."""

    def __init__(self, fold: Fold, path: Path, start: Folded = NOTHING) -> None:
        self._fold = fold
        self._path = path
        self._folding = Folding(fold, start)

    def add(self, event: OpenedEvent) -> FieldValue | None:
        """Fold one more event; None when it has left the field as it was and hides nothing."""
        before = value_at(self._folding.state, self._path)
        self._folding.add(event)
        after = value_at(self._folding.state, self._path)
        redactions = tuple(hidden_from(self._fold, event))
        if not same_json(before, after):
            absent = after is ABSENT
            return FieldValue(None if absent else after, absent, redactions, cause_of(event))
        return FieldValue(None, None, redactions, cause_of(event)) if redactions else None
