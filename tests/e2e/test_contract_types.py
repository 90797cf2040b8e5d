"""The catalogue, the policy, ended streams and copies, as a client meets them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Tenant
from tests.support.server import NDJSON, Answer

PERSON = {"properties": {"first": {"type": "string"}, "last": {"type": "string"}}, "required": ["first", "last"]}
FULL_NAME = {"template": {"path": "/full_name", "template": "{/first} {/last}"}}
CANARY = "Canary-Types-5521"


def registered(stream: str = "patient-A", **more: Any) -> dict[str, Any]:
    """An event of the type that the tests register."""
    data = {"first": "Ada", "last": "Lovelace"}
    return {"stream": stream, "type": "Registered", "subject": "patient:A", "data": data, **more}


def a_type(version: int = 1, **more: Any) -> dict[str, Any]:
    """A version to register."""
    return {"type": "Registered", "version": version, **more}


def put(tenant: Tenant, body: bytes) -> Answer:
    """PUT of a policy."""
    return tenant.client.send("PUT", f"{tenant.path}/policy", body, {"Content-Type": "application/json"})


def pointers(answer: Answer) -> list[str]:
    """Where a problem says that something is wrong."""
    return [error["pointer"] for error in answer.json()["errors"]]


def test_a_type_is_registered_and_looked_up(tenant: Tenant) -> None:
    """201, then 200 for the same again, 409 for other content; and the catalogue shows all of it."""
    types = f"{tenant.path}/types"
    first = tenant.client.post(types, a_type(schema=PERSON))
    again = tenant.client.post(types, a_type(schema=PERSON, upcast=None, closes_stream=False))
    other = tenant.client.post(types, a_type(schema={}))
    second = tenant.client.post(types, a_type(2, upcast=[FULL_NAME]))

    assert (first.status, again.status, second.status) == (201, 200, 201)
    assert (other.status, other.code) == (409, "already-exists")
    assert again.json() == first.json()
    assert list(first.json()) == [
        "type",
        "version",
        "schema",
        "nonpersonal_schema",
        "upcast",
        "closes_stream",
        "registered_at",
        "registered_by",
    ]
    assert tenant.client.get(types).json() == {
        "types": [{"type": "Registered", "newest_version": 2, "closes_stream": False}]
    }
    described = tenant.client.get(f"{types}/Registered").json()
    assert described["versions"] == [first.json(), second.json()]
    assert (described["newest_version"], described["versions"][1]["upcast"]) == (2, [FULL_NAME])
    assert tenant.client.get(f"{types}/Unknown").status == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (a_type(0), "/version"),
        (a_type(True), "/version"),
        (a_type(2, upcast=[]), "/version"),
        (a_type(upcast=[]), "/upcast"),
        (a_type(upcast=FULL_NAME), "/upcast"),
        (a_type(schema=[CANARY]), "/schema"),
        (a_type(schema={"$ref": f"https://{CANARY}"}), "/schema/$ref"),
        (a_type(schema={"minimum": CANARY}), "/schema/minimum"),
        ({"version": 1}, "/type"),
        ({**a_type(), "type": "SubjectErased"}, "/type"),
        ({**a_type(), "type": f"{CANARY} x"}, "/type"),
        ({**a_type(), CANARY: 1}, ""),
    ],
)
def test_what_cannot_be_registered(embedded_tenant: Tenant, body: dict[str, Any], pointer: str) -> None:
    """422 with the place, and no echo of what stood there."""
    answer = embedded_tenant.client.post(f"{embedded_tenant.path}/types", body)
    assert (answer.status, answer.code) == (422, "invalid")
    assert pointers(answer) == [pointer]
    assert CANARY not in answer.body.decode()


def test_a_version_that_is_too_large(embedded_tenant: Tenant) -> None:
    """413 above 64 KiB."""
    answer = embedded_tenant.client.post(f"{embedded_tenant.path}/types", a_type(schema={"title": "x" * 2**16}))
    assert (answer.status, answer.code) == (413, "too-large")


def test_what_does_not_fit_is_refused(tenant: Tenant) -> None:
    """422 with pointer and keyword, never a value; a line that does not fit loses no other."""
    tenant.client.post(f"{tenant.path}/types", a_type(schema=PERSON))
    bad = registered(data={"first": 904417662094, CANARY: CANARY})

    answer = tenant.client.post(f"{tenant.path}/events", {"events": [registered(), bad]})
    lines = tenant.client.post_lines(f"{tenant.path}/events", [bad, registered(), registered(schema_version=2)])

    assert (answer.status, answer.code, tenant.size) == (422, "invalid", 1)
    found = {(error["pointer"], error.get("keyword")) for error in answer.json()["errors"]}
    assert found == {("/events/1/data/last", "required"), ("/events/1/data/first", "type")}
    first, second, third, end = lines.lines()
    assert [error["pointer"] for error in first["problem"]["errors"]] == ["/data/first", "/data/last"]
    assert second["stream_version"] == 1
    assert [error["pointer"] for error in third["problem"]["errors"]] == ["/schema_version"]
    assert (end["recorded"], end["refused"]) == (1, 2)
    for told in (answer.body, lines.body, tenant.server.log().encode()):
        assert CANARY.encode() not in told
        assert b"904417662094" not in told.replace(CANARY.encode(), b"")


def test_a_strict_ledger(tenant: Tenant) -> None:
    """What its policy says holds from the answer on, in every process."""
    default = {"strict_types": False, "unlink_after": 90, "public_checkpoints": False}
    assert tenant.client.get(f"{tenant.path}/policy").json() == default
    assert put(tenant, b'{"strict_types": true}').json() == {**default, "strict_types": True}
    for _ in range(4):
        answer = tenant.client.post(f"{tenant.path}/events", registered())
        assert (answer.status, pointers(answer)) == (422, ["/type"])
    tenant.client.post(f"{tenant.path}/types", a_type())
    for _ in range(4):
        assert tenant.client.post(f"{tenant.path}/events", registered()).status == 201
    for days in (b"0", b"36500", b'"never"'):
        assert put(tenant, b'{"unlink_after": ' + days + b"}").json()["unlink_after"] == json.loads(days)
    assert put(tenant, b"{}").json() == default
    wrong_days = (b"-1", b"36501", b"1.5", b"true", b'"90"', b"null")
    for wrong in (
        b'{"strict_types": 1}',
        b'{"strict": true}',
        b'{"public_checkpoints": "yes"}',
        *(b'{"unlink_after": ' + days + b"}" for days in wrong_days),
    ):
        assert put(tenant, wrong).status == 422


def test_events_are_shown_in_the_newest_shape(tenant: Tenant) -> None:
    """In queries, streams of lines, the feed and single events; as recorded, where a client asks for that."""
    event_id = tenant.client.post(f"{tenant.path}/events", registered()).json()["events"][0]["id"]
    tenant.client.post(f"{tenant.path}/types", a_type())
    tenant.client.post(f"{tenant.path}/types", a_type(2, upcast=[FULL_NAME, {"drop": {"path": "/first"}}]))
    client, path = tenant.client, tenant.path

    def everywhere(as_recorded: bool) -> list[dict[str, Any]]:
        body = {"as_recorded": as_recorded}
        parameter = f"as_recorded={str(as_recorded).lower()}"
        return [
            client.post(f"{path}/query", body).json()["events"][0],
            client.post(f"{path}/query", body, {"Accept": NDJSON}).lines()[0],
            client.get(f"{path}/events?{parameter}").json()["events"][0],
            client.get(f"{path}/events/{event_id}?{parameter}").json(),
        ]

    for event in everywhere(False):
        assert event["data"] == {"last": "Lovelace", "full_name": "Ada Lovelace"}
        assert (event["schema_version"], event["shown_version"], event["schema_status"]) == (1, 2, "upcast")
    for event in everywhere(True):
        assert event["data"] == {"first": "Ada", "last": "Lovelace"}
        assert (event["schema_version"], event["shown_version"], event["schema_status"]) == (1, 1, "as-recorded")
    assert client.get(f"{path}/events/{event_id}").json()["shown_version"] == 2
    assert client.get(f"{path}/events/{event_id}?as_recorded=yes").status == 422
    state = client.post(f"{path}/state", {"stream": "patient-A"}).json()["state"]
    assert state == {"last": "Lovelace", "full_name": "Ada Lovelace"}


def test_a_page_may_be_followed_as_recorded(embedded_tenant: Tenant) -> None:
    """How events are shown is no part of the question that a cursor pins."""
    client, path = embedded_tenant.client, embedded_tenant.path
    client.post(f"{path}/events", {"events": [registered(), registered()]})
    cursor = client.post(f"{path}/query", {"limit": 1}).json()["next"]
    assert client.post(f"{path}/query", {"cursor": cursor, "as_recorded": True}).json()["events"][0]["position"] == 1


def test_an_ended_stream_takes_nothing_more(tenant: Tenant) -> None:
    """409 ``stream-closed``, as JSON and as lines, behind an earlier event and behind one of the same batch."""
    client, path = tenant.client, tenant.path
    client.post(f"{path}/types", {"type": "Discharged", "version": 1, "closes_stream": True})
    end = registered(type="Discharged")
    in_one = client.post(f"{path}/events", {"events": [end, registered()]})
    assert (in_one.status, in_one.code, pointers(in_one), tenant.size) == (
        409,
        "stream-closed",
        ["/events/1/stream"],
        0,
    )
    assert client.post(f"{path}/events", end).status == 201
    later = client.post(f"{path}/events", registered())
    assert (later.status, later.code, pointers(later)) == (409, "stream-closed", ["/stream"])
    lines = client.post_lines(f"{path}/events", [registered("patient-B"), registered()]).lines()
    assert lines[1]["problem"]["type"].endswith("stream-closed")
    assert lines[2]["recorded"] == 1


def test_a_stream_is_copied(tenant: Tenant) -> None:
    """Changed on the way; the old one ends; once more changes nothing; and one erasure covers both."""
    client, path = tenant.client, tenant.path
    client.post(f"{path}/events", {"events": [registered(), registered()]})
    steps = [FULL_NAME, {"drop": {"path": "/first"}}, {"drop": {"path": "/last"}}]
    order = {
        "stream": "patient-A",
        "target": "person-A",
        "transforms": {"Registered": {"type": "PersonRegistered", "steps": steps}},
    }

    done = client.post(f"{path}/streams/copy", order)
    again = client.post(f"{path}/streams/copy", order)

    assert done.status == again.status == 200
    assert list(done.json()) == ["stream_ref", "events", "copied", "parts_left_out", "superseded_at"]
    assert again.json() == {**done.json(), "copied": 0}
    new = client.post(f"{path}/query", {"stream": "person-A"}).json()["events"]
    assert [(event["type"], event["data"]) for event in new] == [
        ("PersonRegistered", {"full_name": "Ada Lovelace"})
    ] * 2
    old = client.post(f"{path}/query", {"stream": "patient-A"}).json()["events"]
    assert [event["causation_id"] for event in new] == [event["id"] for event in old[:2]]
    assert (old[2]["type"], old[2]["nonpersonal"]) == ("StreamSuperseded", {"by": new[0]["stream_ref"]})
    assert client.post(f"{path}/events", registered()).code == "stream-closed"
    client.post(f"{path}/erasures", {"subject": "patient:A"})
    erased = client.post(f"{path}/query", {"category": "person"}).json()["events"]
    assert [(event["stream"], event["subject"], event["data"]) for event in erased] == [(None, None, None)] * 2


def test_a_copy_that_is_refused(embedded_tenant: Tenant) -> None:
    """404 for no stream, 422 for what cannot be read, 409 for a stream of one who was erased; nothing is echoed."""
    client, path = embedded_tenant.client, f"{embedded_tenant.path}/streams/copy"
    place = client.post(f"{embedded_tenant.path}/events", registered()).json()["events"][0]
    order = {"stream_ref": place["stream_ref"], "target": "person-A"}
    assert client.post(path, {"stream": "patient-Z", "target": "person-A"}).status == 404
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"target": f"no category {CANARY}"}, "/target"),
        ({"target": "ledger-x"}, "/target"),
        ({"transforms": {f"{CANARY}:x": {}}}, "/transforms"),
        ({"transforms": []}, "/transforms"),
        ({"transforms": {"T": {"steps": [CANARY]}}}, "/transforms/T/steps/0"),
    ]
    for wrong, pointer in refusals:
        answer = client.post(path, {**order, **wrong})
        assert (answer.status, pointers(answer)) == (422, [pointer])
        assert CANARY not in answer.body.decode()
    client.post(f"{embedded_tenant.path}/erasures", {"subject": "patient:A"})
    refused = client.post(path, order)
    assert (refused.status, refused.code) == (409, "copy-refused")
