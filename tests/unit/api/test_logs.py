"""I5: logs tell what happened, and nothing of anybody's data."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from api.logs import LOGGER, configure_logs, describe_exception
from api.wiring import raise_alarm
from ledger.errors import InvalidError

CANARY = "Canary-7"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Where the logs of this test go."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.raiseExceptions)
    stream = io.StringIO()
    configure_logs("info", stream)
    yield stream
    root.handlers, root.level, logging.raiseExceptions = before


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    """What was logged."""
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_line_is_json_with_its_fields(log: io.StringIO) -> None:
    """Time in UTC, level, event, and what the caller adds."""
    logging.getLogger(LOGGER).info("request", extra={"status": 200, "route": "/v1/ledgers"})

    (line,) = lines(log)
    assert (line["level"], line["event"], line["status"], line["route"]) == ("info", "request", 200, "/v1/ledgers")
    assert line["time"].endswith("Z")


def test_an_integrity_alarm_is_one_error_line(log: io.StringIO) -> None:
    """I9: where, and what is wrong."""
    raise_alarm(UUID(int=7), 12, 3, "the part is not authentic")

    (line,) = lines(log)
    assert (line["level"], line["event"], line["position"], line["part"]) == ("error", "integrity-alarm", 12, 3)
    assert line["ledger_id"] == str(UUID(int=7))


def test_a_foreign_exception_keeps_its_text_and_values_to_itself(log: io.StringIO) -> None:
    """Type and places only: a message can repeat a value, and so can that of its cause."""
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ValueError(f"bad value {CANARY}") from error
    except ValueError:
        logging.getLogger(LOGGER).exception("request-failed")

    (line,) = lines(log)
    assert CANARY not in log.getvalue()
    assert (line["exception"], line["cause"]) == ("ValueError", "KeyError")
    assert "test_logs.py" in line["places"][0]


def test_our_own_errors_may_speak() -> None:
    """They hold no personal data."""
    assert (
        describe_exception(InvalidError("the cursor is not valid"))["message_of_exception"] == "the cursor is not valid"
    )


@pytest.mark.parametrize("name", ["sqlalchemy.engine.Engine", "werkzeug", "flask.app", "somebody.else"])
def test_other_libraries_may_say_that_something_happened_and_no_more(log: io.StringIO, name: str) -> None:
    """Their texts can hold parameters of statements and addresses of requests."""
    logging.getLogger(name).info("GET /%s", CANARY)
    logging.getLogger(name).error("parameters: %s", CANARY)

    (line,) = lines(log)
    assert line["event"] == f"message of {name}"
    assert CANARY not in log.getvalue()


def test_the_servers_log_loses_what_stands_behind_its_first_line(log: io.StringIO) -> None:
    """There it puts the text of an application's exception."""
    logging.getLogger("_granian").error("Application callable raised an exception\nValueError: %s", CANARY)

    (line,) = lines(log)
    assert line["event"] == "Application callable raised an exception"
    assert CANARY not in log.getvalue()
