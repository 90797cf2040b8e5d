"""What an auditor may rely on."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.e2e.conftest import Tenant
from tests.support.server import NDJSON

EVENT_MEMBERS = [
    "position", "id", "type", "schema_version", "stream", "stream_ref", "stream_version", "category", "recorded_at",
    "occurred_at", "recorded_by", "correlation_id", "causation_id", "subject", "subject_ref", "purpose", "data",
    "actor", "parts", "nonpersonal", "redactions", "shown_version", "schema_status",
]  # fmt: skip


def stay(patient: str, kind: str, occurred_at: str, **more: object) -> dict[str, object]:
    """An event of a patient's stay."""
    event = {"stream": f"patient-{patient}", "type": kind, "subject": f"patient:{patient}", "occurred_at": occurred_at}
    return {**event, "data": {"kind": kind, "age": 85}, **more}


@pytest.fixture
def hospital(tenant: Tenant) -> Tenant:
    """A ledger with six events of two patients; the second was recorded late."""
    events = [
        stay("A", "Registration", "2026-01-01T10:00:00Z", actor="group:L"),
        stay("B", "Registration", "2026-01-01T11:00:00Z", actor={"subject": "group:M", "data": {"ip": "192.0.2.1"}}),
        stay("A", "CRP", "2026-01-02T10:00:00Z", parts=[{"subject": "patient:B", "data": {"contact": True}}]),
        stay("A", "Release", "2026-01-05T10:00:00Z"),
        stay("A", "Triage", "2026-01-01T10:30:00Z"),
        {"stream": "ward-1", "type": "Cleaned", "nonpersonal": {"ward": 1}, "occurred_at": "2026-01-03T00:00:00Z"},
    ]
    assert tenant.client.post(f"{tenant.path}/events", {"events": events}).status == 201
    return tenant


def positions(tenant: Tenant, **question: object) -> list[int]:
    """The positions that a query finds, in its order."""
    answer = tenant.client.post(f"{tenant.path}/query", question)
    assert answer.status == 200, answer.body
    return [event["position"] for event in answer.json()["events"]]


def test_an_event_has_the_shape_of_the_contract(hospital: Tenant) -> None:
    """Members in the contract's order, names in clear, refs beside them."""
    page = hospital.client.post(f"{hospital.path}/query", {}).json()
    first, second, third, *_, last = page["events"]

    assert list(page) == ["as_of", "next", "events"]
    assert page["next"] is None
    assert page["as_of"] == {"position": 5, "recorded_at": last["recorded_at"]}
    assert list(first) == EVENT_MEMBERS
    assert (first["stream"], first["category"], first["stream_version"]) == ("patient-A", "patient", 1)
    assert (first["subject"], first["purpose"], first["data"]) == ("patient:A", "", {"kind": "Registration", "age": 85})
    assert (first["actor"]["subject"], first["actor"]["data"]) == ("group:L", {})
    assert second["actor"]["data"] == {"ip": "192.0.2.1"}
    assert [list(part) for part in third["parts"]] == [["subject", "subject_ref", "purpose", "data"]]
    assert third["parts"][0]["subject_ref"] == second["subject_ref"]
    assert first["occurred_at"] == "2026-01-01T10:00:00.000000Z"
    assert (last["subject"], last["subject_ref"], last["purpose"], last["data"]) == (None, None, None, None)
    assert (last["nonpersonal"], last["actor"], last["parts"], last["redactions"]) == ({"ward": 1}, None, [], [])


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"stream": "patient-A"}, [0, 2, 3, 4]),
        ({"stream": "patient-A", "after_version": 2}, [3, 4]),
        ({"stream": "patient-nobody"}, []),
        ({"category": "ward"}, [5]),
        ({"type": ["CRP", "Release"]}, [2, 3]),
        ({"subject": "patient:B"}, [1]),
        ({"subject": "nobody"}, []),
        ({"actor": "group:L"}, [0]),
        ({"involving": "patient:B"}, [1, 2]),
        ({"involving": "patient:B", "subject": "patient:A"}, [2]),
        ({"occurred_from": "2026-01-01T10:30:00Z", "occurred_to": "2026-01-02T10:00:00Z"}, [1, 4]),
        ({"as_of": {"position": 1}}, [0, 1]),
        ({"order": "desc", "stream": "patient-A"}, [4, 3, 2, 0]),
        ({"order_by": "occurred", "stream": "patient-A"}, [0, 4, 2, 3]),
        ({"recorded_to": "2020-01-01T00:00:00Z"}, []),
        ({"recorded_from": "2020-01-01T00:00:00Z"}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_every_filter_finds_its_events(hospital: Tenant, question: dict[str, object], found: list[int]) -> None:
    """Alone and together."""
    assert positions(hospital, **question) == found


def test_refs_ask_the_same_as_names(hospital: Tenant) -> None:
    """A link to a finding can be shared without a name in it."""
    event = hospital.client.post(f"{hospital.path}/query", {"subject": "patient:A"}).json()["events"][0]

    assert positions(hospital, subject_ref=event["subject_ref"]) == [0, 2, 3, 4]
    assert positions(hospital, stream_ref=event["stream_ref"]) == [0, 2, 3, 4]
    assert positions(hospital, involving_ref=event["actor"]["subject_ref"]) == [0]


def test_as_of_a_time_shows_what_was_recorded_by_then(hospital: Tenant) -> None:
    """The same moment gives the same answer, whatever is recorded later."""
    before = hospital.client.post(f"{hospital.path}/query", {}).json()
    hospital.client.post(f"{hospital.path}/events", stay("A", "Late", "2025-12-31T00:00:00Z"))

    then = hospital.client.post(f"{hospital.path}/query", {"as_of": before["as_of"]["recorded_at"]}).json()

    assert then == before
    assert positions(hospital, as_of="2020-01-01T00:00:00Z") == []


@pytest.mark.parametrize("as_of", ["2999-01-01T00:00:00Z", {"position": 6}])
def test_the_future_cannot_be_asked_about(hospital: Tenant, as_of: object) -> None:
    """422: nobody knows it."""
    answer = hospital.client.post(f"{hospital.path}/query", {"as_of": as_of})

    assert (answer.status, answer.code) == (422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == "/as_of"


@pytest.mark.parametrize("how", [{}, {"order": "desc"}, {"order_by": "occurred"}, {"subject": "patient:A"}])
def test_pages_stay_right_while_events_are_appended(hospital: Tenant, how: dict[str, object]) -> None:
    """A cursor pins filters, order and moment; it works alone and beside its own query."""
    whole = positions(hospital, **how)
    seen: list[int] = []
    body: dict[str, Any] = {**how, "limit": 2}
    while True:
        page = hospital.client.post(f"{hospital.path}/query", body).json()
        seen += [event["position"] for event in page["events"]]
        hospital.client.post(f"{hospital.path}/events", stay("A", "Later", "2026-01-01T00:00:00Z"))
        if page["next"] is None:
            break
        alone = len(seen) < 4
        body = {"cursor": page["next"], "limit": 2} if alone else {**how, "cursor": page["next"], "limit": 2}

    assert seen == whole


def test_a_cursor_of_another_query_is_refused(hospital: Tenant) -> None:
    """Rather than answering one question with the pages of another."""
    cursor = hospital.client.post(f"{hospital.path}/query", {"subject": "patient:A", "limit": 1}).json()["next"]

    answers = [
        hospital.client.post(f"{hospital.path}/query", {"subject": "patient:B", "cursor": cursor}),
        hospital.client.post(f"{hospital.path}/query", {"cursor": cursor[:-2]}),
    ]

    assert [(answer.status, answer.json()["errors"][0]["pointer"]) for answer in answers] == [(422, "/cursor")] * 2


def test_a_stream_of_lines_has_the_whole_answer_and_an_end(hospital: Tenant) -> None:
    """NDJSON, without paging."""
    answer = hospital.client.post(f"{hospital.path}/query", {"subject": "patient:A"}, {"Accept": NDJSON})

    *events, end = answer.lines()
    assert (answer.status, answer.headers["content-type"]) == (200, NDJSON)
    assert [event["position"] for event in events] == [0, 2, 3, 4]
    assert [list(event) for event in events] == [EVENT_MEMBERS] * 4
    assert end == {"end": True, "count": 4}


def test_one_event_can_be_shown(hospital: Tenant) -> None:
    """By its id; an unknown one is 404."""
    event = hospital.client.post(f"{hospital.path}/query", {"limit": 1}).json()["events"][0]

    assert hospital.client.get(f"{hospital.path}/events/{event['id']}").json() == event
    assert hospital.client.get(f"{hospital.path}/events/00000000-0000-4000-8000-000000000000").status == 404
    assert hospital.client.get(f"{hospital.path}/events/patient-A").code == "not-found"


def test_the_feed_goes_on_where_it_stopped(hospital: Tenant) -> None:
    """``after`` a position, filtered by what is no name."""
    everything = hospital.client.get(f"{hospital.path}/events").json()
    page = hospital.client.get(f"{hospital.path}/events?after=1&limit=2").json()
    event = everything["events"][0]
    by = [f"type=CRP,Release&subject_ref={event['subject_ref']}", "type=CRP&type=Release&as_of=3&category=patient"]
    rest = hospital.client.post(f"{hospital.path}/query", {"cursor": page["next"]}).json()

    assert [event["position"] for event in everything["events"]] == [0, 1, 2, 3, 4, 5]
    assert [event["position"] for event in page["events"]] == [2, 3]
    assert [event["position"] for event in rest["events"]] == [4, 5]
    for parameters in by:
        found = hospital.client.get(f"{hospital.path}/events?{parameters}").json()["events"]
        assert [event["position"] for event in found] == [2, 3]
    assert hospital.client.get(f"{hospital.path}/events?after=5").json()["events"] == []


def test_the_feed_takes_its_own_cursors(hospital: Tenant) -> None:
    """``next`` leads on, alone or with the same parameters; with others it is refused."""
    path = f"{hospital.path}/events?limit=2"
    first = hospital.client.get(path).json()
    whole = hospital.client.get(f"{hospital.path}/events?limit=4").json()["events"]
    for again in ("", "&after=-1"):
        second = hospital.client.get(f"{path}&cursor={first['next']}{again}").json()
        assert first["events"] + second["events"] == whole
    other = hospital.client.get(f"{path}&cursor={first['next']}&category=other")
    assert (other.status, other.code) == (422, "invalid")


def test_a_follower_waits_for_the_next_event(hospital: Tenant) -> None:
    """A long poll answers when the event comes, and with nothing when none does."""
    answers: list[Any] = []
    follower = threading.Thread(
        target=lambda: answers.append(hospital.client.get(f"{hospital.path}/events?after=5&wait=30"))
    )
    began = time.monotonic()
    follower.start()
    time.sleep(0.5)
    assert not answers
    hospital.client.post(f"{hospital.path}/events", stay("A", "New", "2026-02-01T00:00:00Z"))
    follower.join(10)

    assert [event["position"] for event in answers[0].json()["events"]] == [6]
    assert time.monotonic() - began < 10
    assert hospital.client.get(f"{hospital.path}/events?after=6&wait=1").json()["events"] == []


def test_the_state_stands_on_both_axes(hospital: Tenant) -> None:
    """What was known at a moment of how the stream stood at another."""

    def state(**question: object) -> dict[str, Any]:
        answer = hospital.client.post(f"{hospital.path}/state", {"stream": "patient-A", **question})
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    now = state()
    assert list(now) == ["as_of", "stream_ref", "stream_version", "state", "complete", "redactions", "unknown_versions"]
    assert (now["stream_version"], now["state"]["kind"], now["complete"]) == (4, "Triage", True)
    assert state(as_of={"position": 2})["state"]["kind"] == "CRP"
    assert state(occurred_as_of="2026-01-01T12:00:00Z")["state"]["kind"] == "Triage"
    assert state(occurred_as_of="2026-01-01T12:00:00Z", as_of={"position": 3})["state"]["kind"] == "Registration"
    assert hospital.client.post(f"{hospital.path}/state", {"stream": "patient-C"}).status == 404


def test_a_stream_can_be_looked_up(hospital: Tenant) -> None:
    """Its ref and version; 404 for one without events."""
    found = hospital.client.post(f"{hospital.path}/streams/lookup", {"stream": "patient-A"}).json()
    again = hospital.client.post(f"{hospital.path}/streams/lookup", {"stream_ref": found["stream_ref"]}).json()

    assert found == again
    assert found["stream_version"] == 4
    assert hospital.client.post(f"{hospital.path}/streams/lookup", {"stream": "patient-C"}).status == 404
