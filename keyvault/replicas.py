"""Whether every replica of the vault's database has what this one has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Engine, text

from keyvault import database
from keyvault.errors import EpochRefusedError

PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS: Final = 0.2

_ROLE_SEES_REPLICAS: Final = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_INACTIVE_SLOTS: Final = "SELECT slot_name FROM pg_replication_slots WHERE NOT active ORDER BY slot_name"
_BEHIND: Final = (
    "SELECT COALESCE(NULLIF(application_name, ''), pid::text) FROM pg_stat_replication "
    "WHERE replay_lsn IS NULL OR replay_lsn < CAST(:position AS pg_lsn) ORDER BY 1"
)


def require_caught_up(engine: Engine) -> None:
    """Return when every replica has replayed all that is committed now; raise :class:`EpochRefusedError` when one does
    not within ``PATIENCE_SECONDS``, or when nobody can tell.

    A replica that lacks the rewrap holds the living keys under the old epoch only: promoted after that epoch's KEK is
    gone, it would open nothing. SQLite has no replicas.
    """
    if engine.dialect.name != "postgresql":
        return
    position = database.read(engine, _require_a_view)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while behind := database.read(engine, lambda connection: _behind(connection, position)):
        if time.monotonic() > deadline:
            raise EpochRefusedError(
                "replica-behind",
                f"these replicas of the vault's database have not replayed the rewrap: {', '.join(behind)}; wait until "
                "they have caught up, or take them out of service",
            )
        time.sleep(_PAUSE_SECONDS)


def _require_a_view(connection: Connection) -> str:
    """The position to be reached. Raises when this server or role cannot tell who has reached it."""
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        raise EpochRefusedError("replica", "the vault's URL leads to a replica; let it lead to the primary server")
    if not connection.execute(text(_ROLE_SEES_REPLICAS)).scalar_one():
        role = connection.execute(text("SELECT current_user")).scalar_one()
        raise EpochRefusedError(
            "replicas-unseen",
            f"the role {role!r} may not see which replicas there are; as a superuser of the vault's server: "
            f'GRANT pg_read_all_stats TO "{role}"',
        )
    inactive = connection.execute(text(_INACTIVE_SLOTS)).scalars().all()
    if inactive:
        raise EpochRefusedError(
            "replica-away",
            f"these replication slots have no replica at the moment, so nobody knows what theirs hold: "
            f"{', '.join(inactive)}; bring the replicas back, or drop the slots with pg_drop_replication_slot()",
        )
    position: str = connection.execute(text("SELECT pg_current_wal_lsn()::text")).scalar_one()
    return position


def _behind(connection: Connection, position: str) -> Sequence[str]:
    return connection.execute(text(_BEHIND), {"position": position}).scalars().all()
