"""Cursors of the pages of time travel: opaque, holding refs and positions only (I5), and refused when made by hand."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from ledger.errors import Fault, InvalidError


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesPlace:
    """Which states, and the stream that the last page ended with."""

    category: str | None = None
    subject_ref: bytes | None = None
    as_of: int
    occurred: int | None = None
    after_ref: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPlace:
    """Between which moments, and the stream that the last page ended with."""

    stream_ref: bytes | None = None
    category: str | None = None
    old: int
    as_of: int
    old_occurred: int | None = None
    new_occurred: int | None = None
    after_ref: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPlace:
    """Whose history, and how many of its events (in their order) are done with. The field is not in it: its name can be
    somebody's."""

    stream_ref: bytes
    as_of: int
    occurred: int | None = None
    done: int = 0


PageCursor = StatesPlace | DiffPlace | HistoryPlace
P = TypeVar("P", StatesPlace, DiffPlace, HistoryPlace)

_VERSION: Final = 1
_REF_BYTES: Final = 16
_STORABLE: Final = 2**63


def encode_page(place: PageCursor) -> str:
    """The cursor of the page that begins behind this place."""
    members = {
        item.name: value.hex() if isinstance(value, bytes) else value
        for item in fields(place)
        if (value := getattr(place, item.name)) is not None
    }
    text = json.dumps([_VERSION, type(place).__name__, members], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_page(kind: type[P], cursor: str) -> P:
    """Read a cursor. Raises ``InvalidError`` for anything that ``encode_page`` cannot have made of this kind."""
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        _, _, members = json.loads(text)
        place = kind(**{name: _value(name, value) for name, value in members.items()})
        # One place has one cursor: whatever else reads as the same was put together by hand.
        if encode_page(place) != cursor:
            raise ValueError("not what this version would have given")
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise InvalidError(
            "the cursor is not valid",
            [Fault("/cursor", "must be the 'next' of an earlier answer, unchanged; or leave it out to start again")],
        ) from None
    return place


def _value(name: str, value: Any) -> Any:
    if name.endswith("_ref"):
        ref = bytes.fromhex(value)
        if len(ref) != _REF_BYTES:
            raise ValueError("not a ref")
        return ref
    if name == "category":
        # No column can hold NUL or a lone surrogate; such a text would be an error of the database.
        if not isinstance(value, str) or not value.isprintable():
            raise TypeError("not a text")
        return value
    # bool is an int to Python, not to JSON.
    if type(value) is not int or not -_STORABLE <= value < _STORABLE:
        raise ValueError("not a number that a column can hold")
    return value
