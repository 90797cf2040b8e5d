"""The peers: other people's event stores on the same PostgreSQL, as fast as they come and as durable as the ledger.

They are not part of the project: ``scripts/bench`` puts them into ``.venv/peers`` (``PEERS`` names another folder).
Where they cannot be had, their lines say so and count as missed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from scripts.benchmarks.support.load import Loaded
from scripts.benchmarks.support.payloads import EVENT_TYPE, STREAMS, visit
from tests.support.postgres import PostgresCluster

MESSAGE_DB_CLIENTS: Final = 16

_INSTALL: Final = (
    "schema/message-store.sql", "extensions/pgcrypto.sql", "tables/messages.sql", "types/message.sql",
    "functions/message-store-version.sql", "functions/hash-64.sql", "functions/acquire-lock.sql",
    "functions/category.sql", "functions/is-category.sql", "functions/id.sql", "functions/cardinal-id.sql",
    "functions/stream-version.sql", "functions/write-message.sql", "indexes/messages-id.sql",
    "indexes/messages-stream.sql", "indexes/messages-category.sql",
)  # fmt: skip
"""In the order of message-db's own installer, as far as writing takes it."""

_RATE: Final = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: ([0-9]+)", re.MULTILINE)


class PeerMissingError(Exception):
    """A peer is not there; the message says what is missing."""


def peers_folder() -> Path:
    """Where the peers are."""
    return Path(os.environ.get("PEERS") or Path(sys.prefix, "peers"))


def peer_versions() -> dict[str, str | None]:
    """The version of each peer; None: it is not there."""
    return {"eventsourcing": _eventsourcing_version(), "message-db": _message_db_version()}


class EventSourcing:
    """A process that stores with ``eventsourcing`` into a database. Use it as a context manager.

    ``functions``: with its database functions. They are quicker, since they do not lock the table; so who follows by
    notification ids can miss events of transactions that overtake each other.

    Raises ``PeerMissingError`` where the library is not there.
    """

    def __init__(self, database_url: str, connections: int = 1, *, functions: bool = False) -> None:
        python = peers_folder() / "eventsourcing" / "bin" / "python"
        if _eventsourcing_version() is None:
            raise PeerMissingError(f"eventsourcing is not in {peers_folder()}")
        place = urlsplit(database_url)
        # The default pool lets connections overflow, which are then made anew for every use.
        settings = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "CIPHER_TOPIC": "eventsourcing.cipher:AESCipher",
            "CIPHER_KEY": base64.b64encode(os.urandom(32)).decode(),
            "POSTGRES_DBNAME": place.path.strip("/"),
            "POSTGRES_HOST": str(place.hostname),
            "POSTGRES_PORT": str(place.port),
            "POSTGRES_USER": str(place.username),
            "POSTGRES_PASSWORD": str(place.password),
            "POSTGRES_POOL_SIZE": str(connections),
            "POSTGRES_MAX_OVERFLOW": "0",
            "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if functions else "n",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(  # noqa: S603 - a file of ours
            [str(python), str(Path(__file__).with_name("eventsourcing_peer.py"))],
            env={**inherited, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def prepare_batches(self, events: int, batch: int, streams: int = STREAMS) -> None:
        """The next ``go`` stores so many events, so many in each transaction."""
        self._order({"prepare": "batches", "events": events, "batch": batch, "streams": streams, "data": visit(1)})
        self._answer()

    def prepare_singles(self, threads: int, seconds: float, streams: int = STREAMS) -> None:
        """The next ``go`` has so many threads store one event after another, for so many seconds."""
        self._order(
            {"prepare": "singles", "threads": threads, "seconds": seconds, "streams": streams, "data": visit(1)}
        )
        self._answer()

    def go(self) -> None:
        """Begin; does not wait."""
        self._order({"go": True})

    def finish(self) -> Loaded:
        """Wait until it is done."""
        answer = self._answer()
        return Loaded(answer["count"], answer["seconds"], answer["cpu"])

    def _order(self, order: dict[str, Any]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the peer has no input")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RuntimeError("the peer eventsourcing has failed; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


class MessageDb:
    """message-db in a database of its own. Raises ``PeerMissingError`` where its files are not there."""

    def __init__(self, cluster: PostgresCluster) -> None:
        folder = _message_db_folder() / "database"
        if _message_db_version() is None:
            raise PeerMissingError(f"message-db is not in {peers_folder()}")
        if not (cluster.bin_directory / "pgbench").exists():
            raise PeerMissingError(f"there is no pgbench in {cluster.bin_directory}")
        self._cluster = cluster
        self._database = urlsplit(cluster.create_database()).path.strip("/")
        # As its documentation asks of every session.
        self._run("--command", f'ALTER DATABASE "{self._database}" SET search_path TO message_store, public')
        self._run("--command", f'ALTER DATABASE "{self._database}" SET client_min_messages TO warning')
        for name in _INSTALL:
            self._run("--file", str(folder / name))

    def _run(self, *arguments: str) -> None:
        self._cluster.run("psql", "--quiet", "--set=ON_ERROR_STOP=1", *arguments, database=self._database)

    def write(self, categories: int, seconds: float) -> Loaded:
        """Write one message after another on each connection, into so many categories: that is what it locks, as the
        ledger locks a ledger."""
        data = json.dumps(visit(1)).replace("'", "''")
        script = (
            f"\\set category random(1, {categories})\n\\set stream random(1, {STREAMS})\n"
            "SELECT write_message(gen_random_uuid()::varchar, 'patient' || :category || '-' || :stream, "
            f"'{EVENT_TYPE}', '{data}'::jsonb);\n"
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            clients, jobs = str(MESSAGE_DB_CLIENTS), str(os.cpu_count() or 1)
            text = self._cluster.run(
                "pgbench", "--no-vacuum", "--protocol=prepared", f"--file={file.name}", f"--client={clients}",
                f"--jobs={jobs}", f"--time={max(1, round(seconds))}", database=self._database,
            ).decode()  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rate, failed = _RATE.search(text), _FAILED.search(text)
        if rate is None or (failed is not None and int(failed[1]) > 0):
            raise RuntimeError(f"pgbench: {text}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Loaded(round(float(rate[1]) * seconds), seconds, cpu)


@contextmanager
def eventsourcing_processes(url: str, number: int) -> Iterator[list[EventSourcing]]:
    """So many processes that store into one database."""
    with ExitStack() as stack:
        yield [stack.enter_context(EventSourcing(url)) for _ in range(number)]


def _eventsourcing_version() -> str | None:
    python = peers_folder() / "eventsourcing" / "bin" / "python"
    code = (
        "import importlib.metadata, eventsourcing.postgres, Crypto; print(importlib.metadata.version('eventsourcing'))"
    )
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _message_db_folder() -> Path:
    return peers_folder() / "message-db" / "package"


def _message_db_version() -> str | None:
    try:
        found: str = json.loads((_message_db_folder() / "package.json").read_text())["version"]
    except OSError:
        return None
    return found
