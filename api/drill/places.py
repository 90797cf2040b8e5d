"""Where rows are looked for: every table of a live database, of a copied SQLite file, of a PostgreSQL dump.

Tables that the service does not know are looked into like its own: a leak asks for nobody's leave.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from api.backups import BackupError, dumped_lines, restored_lines
from api.config import SQLITE
from api.drill.searching import Row

_COPY: Final = re.compile(rb"COPY (?P<table>\S+) \((?P<columns>.*)\) FROM stdin;\s*")
_END: Final = b"\\."
_HEX: Final = b"\\\\x"
_BUSY_SECONDS: Final = 30.0


def is_sqlite(url: str) -> bool:
    """Whether a database is an SQLite file."""
    return urlsplit(url).scheme == SQLITE


def sqlite_file(url: str) -> Path:
    """The file of an SQLite database."""
    return Path(urlsplit(url).path[1:])


@contextmanager
def live_rows(url: str, pg_dump: str) -> Iterator[Iterator[Row]]:
    """Every row of every table as it is now. Raises ``BackupError`` when not all of them can be read."""
    if is_sqlite(url):
        yield _rows_of_sqlite(sqlite_file(url))
    else:
        with dumped_lines(url, pg_dump) as lines:
            yield rows_of_dump(lines)


@contextmanager
def backup_rows(backup: Path, pg_dump: str) -> Iterator[Iterator[Row]]:
    """Every row of every table of a backup, an SQLite file as it is or a dump that is read through."""
    if backup.suffix == ".db":
        yield _rows_of_sqlite(backup)
    else:
        with restored_lines(backup, pg_dump) as lines:
            yield rows_of_dump(lines)


def _rows_of_sqlite(path: Path) -> Iterator[Row]:
    # By SQLite itself: opening and closing the file otherwise would drop SQLite's locks in this process.
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as connection:
            connection.text_factory = bytes
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                name = table.decode("utf-8", "replace")
                quoted = name.replace('"', '""')
                cursor = connection.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - a table's own name, quoted
                columns = [column[0] for column in cursor.description]
                for values in cursor:
                    yield Row(name, columns, [_as_bytes(value) for value in values])
    except sqlite3.Error as error:
        raise BackupError(f"cannot read {path} ({type(error).__name__})") from None


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()


def rows_of_dump(lines: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a dump as text (``COPY … FROM stdin``), bytea decoded; each other line is a row of its own."""
    table, columns = "", []
    for line in lines:
        line = line.rstrip(b"\r\n")
        if not table:
            begun = _COPY.fullmatch(line)
            if begun is None:
                yield Row("the dump itself", (), (line,))
            else:
                table = begun["table"].decode("utf-8", "replace").rpartition(".")[2]
                columns = [name.strip(' "') for name in begun["columns"].decode("utf-8", "replace").split(",")]
        elif line == _END:
            table = ""
        else:
            yield Row(table, columns, [_decoded(value) for value in line.split(b"\t")])


def _decoded(value: bytes) -> bytes:
    if not value.startswith(_HEX):
        return value
    try:
        return bytes.fromhex(value[len(_HEX) :].decode("ascii"))
    except ValueError:
        return value
