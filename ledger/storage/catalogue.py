"""The event types and the policy of each ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Row, exc

from ledger.domain.catalogue import EventType, definition_of
from ledger.domain.events import JsonObject
from ledger.errors import AlreadyExistsError
from ledger.ports import CatalogueMark
from ledger.storage.database import Question, read, writing
from ledger.storage.tables import Id, event_types, ledgers

_NOTHING_FITS: Final[JsonObject] = {"not": {}}
"""The schema of a version whose row was altered by hand: nothing more is recorded of it, and nothing is led to it."""

_OF_LEDGER: Final = sa.bindparam("ledger", type_=Id)
_COUNT: Final = sa.select(sa.func.count()).select_from(event_types).where(event_types.c.ledger_id == _OF_LEDGER)
_MARK: Final = Question(
    sa.select(_COUNT.scalar_subquery().label("types"), ledgers.c.policy).where(ledgers.c.ledger_id == _OF_LEDGER)
)


class SqlCatalogues:
    """Satisfies ``ledger.ports.Catalogues``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def catalogue_mark(self, ledger_id: UUID) -> CatalogueMark:
        """How many versions are registered, and the policy."""
        for row in _MARK.look(self._engine, ledger=ledger_id):
            return CatalogueMark(row.types, _object(row.policy))
        return CatalogueMark(0, {})

    def event_types(self, ledger_id: UUID) -> Sequence[EventType]:
        """All versions, in order of type and version."""
        columns = event_types.c
        statement = (
            sa.select(event_types).where(columns.ledger_id == ledger_id).order_by(columns.event_type, columns.version)
        )
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return [_event_type(row) for row in found]

    def add_event_type(self, ledger_id: UUID, event_type: EventType) -> bool:
        """Add a version; False when it is there already."""
        try:
            with writing(self._engine) as connection:
                _insert(connection, ledger_id, event_type)
        except AlreadyExistsError:
            return False
        return True

    def set_policy(self, ledger_id: UUID, policy: JsonObject) -> None:
        """Replace the policy."""
        with writing(self._engine) as connection:
            statement = sa.update(ledgers).where(ledgers.c.ledger_id == ledger_id)
            connection.execute(statement.values(policy=json.dumps(policy)))


def _insert(connection: Connection, ledger_id: UUID, event_type: EventType) -> None:
    values = {
        "ledger_id": ledger_id,
        "event_type": event_type.event_type,
        "version": event_type.version,
        "definition": json.dumps(definition_of(event_type)),
        "registered_at": event_type.registered_at,
        "registered_by": event_type.registered_by,
    }
    try:
        connection.execute(sa.insert(event_types), values)
    except exc.IntegrityError:
        # Its key is taken. Of two at once the second waits for the first to commit and is then refused.
        raise AlreadyExistsError("the version is registered") from None


def _event_type(row: Row[Any]) -> EventType:
    """A version of a row of ``event_types``. Never raises: a row that was altered by hand must not hide the others."""
    definition = _object(row.definition) or {}
    schema, nonpersonal = definition.get("schema", _NOTHING_FITS), definition.get("nonpersonal_schema", _NOTHING_FITS)
    upcast, closes = definition.get("upcast"), definition.get("closes_stream")
    return EventType(
        event_type=str(row.event_type),
        version=row.version if isinstance(row.version, int) else 0,
        schema=schema if schema is None or isinstance(schema, dict) else _NOTHING_FITS,
        nonpersonal_schema=nonpersonal if nonpersonal is None or isinstance(nonpersonal, dict) else _NOTHING_FITS,
        upcast=upcast if isinstance(upcast, list) else None,
        closes_stream=closes is True,
        registered_at=row.registered_at if isinstance(row.registered_at, int) else 0,
        registered_by=row.registered_by,
    )


def _object(text: object) -> dict[str, Any] | None:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return dict(value) if isinstance(value, Mapping) else None
