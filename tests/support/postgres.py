"""A PostgreSQL server of the tests' own: made in a temporary folder, killed and restarted at will, thrown away."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, LiteralString, Self

import psycopg
from psycopg import sql
from typing_extensions import override

START_SECONDS = 60.0
STOP_SECONDS = 60.0
PROGRAMS = ("initdb", "postgres", "pg_dump")
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresError(Exception):
    """The test server is missing, did not start or did not stop; the message says what to do or what it logged."""


@dataclass(frozen=True, slots=True)
class Role:
    """A login of the cluster: its name and its (made-up, random) password."""

    name: str
    password: str = field(repr=False)


def find_bin_directory() -> Path | None:
    """The folder of PostgreSQL's programs: the one that POSTGRES_BIN names, else the newest that is installed."""
    if chosen := os.environ.get("POSTGRES_BIN"):
        candidates = [Path(chosen)]
    else:
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        candidates = sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
        if pg_config := shutil.which("pg_config"):
            told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
            candidates.append(Path(told.stdout.strip()))
        if initdb := shutil.which("initdb"):
            candidates.append(Path(initdb).resolve().parent)
        # Where scripts/test unpacks them for who may not install them.
        candidates.append(Path(sys.prefix, "postgres", "bin"))
    return next((path for path in candidates if all((path / program).exists() for program in PROGRAMS)), None)


class PostgresCluster:
    """One server with a data directory of its own. Use it as a context manager; it stands on one port for its life.

    It writes to disk as a real one does (fsync on), so that what survives ``kill`` is what was really made durable.
    Run as root, the server runs as the user ``postgres``, since PostgreSQL refuses to run as root.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """``settings``: lines of postgresql.conf on top of the defaults, e.g. ``{"max_connections": "200"}``."""
        found = find_bin_directory()
        if found is None:
            raise PostgresError(
                "PostgreSQL's programs (initdb, postgres, pg_dump) were not found. On Debian: "
                "apt-get install postgresql; elsewhere: set POSTGRES_BIN to the folder that holds them."
            )
        self.bin_directory = found
        self.superuser = Role("postgres", secrets.token_urlsafe(16))
        self._settings = dict(settings or {})
        self._account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._home = Path(tempfile.mkdtemp(prefix="audit-ledger-postgres-"))
        self.data_directory = self._home / "data"
        self.log_file = self._home / "server.log"
        self.port = _free_port()
        try:
            self._initialise()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def is_running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it takes connections (after a crash: until it has recovered)."""
        if self.is_running():
            return
        deadline = time.monotonic() + START_SECONDS
        self._process = self._launch()
        while True:
            try:
                with self.connect():
                    return
            except psycopg.OperationalError as error:
                if not self.is_running() or time.monotonic() > deadline:
                    raise PostgresError(f"the server did not start: {error}\n{self._log_tail()}") from error
            time.sleep(0.02)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server in PostgreSQL's own way; ``immediate`` leaves it to recover at the next start."""
        if self._process is None:
            return
        self._process.send_signal(STOP_SIGNALS[mode])
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise PostgresError(f"the server did not stop ({mode})\n{self._log_tail()}") from error
        self._process = None

    def kill(self) -> None:
        """SIGKILL for the server and all its processes at once: nobody gets to flush, to answer or to say goodbye."""
        if self._process is None:
            return
        # Stopped first: it must not start or reap children between the listing and the killing.
        self._process.send_signal(signal.SIGSTOP)
        children = _children(self._process.pid)
        self._process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + STOP_SECONDS
        # A living child would hold the shared memory, and the next start would be refused.
        while any(_is_alive(child) for child in children):
            if time.monotonic() > deadline:
                raise PostgresError("processes of the killed server are still there")
            time.sleep(0.01)

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start; every connection is lost."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop the server, however, and delete everything of it."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def create_role(self, name: str | None = None) -> Role:
        """A login without any right but what others grant to it."""
        role = Role(name or f"role_{secrets.token_hex(4)}", secrets.token_urlsafe(16))
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        with self.connect() as connection:
            connection.execute(statement.format(sql.Identifier(role.name), sql.Literal(role.password)))
        return role

    def create_database(self, name: str | None = None, owner: Role | None = None) -> str:
        """An empty database; gives its SQLAlchemy URL as its owner (by default the superuser)."""
        chosen = name or f"test_{secrets.token_hex(4)}"
        holder = owner or self.superuser
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(chosen), sql.Identifier(holder.name))
            )
        return self.url(chosen, holder)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def url(self, database: str, role: Role | None = None) -> str:
        """The SQLAlchemy URL of a database for a role (by default the superuser)."""
        holder = role or self.superuser
        return f"postgresql+psycopg://{holder.name}:{holder.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres", role: Role | None = None) -> psycopg.Connection:
        """A psycopg connection in autocommit mode, as the superuser by default. The caller closes it."""
        holder = role or self.superuser
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=holder.name,
            password=holder.password,
            autocommit=True,
            connect_timeout=10,
        )

    def run(self, program: str, *arguments: str, database: str = "postgres") -> bytes:
        """What a client program (``pg_dump``, ``psql`` …) prints, run as the superuser on a database."""
        connection = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.superuser.name,
            "PGPASSWORD": self.superuser.password,
            "PGDATABASE": database,
        }
        command = [str(self.bin_directory / program), *arguments]
        return subprocess.run(command, env={**os.environ, **connection}, stdout=subprocess.PIPE, check=True).stdout

    def _initialise(self) -> None:
        password_file = self._home / "password"
        password_file.write_text(self.superuser.password)
        if self._account is not None:
            for path in (self._home, password_file):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        command = [str(self.bin_directory / "initdb"), "--pgdata", str(self.data_directory), "--username", "postgres"]
        command += ["--auth", "scram-sha-256", "--pwfile", str(password_file), "--encoding", "UTF8", "--no-locale"]
        made = self._spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = made.communicate()
        password_file.unlink()
        if made.returncode != 0:
            raise PostgresError(f"initdb failed:\n{output.decode(errors='replace')}")

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._settings,
        }
        command = [str(self.bin_directory / "postgres"), "-D", str(self.data_directory)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            return self._spawn(command, stdout=log, stderr=log)

    def _spawn(
        self, command: list[str], *, stdout: int | IO[bytes], stderr: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C in the terminal ends the tests, and they end the server.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=self._home,
            process_group=0,
            user=self._account.pw_uid if self._account else None,
            group=self._account.pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
        )

    def _log_tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-4000:] if self.log_file.exists() else ""


class Standby(PostgresCluster):
    """A streaming replica of a running server, which can be read from."""

    def __init__(self, primary: PostgresCluster) -> None:
        self._primary = primary
        super().__init__()

    @override
    def _initialise(self) -> None:
        self.superuser = self._primary.superuser
        if self._account is not None:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        source = self._primary.url("postgres").replace("postgresql+psycopg:", "postgresql:")
        command = [str(self.bin_directory / "pg_basebackup"), "--pgdata", str(self.data_directory)]
        command += ["--write-recovery-conf", "--checkpoint=fast", "--dbname", source]
        made = self._spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = made.communicate()
        if made.returncode != 0:
            raise PostgresError(f"pg_basebackup failed:\n{output.decode(errors='replace')}")

    def query(self, statement: LiteralString) -> object:
        """The first value of what a statement gives here."""
        with self.connect() as connection:
            row = connection.execute(statement).fetchone()
        return None if row is None else row[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    candidates = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [candidate for candidate in candidates if _state_and_parent(candidate)[1] == pid]


def _is_alive(pid: int) -> bool:
    # A zombie counts as dead: whoever inherited it may take its time to reap it.
    return _state_and_parent(pid)[0] not in ("", "Z")


def _state_and_parent(pid: int) -> tuple[str, int]:
    """From /proc (see proc(5), "stat"); of a process that is gone: an empty state and 0."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return state, int(parent)
