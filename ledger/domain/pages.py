"""Places where the next page of an answer begins, and their cursors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar
from uuid import UUID

from ledger.domain.cursors import pack_cursor, unpack_cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesPlace:
    """Which states, and the stream that the last page ended with."""

    category: str | None = None
    subject_ref: bytes | None = None
    as_of: int
    occurred: int | None = None
    after_ref: bytes | None = None

    @property
    def possible(self) -> bool:
        """Whether a page can have ended here."""
        one_question = (self.category is None) != (self.subject_ref is None)
        return one_question and self.as_of >= 0 and self.after_ref is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPlace:
    """Between which moments, and the stream that the last page ended with."""

    category: str | None = None
    old: int
    as_of: int
    old_occurred: int | None = None
    new_occurred: int | None = None
    after_ref: bytes | None = None

    @property
    def possible(self) -> bool:
        """Whether a page can have ended here."""
        if self.old_occurred is None or self.new_occurred is None:
            in_order = self.old_occurred is self.new_occurred
        else:
            in_order = self.old_occurred <= self.new_occurred
        return in_order and -1 <= self.old <= self.as_of and None not in (self.category, self.after_ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPlace:
    """Whose history, and how many of its events (in their order) are done with. The field is not in it: its name can be
    somebody's."""

    stream_ref: bytes
    as_of: int
    occurred: int | None = None
    done: int = 0

    @property
    def possible(self) -> bool:
        """Whether a page can have ended here."""
        return self.as_of >= 0 and self.done >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsPlace:
    """Which documents of which read model, and the one that the last page ended with."""

    read_model: str
    bucket: str | None = None
    after_key: bytes

    @property
    def possible(self) -> bool:
        """Whether a page can have ended here."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedPlace:
    """Of which subscription, and the position of the message that the last page ended with."""

    subscription: str
    after: int

    @property
    def possible(self) -> bool:
        """Whether a page can have ended here."""
        return self.after >= 0


PagePlace = StatesPlace | DiffPlace | HistoryPlace | DocumentsPlace | ParkedPlace
P = TypeVar("P", bound=PagePlace)

_REF_BYTES: Final = 16
_TEXTS: Final = frozenset({"category", "read_model", "bucket", "subscription"})
_STORABLE: Final = 2**63


def encode_page(ledger_id: UUID, place: PagePlace) -> str:
    """The cursor of the page that begins behind this place."""
    members = {
        item.name: value.hex() if isinstance(value, bytes) else value
        for item in fields(place)
        if (value := getattr(place, item.name)) is not None
    }
    return pack_cursor(ledger_id, type(place).__name__, members)


def decode_page(ledger_id: UUID, kind: type[P], cursor: str) -> P:
    """Read a cursor. Raises ``InvalidError`` for anything that no answer of this kind has given in this ledger."""

    def read(members: dict[str, Any]) -> P:
        place = kind(**{name: _value(name, value) for name, value in members.items()})
        if not place.possible:
            raise ValueError("no page ends there")
        return place

    def pack(place: P) -> str:
        return encode_page(ledger_id, place)

    return unpack_cursor(cursor, read, pack)


def _value(name: str, value: Any) -> Any:
    if name.endswith("_ref"):
        ref = bytes.fromhex(value)
        if len(ref) != _REF_BYTES:
            raise ValueError("not a ref")
        return ref
    if name.endswith("_key"):
        return bytes.fromhex(value)
    if name in _TEXTS:
        # No column can hold NUL or a lone surrogate; such a text would be an error of the database.
        if not isinstance(value, str) or not value.isprintable():
            raise TypeError("not a text")
        return value
    # bool is an int to Python, not to JSON.
    if type(value) is not int or not -_STORABLE <= value < _STORABLE:
        raise ValueError("not a number that a column can hold")
    return value
