"""Questions about events: as asked (names), as resolved (refs), as the store understands them (key ids, positions)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal
from uuid import UUID

from ledger.domain.cursors import pack_cursor, unpack_cursor
from ledger.domain.events import Role

OrderBy = Literal["recorded", "occurred"]
Order = Literal["asc", "desc"]

LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class NameOrRef:
    """Somebody or a stream, by name or by ref; ``field`` is where the request said so."""

    name: str | None
    ref: bytes | None


@dataclass(frozen=True, slots=True)
class AsOf:
    """A moment of the past: a time in microseconds, or a position; exactly one."""

    time: int | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What ``as_of`` resolved to: the last event included. Position -1: before the first event."""

    position: int
    recorded_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What a query says in the same words at every stage. Times in microseconds; ranges are half-open; empty
    ``types``: all."""

    after_version: int = 0
    category: str | None = None
    types: tuple[str, ...] = ()
    correlation_id: UUID | None = None
    recorded_by: UUID | None = None
    occurred_from: int | None = None
    occurred_to: int | None = None
    order_by: OrderBy = "recorded"
    order: Order = "asc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Criteria):
    """What is resolved to positions before the store is asked."""

    recorded_from: int | None = None
    recorded_to: int | None = None
    after_position: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery(Window):
    """A query as a client asks it: names or refs, and a moment."""

    stream: NameOrRef | None = None
    subject: NameOrRef | None = None
    actor: NameOrRef | None = None
    involving: NameOrRef | None = None
    as_of: AsOf | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedQuery(Window):
    """A query with names turned into refs and ``as_of`` into a position: what a cursor pins.

    ``nothing``: a name that the query asks for is not known, so no event can match.
    """

    as_of: int
    nothing: bool = False
    stream_ref: bytes | None = None
    subject_ref: bytes | None = None
    actor_ref: bytes | None = None
    involving_ref: bytes | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The last event of a page: where the next page goes on. ``occurred_at`` only for order by occurred."""

    position: int
    occurred_at: int | None = None


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """The event has a part in one of these roles under one of these keys."""

    roles: tuple[Role, ...]
    key_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EventFilter(Criteria):
    """What the store selects. Positions are inclusive; ``share``: the streams whose refs end in a byte from the first
    to the second, both included."""

    first_position: int
    last_position: int
    stream_ref: bytes | None = None
    keys: tuple[KeyCondition, ...] = ()
    share: tuple[int, int] | None = None


def window_of(query: EventQuery) -> dict[str, Any]:
    """The fields that a query and its pinned form share, by name."""
    return {field.name: getattr(query, field.name) for field in fields(Window)}


def encode_cursor(ledger_id: UUID, query: PinnedQuery, place: Place) -> str:
    """An opaque cursor: the pinned query (refs only, I5) and the place of the last event."""
    defaults = PinnedQuery(as_of=-1)
    members: dict[str, Any] = {
        name: _to_json(value)
        for name, value in asdict(query).items()
        if name in ("as_of", "order_by", "order") or value != getattr(defaults, name)
    }
    return pack_cursor(ledger_id, "events", members, place.position, place.occurred_at)


def decode_cursor(ledger_id: UUID, cursor: str) -> tuple[PinnedQuery, Place]:
    """Read a cursor. Raises ``InvalidError`` for anything that ``encode_cursor`` has not made for this ledger."""
    return unpack_cursor(cursor, _read_cursor, lambda found: encode_cursor(ledger_id, *found))


def _read_cursor(members: dict[str, Any], position: Any, occurred_at: Any) -> tuple[PinnedQuery, Place]:
    query = PinnedQuery(**{name: _from_json(name, value) for name, value in members.items()})
    place = Place(_number(position), None if occurred_at is None else _number(occurred_at))
    if query.order_by not in ("recorded", "occurred") or query.order not in ("asc", "desc"):
        raise ValueError("not an order")
    if (query.order_by == "occurred") != (occurred_at is not None):
        raise ValueError("not a place in this order")
    if not 0 <= place.position <= query.as_of:
        raise ValueError("no page ends there")
    return query, place


_BYTES_FIELDS: Final = frozenset({"stream_ref", "subject_ref", "actor_ref", "involving_ref"})
_ID_FIELDS: Final = frozenset({"correlation_id", "recorded_by"})
_TEXT_FIELDS: Final = frozenset({"category", "order_by", "order"})
_FIELDS: Final = frozenset(field.name for field in fields(PinnedQuery))
_REF_BYTES: Final = 16
_STORABLE: Final = 2**63
"""Numbers from minus this to below this fit a column; what does not would be an error of the database."""


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.hex if isinstance(value, UUID) else value


def _from_json(name: str, value: Any) -> Any:
    if name not in _FIELDS:
        raise ValueError("not a field of a query")
    if name in _BYTES_FIELDS:
        ref = bytes.fromhex(value)
        if len(ref) != _REF_BYTES:
            raise ValueError("not a ref")
        return ref
    if name in _ID_FIELDS:
        return UUID(hex=value)
    if name == "types":
        if len(value) > LIMIT:
            raise ValueError("more types than a query can ask for")
        return tuple(_text(item) for item in value)
    if name in _TEXT_FIELDS:
        return _text(value)
    if name == "nothing":
        return bool(value)
    return _number(value)


def _number(value: Any) -> int:
    # bool is an int to Python, not to JSON.
    if type(value) is not int or not -_STORABLE <= value < _STORABLE:
        raise ValueError("not a number that a column can hold")
    return value


def _text(value: Any) -> str:
    # No column can hold NUL or a lone surrogate; such a text would be an error of the database.
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError("not a text")
    return value


def narrow(query: PinnedQuery, first_position: int, last_position: int, keys: tuple[KeyCondition, ...]) -> EventFilter:
    """The filter of a pinned query whose recorded range and as-of resolved to these positions."""
    return EventFilter(
        max(first_position, query.after_position + 1),
        min(last_position, query.as_of),
        query.stream_ref,
        keys,
        **{field.name: getattr(query, field.name) for field in fields(Criteria)},
    )


def same_question(asked: PinnedQuery, pinned: PinnedQuery) -> bool:
    """Whether a query that is sent again with a cursor is the one that the cursor pins."""
    return replace(asked, as_of=pinned.as_of) == pinned
