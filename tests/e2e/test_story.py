"""The main job, end to end, over HTTP: load, ask about a past moment, forget a person, ask again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ledger.domain.times import format_time, parse_time
from ledger.storage.database import open_engine
from ledger.storage.tables import events
from tests.support.server import NDJSON, Client, ServedLedger

SEPSIS = Path(__file__).parents[2] / "docs" / "data" / "sepsis.ndjson"
PATIENT, STREAM = "patient:A", "patient-A"
MOMENT = "2014-10-22T12:00:00Z"


@pytest.fixture(scope="module")
def sepsis() -> list[dict[str, Any]]:
    """15,214 real events, as they are sent."""
    return [json.loads(line) for line in SEPSIS.read_text().splitlines()]


def test_load_ask_forget_ask_again(server: ServedLedger, sepsis: list[dict[str, Any]]) -> None:
    """What was known of a patient at a past moment can be told, until the patient is forgotten; the log stays."""
    client, path = server.client, server.make_ledger("hospital")
    load(client, path, SEPSIS.read_bytes(), recorded=len(sepsis))
    load(client, path, SEPSIS.read_bytes(), duplicates=len(sepsis))
    server.run("verify", "--ledger", "hospital")
    leaves = leaf_hashes(server)
    assert len(leaves) == len(sepsis)

    # By occurred time: what had happened to the patient by noon.
    of_patient = [event for event in sepsis if event["subject"] == PATIENT]
    by_noon = [event for event in of_patient if event["occurred_at"] <= MOMENT]
    assert 0 < len(by_noon) < len(of_patient)
    asked_by_time = {"subject": PATIENT, "occurred_to": MOMENT, "order_by": "occurred"}
    shown_by_time = ask(client, path, asked_by_time)
    assert [as_sent(event) for event in shown_by_time] == by_noon

    # By position: what was recorded of the patient when the ledger was half as long.
    middle = sepsis.index(of_patient[len(of_patient) // 2])
    asked_by_position = {"stream": STREAM, "as_of": {"position": middle}}
    shown_by_position = ask(client, path, asked_by_position)
    assert [as_sent(event) for event in shown_by_position] == of_patient[: len(of_patient) // 2 + 1]

    asked_state = {"stream": STREAM, "occurred_as_of": MOMENT}
    state = client.post(f"{path}/state", asked_state).json()
    assert state["complete"]
    assert state["state"] == merged(by_noon)

    erasure = client.post(f"{path}/erasures", {"subject": PATIENT, "ground": "17(1)(b)", "reference": "case 2026-114"})
    assert erasure.status == 201
    assert (erasure.json()["state"], erasure.json()["events"]) == ("erased", len(of_patient))

    for asked, shown in ((asked_by_time, shown_by_time), (asked_by_position, shown_by_position)):
        assert ask(client, path, asked) == [redacted(event, erasure.json()) for event in shown]
    state = client.post(f"{path}/state", asked_state).json()
    assert (state["state"], state["complete"]) == ({}, False)
    refused = client.post(f"{path}/events", of_patient[0])
    assert (refused.status, refused.code) == (410, "subject-erased")
    again = client.post(f"{path}/erasures", {"subject": PATIENT})
    assert (again.status, again.json()["id"]) == (200, erasure.json()["id"])
    found = client.post(f"{path}/subjects/lookup", {"subject": PATIENT}).json()
    assert (found["state"], found["events"]) == ("erased", len(of_patient))

    # I6: not a byte of an event has changed, and everybody else's data is as before.
    assert leaf_hashes(server)[: len(leaves)] == leaves
    verdict = server.run("verify", "--ledger", "hospital")
    assert "intact" in verdict.stdout
    others = [event for event in sepsis if event["subject"] == "patient:B"]
    assert [as_sent(event) for event in ask(client, path, {"subject": "patient:B"})] == others
    # I4: sending the file again is safe even now, without the plaintext to compare with.
    load(client, path, SEPSIS.read_bytes(), duplicates=len(sepsis))


def test_streamed_answer_is_the_paged_answer(server: ServedLedger, sepsis: list[dict[str, Any]]) -> None:
    """A stream of all events ends with their count and holds what the pages hold."""
    client, path = server.client, server.make_ledger("hospital")
    some = sepsis[:1200]
    load(client, path, b"\n".join(json.dumps(event).encode() for event in some), recorded=len(some))
    answer = client.post(f"{path}/query", {}, {"Accept": NDJSON})
    lines = answer.lines()
    assert lines[-1] == {"end": True, "count": len(some)}
    paged: list[Any] = []
    cursor = None
    while True:
        page = client.post(f"{path}/query", {"limit": 500, "cursor": cursor}).json()
        paged += page["events"]
        cursor = page["next"]
        if cursor is None:
            break
    assert lines[:-1] == paged


def load(client: Client, path: str, body: bytes, *, recorded: int = 0, duplicates: int = 0) -> None:
    """Send a file of events under one key and check how it went."""
    answer = client.send("POST", f"{path}/events", body, {"Content-Type": NDJSON, "Idempotency-Key": "sepsis"})
    assert answer.status == 200
    end = answer.lines()[-1]
    assert end == {"end": True, "recorded": recorded, "duplicates": duplicates, "refused": 0}


def ask(client: Client, path: str, question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events of a query that fits one page."""
    answer = client.post(f"{path}/query", {"limit": 1000, **question})
    assert answer.status == 200, answer.body
    assert answer.json()["next"] is None
    assert answer.headers["cache-control"] == "no-store"
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def as_sent(event: Mapping[str, Any]) -> dict[str, Any]:
    """A shown event in the form in which the file has it."""
    occurred_at = parse_time(event["occurred_at"])
    assert occurred_at is not None
    assert event["redactions"] == []
    return {
        "stream": event["stream"],
        "type": event["type"],
        "subject": event["subject"],
        "actor": event["actor"]["subject"],
        "occurred_at": format_time(occurred_at).replace(".000000", ""),
        "data": event["data"],
    }


def redacted(event: Mapping[str, Any], erasure: Mapping[str, Any]) -> dict[str, Any]:
    """The same envelope, less what has been forgotten."""
    redaction = {
        "pointer": "/data",
        "subject_ref": erasure["subject_ref"],
        "purpose": "",
        "reason": "erased",
        "at": erasure["erased_at"],
        "erasure_id": erasure["id"],
    }
    return {**event, "stream": None, "subject": None, "data": None, "redactions": [redaction]}


def merged(sent: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of these events: flat data without nulls, so later members win."""
    state: dict[str, Any] = {}
    for event in sent:
        state.update(event["data"])
    return state


def leaf_hashes(server: ServedLedger) -> list[bytes]:
    """All leaf hashes, read from the database itself."""
    default = f"sqlite:///{server.home}/ledger.db"
    engine = open_engine(server.environment.get("AUDIT_LEDGER_DATABASE_URL", default))
    with engine.connect() as connection:
        hashes = list(connection.execute(sa.select(events.c.leaf_hash).order_by(events.c.position)).scalars())
    engine.dispose()
    return hashes
