"""Backups of the databases: whole, checked, and readable by nobody else.

SQLite by its own online copy, which writers do not disturb; PostgreSQL by ``pg_dump``. A backup has its name only once
it is whole and on the disk; until then it is called ``….partial``.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from api.config import SQLITE
from api.private_files import sync

_SECURITY: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")


class BackupError(Exception):
    """There is no backup. The message says what to do, and holds no password."""


def require_private_folder(folder: Path) -> None:
    """Raise unless the folder is there and nobody else can look into it. A symbolic link counts as what it leads to."""
    try:
        status = folder.stat()
    except OSError as error:
        raise BackupError(f"cannot use the folder {folder} ({error.strerror})") from None
    if not stat.S_ISDIR(status.st_mode):
        raise BackupError(f"{folder} is not a folder")
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise BackupError(f"others can look into {folder}: give a folder of your own that you have made 0700")


def require_apart(folder: Path, keks: Path | None) -> None:
    """Raise when a backup of the folder of KEKs would hold the backup of what they open, or the other way round."""
    if keks is None:
        return
    mine, theirs = folder.resolve(), keks.resolve()
    if mine == theirs or mine in theirs.parents or theirs in mine.parents:
        raise BackupError(f"{folder} and the KEKs in {keks} lie in one another: whoever had the one would have both")


def back_up(url: str, folder: Path, name: str, taken_at: int, pg_dump: str) -> Path:
    """Make a whole and checked backup of a database, ``folder/name-<time>.db`` or ``.dump``. Raises
    :class:`BackupError`, and leaves nothing behind then."""
    time = datetime.fromtimestamp(taken_at / 1_000_000, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    parts = urlsplit(url)
    path = folder / f"{name}-{time}.{'db' if parts.scheme == SQLITE else 'dump'}"
    with _becoming(path) as partial:
        if parts.scheme == SQLITE:
            _copy_sqlite(Path(parts.path[1:]), partial)
        else:
            _dump_postgresql(url, partial, pg_dump)
    return path


@contextmanager
def _becoming(path: Path) -> Iterator[Path]:
    """A file that gets its name when the block has written all of it, and goes when it has not."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        try:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            yield partial
            sync(partial)
            partial.rename(path)
            sync(path.parent)
        except OSError as error:
            raise BackupError(f"cannot write {partial} ({error.strerror})") from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise BackupError(f"there is no database {source}")
    try:
        # All by SQLite itself: opening and closing the file otherwise would drop SQLite's locks.
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)  # in one step, of one moment: in several it would begin again with every write of others
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        with closing(sqlite3.connect(f"{target.absolute().as_uri()}?mode=ro", uri=True)) as copy:
            (found,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"cannot copy {source} ({type(error).__name__})") from None
    if found != "ok":
        raise BackupError(f"the copy of {source} is not whole; check the database itself")


def _dump_postgresql(url: str, target: Path, pg_dump: str) -> None:
    program = shutil.which(pg_dump)
    restore = None if program is None else shutil.which(Path(program).with_name("pg_restore"))
    if program is None or restore is None:
        raise BackupError(
            f"there is no {pg_dump} with a pg_restore beside it: install PostgreSQL's client programs of the server's "
            "version, and let AUDIT_LEDGER_PG_DUMP name pg_dump if it is not on the PATH"
        )
    _run([program, "--format=custom", "--no-password", f"--file={target}"], _connection(url))
    # Reads every block of it; only a dump that can be read through counts.
    _run([restore, f"--file={os.devnull}", str(target)], {})


def _run(command: list[str], connection: dict[str, str]) -> None:
    """I5: what the programs print can hold rows, so it is not repeated."""
    done = subprocess.run(  # noqa: S603 - the operator's own programs, and no shell
        command, env={**os.environ, **connection}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise BackupError(
            f"{command[0]} failed with exit status {done.returncode}; does it have the server's version, and may the "
            "role read every table?"
        )


def version_of(pg_dump: str) -> str:
    """What ``pg_dump`` says of itself. Raises :class:`BackupError` when it is not there."""
    with _lines_of([pg_dump, "--version"], {}) as lines:
        return b"".join(lines).decode("utf-8", "replace").strip()


@contextmanager
def dumped_lines(url: str, pg_dump: str) -> Iterator[Iterator[bytes]]:
    """The lines of a dump of a PostgreSQL database as it is now, which is kept nowhere."""
    with _lines_of([pg_dump, "--no-password"], _connection(url)) as lines:
        yield lines


@contextmanager
def restored_lines(path: Path, pg_dump: str) -> Iterator[Iterator[bytes]]:
    """The lines of SQL that restoring a backup of a PostgreSQL database would run."""
    restore = str(Path(shutil.which(pg_dump) or pg_dump).with_name("pg_restore"))
    with _lines_of([restore, "--file=-", str(path)], {}) as lines:
        yield lines


@contextmanager
def _lines_of(command: list[str], connection: dict[str, str]) -> Iterator[Iterator[bytes]]:
    """What a program prints. Raises :class:`BackupError` when it is not there, or fails: then lines may be missing."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own programs, and no shell
            command,
            env={**os.environ, **connection},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise BackupError(f"cannot run {command[0]} ({error.strerror})") from None
    with process:
        yield process.stdout or iter(())
    if process.returncode != 0:
        raise BackupError(f"{command[0]} failed with exit status {process.returncode}; may the role read every table?")


def _connection(url: str) -> dict[str, str]:
    """A URL in the environment's words: command lines are shown to everybody who lists the machine's processes."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    wanted = {
        "PGHOST": query.pop("host", parts.hostname),
        "PGPORT": query.pop("port", str(parts.port) if parts.port else None),
        "PGUSER": query.pop("user", unquote(parts.username) if parts.username else None),
        "PGPASSWORD": query.pop("password", unquote(parts.password) if parts.password else None),
        "PGDATABASE": query.pop("dbname", unquote(parts.path.strip("/"))),
        **{
            f"PG{name.upper()}": query[name]
            for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")
            if name in query
        },
    }
    return {name: value for name, value in wanted.items() if value is not None}
