"""What a writer may rely on."""

from __future__ import annotations

import uuid

import pytest

from tests.e2e.conftest import Tenant
from tests.support.server import NDJSON

EVENT = {"stream": "patient-A", "type": "ERRegistration", "subject": "patient:A", "data": {"age": 85}}


def noted(stream: str = "ward-1", **more: object) -> dict[str, object]:
    """An event that concerns nobody."""
    return {"stream": stream, "type": "Noted", "nonpersonal": {"n": 1}, **more}


def new_id() -> str:
    """A random UUID, version 4."""
    return str(uuid.uuid4())


def test_an_event_gets_its_place(tenant: Tenant) -> None:
    """201 with id, position, refs, version and time of each event."""
    first = tenant.client.post(f"{tenant.path}/events", EVENT)
    second = tenant.client.post(f"{tenant.path}/events", EVENT)

    assert (first.status, second.status) == (201, 201)
    assert first.json()["duplicate"] is False
    (one,), (two,) = first.json()["events"], second.json()["events"]
    assert list(one) == ["id", "position", "stream_ref", "stream_version", "recorded_at"]
    assert (one["position"], one["stream_version"]) == (0, 1)
    assert (two["position"], two["stream_version"]) == (1, 2)
    assert one["stream_ref"] == two["stream_ref"]
    assert uuid.UUID(one["id"]).version == 7
    assert one["recorded_at"] <= two["recorded_at"]


@pytest.mark.parametrize("values", ["1e15," * 200_000 + "0", '"' + "x" * (2**20 - 200) + '"'])
def test_an_event_of_exactly_a_mebibyte_is_recorded(tenant: Tenant, values: str) -> None:
    """What counts is what was sent, and not what padding, tags and numbers that are written out make of it."""
    text = f'{{"stream": "ward-1", "type": "Noted", "nonpersonal": {{"values": [{values}]'.encode()
    exact = text + b" " * (2**20 - len(text) - 2) + b"}}"
    assert len(exact) == 2**20
    one = tenant.client.send("POST", f"{tenant.path}/events", exact, {"Content-Type": "application/json"})
    _, end = tenant.client.send("POST", f"{tenant.path}/events", exact, {"Content-Type": NDJSON}).lines()
    assert (one.status, end["recorded"], end["refused"]) == (201, 1, 0)


def test_the_contracts_own_example_is_recorded(tenant: Tenant) -> None:
    """Every field of the contract's event is taken."""
    event = {
        "id": new_id(),
        "stream": "patient-A",
        "expected_version": 0,
        "type": "ERRegistration",
        "schema_version": 1,
        "subject": "patient:A",
        "purpose": "",
        "data": {"age": 85},
        "actor": {"subject": "group:L", "data": {"ip": "192.0.2.1"}},
        "parts": [{"subject": "patient:B", "purpose": "", "data": {"contact": "x"}}],
        "nonpersonal": {"ward": "ER"},
        "occurred_at": "2014-10-22T11:15:41Z",
        "correlation_id": None,
        "causation_id": None,
        "if_erased": "refuse",
    }

    answer = tenant.client.post(f"{tenant.path}/events", event)

    assert answer.status == 201
    assert answer.json()["events"][0]["id"] == event["id"]


def test_a_batch_is_all_or_nothing(tenant: Tenant) -> None:
    """I12: one event that cannot be recorded keeps the others out."""
    batch = {"events": [noted(), noted(expected_version=7)]}

    answer = tenant.client.post(f"{tenant.path}/events", batch)

    assert (answer.status, answer.code) == (409, "version-conflict")
    assert answer.json()["errors"] == [
        {
            "pointer": "/events/1/expected_version",
            "message": answer.json()["errors"][0]["message"],
            "expected": 7,
            "actual": 1,
        }
    ]
    assert tenant.size == 0


@pytest.mark.parametrize(("expected", "status"), [(0, 409), (1, 201), (2, 409), ("exists", 201), ("any", 201)])
def test_an_expected_version_holds_or_nothing_is_recorded(tenant: Tenant, expected: object, status: int) -> None:
    """I3: what a stream with one event answers to each expectation."""
    tenant.client.post(f"{tenant.path}/events", noted())

    answer = tenant.client.post(f"{tenant.path}/events", noted(expected_version=expected))

    assert answer.status == status
    assert tenant.size == (2 if status == 201 else 1)


def test_a_stream_that_must_exist_does(tenant: Tenant) -> None:
    """``exists`` refuses the first event of a stream."""
    answer = tenant.client.post(f"{tenant.path}/events", noted(expected_version="exists"))

    assert (answer.status, answer.code) == (409, "version-conflict")


def test_a_retry_gives_the_first_result(tenant: Tenant) -> None:
    """I4: 200, the same places, ``duplicate``, and nothing recorded twice."""
    batch = {"events": [noted(id=new_id()), noted("ward-2", id=new_id())]}

    first = tenant.client.post(f"{tenant.path}/events", batch)
    again = tenant.client.post(f"{tenant.path}/events", batch)

    assert (first.status, again.status) == (201, 200)
    assert again.json() == {"events": first.json()["events"], "duplicate": True}
    assert tenant.size == 2


def test_an_id_with_other_content_is_refused(tenant: Tenant) -> None:
    """I4: an id stands for one event."""
    event = noted(id=new_id())
    tenant.client.post(f"{tenant.path}/events", event)

    answer = tenant.client.post(f"{tenant.path}/events", {**event, "type": "Other"})

    assert (answer.status, answer.code) == (409, "id-conflict")
    assert answer.json()["errors"][0]["pointer"] == "/id"
    assert tenant.size == 1


def test_a_batch_that_is_partly_recorded_is_refused(tenant: Tenant) -> None:
    """The client learns which ids are there."""
    event = noted(id=new_id())
    tenant.client.post(f"{tenant.path}/events", event)

    answer = tenant.client.post(f"{tenant.path}/events", {"events": [noted(id=new_id()), event]})

    assert (answer.status, answer.code) == (409, "partly-recorded")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/events/1/id"]
    assert tenant.size == 1


def test_an_idempotency_key_makes_a_retry_safe(tenant: Tenant) -> None:
    """I4: ids are derived from the key and the index, and cannot be guessed from them."""
    batch = {"events": [noted(), noted()]}
    headers = {"Idempotency-Key": "order-7"}

    first = tenant.client.post(f"{tenant.path}/events", batch, headers)
    again = tenant.client.post(f"{tenant.path}/events", batch, headers)
    other = tenant.client.post(f"{tenant.path}/events", batch, {"Idempotency-Key": "order-8"})

    assert (first.status, again.status, other.status) == (201, 200, 201)
    assert again.json()["events"] == first.json()["events"]
    assert {uuid.UUID(event["id"]).version for event in first.json()["events"]} == {8}
    assert tenant.size == 4


def test_a_trace_is_the_default_correlation(tenant: Tenant) -> None:
    """``traceparent`` is taken up; what the event says goes first."""
    trace, own = "4bf92f3577b34da6a3ce929d0e0e4736", new_id()
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}

    tenant.client.post(f"{tenant.path}/events", {"events": [noted(), noted(correlation_id=own)]}, headers)

    events = tenant.client.post(f"{tenant.path}/query", {}).json()["events"]
    assert [event["correlation_id"] for event in events] == [str(uuid.UUID(hex=trace)), own]


def test_lines_are_recorded_in_order_and_a_bad_one_loses_no_good_one(tenant: Tenant) -> None:
    """NDJSON: one answer for each line in order, and the counts."""
    text = b"\n".join(
        [
            b'{"stream":"ward-1","type":"A","nonpersonal":{}}',
            b"",
            b'{"stream":"ward-1","type":"B"}',
            b"not json",
            b'{"stream":"ward-1","type":"C","nonpersonal":{}}',
        ]
    )

    answer = tenant.client.send("POST", f"{tenant.path}/events", text, {"Content-Type": NDJSON})

    assert (answer.status, answer.headers["content-type"]) == (200, NDJSON)
    *lines, end = answer.lines()
    assert [line["line"] for line in lines] == [1, 3, 4, 5]
    assert [line["position"] for line in lines if "position" in line] == [0, 1]
    assert [line["problem"]["status"] for line in lines if "problem" in line] == [422, 400]
    assert end == {"end": True, "recorded": 2, "duplicates": 0, "refused": 2}


def test_sending_the_same_lines_again_records_nothing_twice(tenant: Tenant) -> None:
    """I4: with an ``Idempotency-Key`` a file can be sent again, longer than before too."""
    lines = [noted(f"ward-{number}") for number in range(30)]
    headers = {"Idempotency-Key": "file-1"}

    first = tenant.client.post_lines(f"{tenant.path}/events", lines[:20], headers).lines()
    again = tenant.client.post_lines(f"{tenant.path}/events", lines, headers).lines()

    assert first[-1] == {"end": True, "recorded": 20, "duplicates": 0, "refused": 0}
    assert again[-1] == {"end": True, "recorded": 10, "duplicates": 20, "refused": 0}
    assert again[:20] == first[:20]
    assert tenant.size == 30


def test_an_append_for_an_erased_subject_is_gone(tenant: Tenant) -> None:
    """I8: 410 for the subject and for every stream that it owns; ``omit`` leaves its parts out elsewhere."""
    tenant.client.post(f"{tenant.path}/events", EVENT)
    tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:A"})

    refused = [
        tenant.client.post(f"{tenant.path}/events", EVENT),
        tenant.client.post(f"{tenant.path}/events", {**EVENT, "stream": "patient-new"}),
        tenant.client.post(f"{tenant.path}/events", {**noted("patient-A")}),
        tenant.client.post(f"{tenant.path}/events", {**noted(), "parts": [{"subject": "patient:A", "data": {}}]}),
    ]
    omitted = tenant.client.post(
        f"{tenant.path}/events", {**noted(), "parts": [{"subject": "patient:A", "data": {}}], "if_erased": "omit"}
    )

    assert [(answer.status, answer.code) for answer in refused] == [(410, "subject-erased")] * 4
    assert omitted.status == 201


def test_appending_by_ref_is_appending_by_name(tenant: Tenant) -> None:
    """A ref that an answer gave leads to the same stream and subject."""
    stream_ref = tenant.client.post(f"{tenant.path}/events", EVENT).json()["events"][0]["stream_ref"]
    subject_ref = tenant.client.post(f"{tenant.path}/subjects/lookup", {"subject": "patient:A"}).json()["subject_ref"]

    answer = tenant.client.post(
        f"{tenant.path}/events",
        {"stream_ref": stream_ref, "type": "CRP", "subject_ref": subject_ref, "data": {"crp": 21}},
    )

    assert answer.status == 201
    assert answer.json()["events"][0]["stream_version"] == 2
    events = tenant.client.post(f"{tenant.path}/query", {"subject": "patient:A"}).json()["events"]
    assert [event["stream"] for event in events] == ["patient-A", "patient-A"]


def test_an_idempotency_key_belongs_to_a_principal(tenant: Tenant) -> None:
    """I4: two clients that both count from 1 do not take each other's events for repeats; a new API key of one does."""
    headers, event = {"Idempotency-Key": "1"}, {"stream": "order-1", "type": "Placed", "nonpersonal": {"n": 1}}
    clients = [
        tenant.client.with_key(tenant.server.make_key("writer", ledger=tenant.name, principal=principal))
        for principal in ("shop", "office", "shop")
    ]
    answers = [client.post(f"{tenant.path}/events", event, headers) for client in clients]
    assert [answer.status for answer in answers] == [201, 201, 200]
    assert answers[0].json()["events"] == answers[2].json()["events"]
    assert tenant.size == 2
