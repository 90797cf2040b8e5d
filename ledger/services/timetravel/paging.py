"""What the paged answers of time travel share."""

from __future__ import annotations

from uuid import UUID

from ledger.domain.query import Moment
from ledger.errors import Fault, InvalidError
from ledger.services.dependencies import Dependencies
from ledger.services.moments import BEFORE_ALL


def pinned_moment(deps: Dependencies, ledger_id: UUID, position: int) -> Moment:
    """The moment that a cursor pins. Raises ``InvalidError`` when this ledger has no such position."""
    if position == BEFORE_ALL:
        return Moment(position, None)
    if not 0 <= position < deps.store.head(ledger_id).size:
        raise InvalidError("the cursor is not valid", [Fault("/cursor", "is not of this ledger")])
    return Moment(position, deps.store.recorded_at(ledger_id, position))


def other_question() -> InvalidError:
    """A cursor beside a question that it was not given for."""
    fault = Fault("/cursor", "belongs to another question; send it with the question that it came from, or alone")
    return InvalidError("the cursor belongs to another question", [fault])
