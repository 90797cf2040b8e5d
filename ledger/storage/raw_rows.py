"""Rows as the two engines deliver them, in the bytes that ``verify`` hashes: many times as quick as values.

PostgreSQL copies rows out in binary, which is nearly what a leaf is made of: numbers big-endian, each field behind its
length. For SQLite the same bytes are made of what its driver gives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from ledger.domain.encoding import FORMAT_1, key_record
from ledger.errors import StoreUnavailableError
from ledger.ports.evidence import LeafRow

_AT_ONCE: Final = 5000
_LEAF_PREFIX: Final = b"\x00"
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
_HEADER_BYTES: Final = 19
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_ABSENT: Final = b"\x00"
_PRESENT: Final = b"\x01"
_THREE_NULLS: Final = 3 * _NULL
_THREE_ABSENT: Final = 3 * _ABSENT
_SHORT: Final = b"\x00\x00"
_NEGATIVE: Final = b"\x80"
_TIME_BYTES: Final = 8
_ID_BYTES: Final = 16
_HASH_BYTES: Final = 32

_EVENT_COLUMNS: Final = (
    "position, event_id, stream_ref, stream_version, schema_version, recorded_at, recorded_by, leaf_hash, sealed, "
    "category, event_type, occurred_at, correlation_id, causation_id"
)
_EVENT_FIELDS: Final = struct.Struct(">H I8s I16s I16s I8s I4s I8s I16s I32s I")
"""The columns from ``position`` to ``leaf_hash``, each behind its length, and the length of ``sealed``."""

_EVENT_LENGTHS: Final = (14, 8, 16, 16, 8, 4, 8, 16, 32)
_KEY_COLUMNS: Final = "position, part, role, key_id"

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_I64: Final = struct.Struct(">q")


def leaf_rows(connection: Connection, ledger_id: UUID, first: int, last: int) -> list[LeafRow] | None:
    """See ``ledger.ports.Evidence.leaf_rows``."""
    fixed = _LEAF_PREFIX + FORMAT_1 + ledger_id.bytes
    statement = (
        f"SELECT {_EVENT_COLUMNS} FROM events "  # noqa: S608 - names of columns
        "WHERE ledger_id = {} AND position BETWEEN {} AND {} ORDER BY position"
    )
    read: Callable[[bytes, Any], LeafRow] = _copied_leaf if connection.dialect.name == "postgresql" else _made_leaf
    try:
        batches = _batches(connection, statement, (ledger_id, first, last))
        return [read(fixed, row) for batch in batches for row in batch]
    except (ValueError, OverflowError, TypeError, struct.error):
        return None


def key_records(
    connection: Connection, ledger_id: UUID, first: bytes | None, beyond: bytes | None
) -> Iterator[Sequence[bytes]]:
    """See ``ledger.ports.Evidence.key_records``."""
    statement = f"SELECT {_KEY_COLUMNS} FROM event_keys WHERE ledger_id = {{}}"  # noqa: S608 - names of columns
    parameters: list[object] = [ledger_id]
    for comparison, bound in ((">=", first), ("<", beyond)):
        if bound is not None:
            statement += f" AND key_id {comparison} {{}}"
            parameters.append(bound)
    for batch in _batches(connection, statement, parameters):
        if connection.dialect.name == "postgresql":
            # Without the number of columns, which stands before each row.
            yield [row[2:] for row in batch]
        else:
            yield [_made_record(row) for row in batch]


def _batches(connection: Connection, statement: str, parameters: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a SELECT, some at a time: in PostgreSQL bytes, in SQLite tuples."""
    if connection.dialect.name == "postgresql":
        yield from _copied(connection, statement.format(*["%s"] * len(parameters)), parameters)
        return
    values = tuple(value.bytes if isinstance(value, UUID) else value for value in parameters)
    answer = connection.exec_driver_sql(statement.format(*("?" * len(values))), values)
    while batch := answer.fetchmany(_AT_ONCE):
        yield batch


def _copied(connection: Connection, statement: str, parameters: Sequence[Any]) -> Iterator[list[bytes]]:
    """Rows in PostgreSQL's binary COPY format: each the number of its fields, and the fields."""
    driver: Any = connection.connection.driver_connection
    try:
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT BINARY)", parameters) as answer,
        ):
            take = driver.pgconn.get_copy_data
            first = bytes(answer.read())
            row = first[_HEADER_BYTES:] if first.startswith(_SIGNATURE) else first
            batch: list[bytes] = []
            while row and row != _TRAILER:
                batch.append(row)
                if len(batch) == _AT_ONCE:
                    yield batch
                    batch = []
                # What has arrived is taken past the driver, which takes longer to hand a row over than ``verify`` has
                # for it; for the rest it waits.
                length, data = take(1)
                row = bytes(data) if length > 0 else bytes(answer.read())
            # Nothing comes any more; asking for it ends the COPY.
            answer.read()
            yield batch
    except driver.Error as error:
        # ``from None``: the original text can hold values.
        code = getattr(error, "sqlstate", None)
        raise StoreUnavailableError(f"the ledger database cannot be used ({type(error).__name__} {code})") from None


def _copied_leaf(fixed: bytes, row: bytes) -> LeafRow:
    """A row of a COPY. Raises ``ValueError`` or ``struct.error`` for what no leaf can hold."""
    (
        number,
        of_position,
        position,
        of_id,
        event_id,
        of_ref,
        stream_ref,
        of_version,
        version,
        of_schema,
        schema,
        of_recorded,
        recorded_at,
        of_recorder,
        recorded_by,
        of_leaf,
        leaf_hash,
        sealed_bytes,
    ) = _EVENT_FIELDS.unpack_from(row)
    lengths = (number, of_position, of_id, of_ref, of_version, of_schema, of_recorded, of_recorder, of_leaf)
    # Negative where a leaf has no sign, or of another length than a leaf's: altered by hand.
    if lengths != _EVENT_LENGTHS or version >= _NEGATIVE or schema >= _NEGATIVE:
        raise ValueError("not the fields of a leaf")
    words_at = _EVENT_FIELDS.size + sealed_bytes
    type_at = words_at + 4 + int.from_bytes(row[words_at : words_at + 4])
    optional_at = type_at + 4 + int.from_bytes(row[type_at : type_at + 4])
    # The lower half of each length is the one that a leaf has.
    words = row[words_at + 2 : type_at] + row[type_at + 2 : optional_at]
    if row[words_at : words_at + 2] != _SHORT or row[type_at : type_at + 2] != _SHORT or not words.isascii():
        raise ValueError("not the words of a leaf")
    optional = _optional_fields(row[optional_at:])
    return (
        position,
        b"".join((fixed, position, event_id, stream_ref, version, words, schema, recorded_at, optional, recorded_by)),
        recorded_at,
        leaf_hash,
        row[_EVENT_FIELDS.size : words_at],
    )


def _optional_fields(rest: bytes) -> bytes:
    """Occurred-at, correlation and causation id, as a leaf has them."""
    if rest == _THREE_NULLS:
        return _THREE_ABSENT
    occurred, at = _optional(rest, 0, _TIME_BYTES)
    correlation, at = _optional(rest, at, _ID_BYTES)
    causation, at = _optional(rest, at, _ID_BYTES)
    if at != len(rest):
        raise ValueError("not the fields of a leaf")
    return occurred + correlation + causation


def _optional(rest: bytes, at: int, length: int) -> tuple[bytes, int]:
    """A field that may be null, as a leaf has it, and where the next one begins."""
    begin = at + 4
    if rest[at:begin] == _NULL:
        return _ABSENT, begin
    return _PRESENT + rest[begin : begin + length], begin + length


def _made_leaf(fixed: bytes, row: Sequence[Any]) -> LeafRow:
    """A row of SQLite's driver, where a hand can have put anything into any column."""
    position, event_id, stream_ref, version, schema, recorded_at, recorded_by, leaf_hash, sealed = row[:9]
    category, event_type, occurred_at, correlation_id, causation_id = row[9:]
    here, recorded = _U64.pack(position), _I64.pack(recorded_at)
    prefix = b"".join(
        (
            fixed,
            here,
            _exactly(_ID_BYTES, event_id),
            _exactly(_ID_BYTES, stream_ref),
            _U64.pack(version),
            _word(category),
            _word(event_type),
            _U32.pack(schema),
            recorded,
            _ABSENT if occurred_at is None else _PRESENT + _I64.pack(occurred_at),
            _ABSENT if correlation_id is None else _PRESENT + _exactly(_ID_BYTES, correlation_id),
            _ABSENT if causation_id is None else _PRESENT + _exactly(_ID_BYTES, causation_id),
            _exactly(_ID_BYTES, recorded_by),
        )
    )
    return here, prefix, recorded, _exactly(_HASH_BYTES, leaf_hash), _any_bytes(sealed)


def _exactly(length: int, value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise ValueError("not a field of a leaf")
    return value


def _any_bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("not a field of a leaf")
    return value


def _word(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a word of a leaf")
    encoded = text.encode("ascii")
    return _U16.pack(len(encoded)) + encoded


def _made_record(row: Sequence[Any]) -> bytes:
    position, part, role, key_id = row
    try:
        return key_record(_I64.pack(position), part, role, _exactly(_HASH_BYTES, key_id))
    except (ValueError, TypeError, struct.error):
        # Longer than any record. The position stays where it is one, so that the row can be found.
        known = position if isinstance(position, int) else -1
        return key_record(_I64.pack(known), 0, 0, bytes(_HASH_BYTES)) + repr((part, role, key_id)).encode()
