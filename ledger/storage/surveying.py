"""What an append must know of the log under the head lock, in one look."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from ledger.ports.store import LogSurvey
from ledger.storage.database import driver_of
from ledger.storage.statements import in_chunks

# One way to the server in the place of five, while others wait for the head. The versions take one step down the index
# for each stream: a GROUP BY would read all the versions that a stream ever had. The ids do so too, and ask for an
# order that one index alone has: PostgreSQL keeps the plan that it made while the log was young, when every index
# looked equally good to it, until autovacuum looks at the table, and any other index reads the whole ledger by then.
#
# The arrays stand in SELECTs of their own, so that the planner does not see them: else it would find a plan for just
# these values cheaper than the one it has, and make one each time, which takes longer than to run it.
POSTGRESQL_SURVEY: Final = """
SELECT 'recorded', uuid_send(wanted.id), 0::bigint
  FROM unnest((SELECT %(ids)s::uuid[])) AS wanted (id)
 CROSS JOIN LATERAL (
       SELECT event_id FROM events
        WHERE ledger_id = %(ledger)s AND event_id >= wanted.id
        ORDER BY event_id LIMIT 1
       ) AS nearest
 WHERE nearest.event_id = wanted.id
UNION ALL
SELECT 'dead', key_id, 0 FROM shredded_keys
 WHERE ledger_id = %(ledger)s AND key_id = ANY((SELECT %(keys)s::bytea[])::bytea[])
UNION ALL
SELECT 'closed', stream_ref, 0 FROM closed_streams
 WHERE ledger_id = %(ledger)s AND stream_ref = ANY((SELECT %(refs)s::bytea[])::bytea[])
UNION ALL
SELECT 'abandoned', stream_ref, 0 FROM abandoned_streams
 WHERE ledger_id = %(ledger)s AND stream_ref = ANY((SELECT %(refs)s::bytea[])::bytea[])
UNION ALL
SELECT 'version', wanted.ref, newest.stream_version
  FROM unnest((SELECT %(refs)s::bytea[])) AS wanted (ref)
 CROSS JOIN LATERAL (
       SELECT stream_version FROM events
        WHERE ledger_id = %(ledger)s AND stream_ref = wanted.ref
        ORDER BY stream_version DESC LIMIT 1
       ) AS newest
"""


def survey(
    connection: Connection,
    ledger_id: UUID,
    event_ids: Collection[UUID],
    key_ids: Collection[bytes],
    stream_refs: Collection[bytes],
) -> LogSurvey:
    """See ``ledger.ports.HeadLock.survey``."""
    if connection.dialect.name != "postgresql":
        among = partial(_among, connection, ledger_id.bytes)
        return LogSurvey(
            recorded=frozenset(
                UUID(bytes=found) for found in among("events", "event_id", [event_id.bytes for event_id in event_ids])
            ),
            dead=among("shredded_keys", "key_id", key_ids),
            closed=among("closed_streams", "stream_ref", stream_refs),
            abandoned=among("abandoned_streams", "stream_ref", stream_refs),
            versions=_versions(connection, ledger_id.bytes, stream_refs),
        )
    values = {"ledger": ledger_id, "ids": list(event_ids), "keys": list(key_ids), "refs": list(stream_refs)}
    found: dict[str, dict[bytes, Any]] = {what: {} for what in ("recorded", "dead", "closed", "abandoned", "version")}
    for what, which, number in driver_of(connection).execute(POSTGRESQL_SURVEY, values):
        found[what][which] = number
    return LogSurvey(
        recorded=frozenset(UUID(bytes=event_id) for event_id in found["recorded"]),
        dead=frozenset(found["dead"]),
        closed=frozenset(found["closed"]),
        abandoned=frozenset(found["abandoned"]),
        versions=found["version"],
    )


# SQLite has no arrays. The text of a statement is put together here, since to have it made costs more than to run it.


def _among(
    connection: Connection, ledger_id: bytes, table: str, column: str, values: Collection[bytes]
) -> frozenset[bytes]:
    found: set[bytes] = set()
    for chunk in in_chunks(values):
        places = ",".join("?" * len(chunk))
        statement = f"SELECT {column} FROM {table} WHERE ledger_id = ? AND {column} IN ({places})"  # noqa: S608 - no value
        found.update(row[0] for row in connection.exec_driver_sql(statement, (ledger_id, *chunk)))
    return frozenset(found)


def _versions(connection: Connection, ledger_id: bytes, stream_refs: Collection[bytes]) -> dict[bytes, int]:
    versions: dict[bytes, int] = {}
    for chunk in in_chunks(stream_refs):
        statement = (
            f"WITH wanted (ref) AS (VALUES {','.join(['(?)'] * len(chunk))}) "  # noqa: S608 - no value
            "SELECT ref, (SELECT stream_version FROM events WHERE ledger_id = ? AND stream_ref = ref "
            "ORDER BY stream_version DESC LIMIT 1) FROM wanted"
        )
        rows = connection.exec_driver_sql(statement, (*chunk, ledger_id))
        versions.update((ref, version) for ref, version in rows if version is not None)
    return versions
