"""What an append must know of the log under the head lock, in one look."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from ledger.ports.store import LogSurvey
from ledger.storage import statements

# One way to the server in the place of five, while others wait for the head. The versions take one step down the index
# for each stream: a GROUP BY would read all the versions that a stream ever had.
_POSTGRESQL: Final = """
SELECT 'recorded', uuid_send(event_id), 0::bigint FROM events
 WHERE ledger_id = %(ledger)s AND event_id = ANY(%(ids)s::uuid[])
UNION ALL
SELECT 'dead', key_id, 0 FROM shredded_keys
 WHERE ledger_id = %(ledger)s AND key_id = ANY(%(keys)s::bytea[])
UNION ALL
SELECT 'closed', stream_ref, 0 FROM closed_streams
 WHERE ledger_id = %(ledger)s AND stream_ref = ANY(%(refs)s::bytea[])
UNION ALL
SELECT 'abandoned', stream_ref, 0 FROM abandoned_streams
 WHERE ledger_id = %(ledger)s AND stream_ref = ANY(%(refs)s::bytea[])
UNION ALL
SELECT 'version', wanted.ref, newest.stream_version
  FROM unnest(%(refs)s::bytea[]) AS wanted (ref)
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
        # A file: there is no way to spare.
        versions = statements.select_versions(connection, ledger_id, stream_refs)
        return LogSurvey(
            recorded=statements.select_ids(connection, ledger_id, event_ids),
            dead=statements.select_dead(connection, ledger_id, key_ids),
            closed=statements.select_closed(connection, ledger_id, stream_refs),
            abandoned=statements.select_abandoned(connection, ledger_id, stream_refs),
            versions=versions,
        )
    values = {"ledger": ledger_id, "ids": list(event_ids), "keys": list(key_ids), "refs": list(stream_refs)}
    found: dict[str, dict[bytes, Any]] = {what: {} for what in ("recorded", "dead", "closed", "abandoned", "version")}
    for what, which, number in connection.exec_driver_sql(_POSTGRESQL, values):
        found[what][which] = number
    return LogSurvey(
        recorded=frozenset(UUID(bytes=event_id) for event_id in found["recorded"]),
        dead=frozenset(found["dead"]),
        closed=frozenset(found["closed"]),
        abandoned=frozenset(found["abandoned"]),
        versions=found["version"],
    )
