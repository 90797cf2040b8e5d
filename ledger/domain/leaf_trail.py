"""What the leaves of a ledger must be, one after the other, whoever shows them: without gap, never back in time, all of
one ledger, and after a key was named as shredded, without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from ledger.domain.events import Role
from ledger.domain.leaves import parse_leaf
from ledger.errors import IntegrityError, UnknownFormatError


class TrailError(IntegrityError):
    """A leaf does not fit to those before it. ``position``: where it stands."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__(f"the leaf at position {position} {detail}")
        self.position = position


@dataclass(slots=True)
class LeafTrail:
    """How far the leaves were followed. In memory stays the id of each key that is dead, and nothing else that grows.

    ``size``: how many leaves; ``recorded_at``: that of the last one.
    """

    size: int = 0
    recorded_at: int | None = None
    ledger_id: UUID | None = None
    dead: set[bytes] = field(default_factory=set)

    def follow(self, raw: bytes) -> list[bytes]:
        """Take the next leaf; gives the keys that it names as shredded. Raises ``TrailError``, and is as before."""
        position = self.size
        try:
            leaf = parse_leaf(raw)
        except UnknownFormatError as error:
            raise TrailError(position, f"cannot be read: {error.detail}") from None
        if leaf.position != position:
            raise TrailError(position, f"says that it stands at {leaf.position}")
        if self.ledger_id not in (None, leaf.envelope.ledger_id):
            raise TrailError(position, "is of another ledger")
        if self.recorded_at is not None and leaf.recorded_at < self.recorded_at:
            raise TrailError(position, "was recorded before the one in front of it")
        if any(part.role != Role.SHREDDED and part.key_id in self.dead for part in leaf.parts):
            raise TrailError(position, "uses a key that was shredded before")
        shredded = [part.key_id for part in leaf.parts if part.role == Role.SHREDDED and part.key_id not in self.dead]
        self.size, self.recorded_at, self.ledger_id = position + 1, leaf.recorded_at, leaf.envelope.ledger_id
        self.dead.update(shredded)
        return shredded
