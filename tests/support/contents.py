"""All that a service has written anywhere, to look into."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger


def contents_of(served: ServedLedger, cluster: PostgresCluster | None, *folders: Path) -> dict[str, bytes]:
    """Every file of its home (databases and write-ahead logs of SQLite, journal), its log, what lies in some folders of
    backups, dumps of both databases, and all files of their server."""
    found = {str(file): file.read_bytes() for file in served.home.rglob("*") if file.is_file()}
    found["log"] = served.log_file.read_bytes()
    for folder in folders:
        for file in folder.iterdir():
            # What pg_dump has written is compressed.
            text = cluster.run("pg_restore", "--file=-", str(file)) if file.suffix == ".dump" and cluster else b""
            found[str(file)] = file.read_bytes() + text
    if cluster is None:
        for name in ("ledger", "keyvault"):
            found[f"dump of {name}"] = _dump_of_sqlite(served.home / f"{name}.db")
        return found
    for setting in ("AUDIT_LEDGER_DATABASE_URL", "AUDIT_LEDGER_KEYVAULT_URL"):
        database = make_url(served.environment[setting]).database or ""
        found[f"dump of {database}"] = cluster.run("pg_dump", database=database)
    with cluster.connect() as connection:
        connection.execute("CHECKPOINT")
    return found | data_directory(cluster)


def data_directory(cluster: PostgresCluster) -> dict[str, bytes]:
    """Every file of the database server: heaps, indexes, write-ahead logs, its own log. Files may come and go."""
    found = {}
    for file in [*cluster.data_directory.rglob("*"), cluster.log_file]:
        for _ in range(3):
            try:
                if file.is_file():
                    found[str(file)] = file.read_bytes()
                break
            except FileNotFoundError:
                time.sleep(0.01)
    return found


def _dump_of_sqlite(path: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()).encode()
