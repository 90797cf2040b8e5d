"""Looks for a way from a name to a ref, with everything that somebody could have in hand: rows of any number of
databases and copies of them, and keys. Rows that have a value in common are joined, whatever the columns are; every
blob is tried with every key, and what it opens to is a value too."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from keyvault import envelope
from keyvault.envelope import NameKind, WrapKind
from keyvault.errors import NotAuthenticError

# What stands in every row of a ledger joins everything with everything, and leads to nobody.
_TELLS_NOTHING: Final = {"ledger_id", "requested_by", "recorded_by", "reinstated_by"}
_SMALLEST_TIME: Final = 1_000_000_000
_IDS: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?:[0-9a-f]{32})?")


@dataclass(frozen=True)
class Row:
    """A row of any table; on PostgreSQL with the number of the transaction that wrote it."""

    table: str
    columns: dict[str, Any]

    def values(self) -> Iterator[object]:
        """What it could have in common with others: bytes, ids in texts, times."""
        for name, value in self.columns.items():
            if name in _TELLS_NOTHING:
                continue
            if name == "xmin":
                yield ("written by", value)
            elif isinstance(value, UUID):
                yield value.bytes
            elif isinstance(value, bytes) and value:
                yield value
            elif isinstance(value, str):
                yield from (bytes.fromhex(found.replace("-", "")) for found in _IDS.findall(value))
            elif isinstance(value, int) and value > _SMALLEST_TIME:
                yield value


def rows_of(engine: sa.Engine, *, physical: bool = True) -> list[Row]:
    """Every row of every table. ``physical``: with the traces that only the files themselves hold."""
    found = []
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            extra = ", xmin::text" if physical and connection.dialect.name == "postgresql" else ""
            selected = connection.execute(sa.text(f'SELECT *{extra} FROM "{table}"'))
            found += [Row(table, dict(row)) for row in selected.mappings()]
    return found


def ways_from(digest: bytes, rows: Sequence[Row], keys: Collection[bytes]) -> set[object]:
    """Every value that a name hash leads to."""
    opened = _open_all(rows, set(keys))
    values = {number: {*row.values(), *opened[number]} for number, row in enumerate(rows)}
    holders = defaultdict(set)
    for number, held in values.items():
        for value in held:
            holders[value].add(number)
    reached: set[object] = {digest}
    waiting: list[object] = [digest]
    while waiting:
        for number in holders[waiting.pop()]:
            new = values[number] - reached
            reached |= new
            waiting += new
    return reached


def _open_all(rows: Sequence[Row], keys: set[bytes]) -> dict[int, set[object]]:
    """Row → what its blobs open to, with these keys and all that these open in turn."""
    found: dict[int, set[object]] = defaultdict(set)
    while True:
        before = len(keys)
        for number, row in enumerate(rows):
            for plaintext in _opened(row, keys):
                found[number].add(plaintext)
                if len(plaintext) == envelope.KEY_SIZE and row.table not in ("subject_names", "streams"):
                    keys.add(plaintext)
                    found[number].add(envelope.key_id_of(plaintext))
                else:
                    found[number] |= {plaintext[:16], plaintext[16:]} - {b""}
        if len(keys) == before:
            return found


def _opened(row: Row, keys: Iterable[bytes]) -> set[bytes]:
    columns, found = row.columns, set()
    for key in list(keys):
        with suppress(NotAuthenticError, TypeError, ValueError):
            if row.table in ("subject_names", "streams"):
                kind = NameKind.SUBJECT if row.table == "subject_names" else NameKind.STREAM
                sealed = columns["sealed_ref" if row.table == "subject_names" else "sealed_refs"]
                ledger_id, digest, link_id = _uuid(columns["ledger_id"]), columns["name_hash"], columns["link_id"]
                found.add(envelope.open_refs(key, kind, ledger_id, digest, link_id, sealed))
            elif "wrapped" in columns or "wrapped_dek" in columns:
                found.add(envelope.unwrap(key, columns.get("wrapped") or columns["wrapped_dek"], _aad(row)))
    return found


def _aad(row: Row) -> bytes:
    columns = row.columns
    kinds = {"subject_keys": WrapKind.DEK, "link_keys": WrapKind.LINK_KEY, "subject_links": WrapKind.LINK_KEY}
    return envelope.wrap_aad(
        kinds.get(row.table) or WrapKind(columns["kind"]),
        key_id=columns.get("key_id") or columns.get("link_id") or envelope.ABSENT_KEY_ID,
        ledger_id=_uuid(columns["ledger_id"]),
        subject_ref=columns.get("subject_ref") or envelope.ABSENT_REF,
        purpose=columns.get("purpose") or "",
        generation=columns.get("generation") or 0,
        epoch=columns["epoch"],
    )


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(bytes=value)
