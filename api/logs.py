"""Structured logs: one JSON object a line on stderr, without personal data (I5).

A line has ``time``, ``level``, ``event`` and the fields that the caller hands over in ``extra``. Texts of other
libraries are not trusted: of their exceptions there is the type and the places in the code, never the message.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from typing import Any, Final, TextIO

from typing_extensions import override

from keyvault.errors import KeyVaultError
from ledger.domain.times import format_time
from ledger.errors import LedgerError

LOGGER: Final = "audit_ledger"
_OWN_ERRORS: Final = (LedgerError, KeyVaultError)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("alembic", "flask", "flask_smorest", "marshmallow", "sqlalchemy", "webargs", "werkzeug", "_granian")
"""Libraries whose texts may repeat what a client sent; only that something happened is kept."""


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """The line. Nothing of a foreign message gets through: see the module."""
        own = record.name.split(".")[0] in (LOGGER, "_granian")
        # The server puts the text of an application's exception behind the first line of its own message.
        event = record.getMessage().split("\n", 1)[0] if own else f"message of {record.name}"
        line: dict[str, Any] = {
            "time": format_time(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "event": event,
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            line.update(describe_exception(record.exc_info[1]))
        return json.dumps(line, ensure_ascii=False, default=str)


def describe_exception(error: BaseException) -> dict[str, object]:
    """Type and places of an exception. Its text only if it is one of ours: a foreign one can repeat a value (I5)."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    described: dict[str, object] = {"exception": type(error).__name__, "places": places}
    if isinstance(error, _OWN_ERRORS):
        described["message_of_exception"] = str(error)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        described["cause"] = type(cause).__name__
    return described


def configure_logs(level: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to stderr (or ``stream``) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    # A failing log must not print the record, and with it what the record was about.
    logging.raiseExceptions = False
