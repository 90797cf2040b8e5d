"""A name that was forgotten, over HTTP: nothing that takes a name gives anything of the skeleton away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Tenant

PERSON, STREAM = "patient:Berta-Canary-4410", "patient-Berta-Canary-4410"
VISIT = {"stream": STREAM, "type": "Visit", "subject": PERSON, "data": {"note": "canary-value-9917"}}
MOMENTS = {"old_as_of": {"position": -1}, "new_as_of": {"position": 0}}


def erase(tenant: Tenant, days: object) -> dict[str, Any]:
    """The person is erased, under a policy."""
    policy = json.dumps({"unlink_after": days}).encode()
    as_json = {"Content-Type": "application/json"}
    assert tenant.client.send("PUT", f"{tenant.path}/policy", policy, as_json).status == 200
    assert tenant.client.post(f"{tenant.path}/events", {"events": [VISIT, VISIT]}).status == 201
    answer = tenant.client.post(f"{tenant.path}/erasures", {"subject": PERSON, "reference": "case 5"})
    assert answer.status == 201
    erasure: dict[str, Any] = answer.json()
    return erasure


def skeleton_of(tenant: Tenant) -> list[dict[str, Any]]:
    """What ledger-wide queries still show."""
    events: list[dict[str, Any]] = tenant.client.post(f"{tenant.path}/query", {"category": "patient"}).json()["events"]
    assert [event["data"] for event in events[:2]] == [None, None]
    return events[:2]


def by_name(tenant: Tenant, person: str, stream: str) -> dict[str, tuple[int, Any]]:
    """What everything that takes a name answers: status and body, without what is new in each answer."""
    asked: list[tuple[str, dict[str, object]]] = [
        ("query", {"subject": person}),
        ("query", {"actor": person}),
        ("query", {"involving": person}),
        ("query", {"stream": stream}),
        ("state", {"stream": stream}),
        ("states", {"subject": person}),
        ("history", {"stream": stream, "path": "/note"}),
        ("diff", {"stream": stream, **MOMENTS}),
        ("streams/lookup", {"stream": stream}),
        ("streams/copy", {"stream": stream, "target": "patient-copy"}),
        ("read-models/current_state", {"stream": stream}),
        ("read-models/activity", {"subject": person}),
        ("subjects/lookup", {"subject": person}),
        ("subjects/restrict", {"subject": person}),
        ("subjects/unrestrict", {"subject": person}),
        ("erasures", {"subject": person}),
        ("events", {**VISIT, "stream": "patient-other", "subject": person}),
        ("events", {**VISIT, "stream": stream, "subject": "patient:other"}),
    ]
    found = {}
    for number, (path, body) in enumerate(asked):
        answer = tenant.client.post(f"{tenant.path}/{path}", body)
        found[f"{number} {path}"] = (answer.status, answer.json())
    return found


def test_nothing_that_takes_a_name_tells_of_the_skeleton(tenant: Tenant) -> None:
    """As for a name that nobody has; 410 where what is asked for is to do something with this very person."""
    erasure = erase(tenant, 0)
    skeleton = skeleton_of(tenant)
    telling = {erasure["subject_ref"], erasure["id"], skeleton[0]["stream_ref"], *(event["id"] for event in skeleton)}
    refused = {"subjects/lookup", "subjects/restrict", "subjects/unrestrict", "erasures", "events"}
    known = by_name(tenant, PERSON, STREAM)
    nobody = by_name(tenant, "patient:nobody", "patient-nobody")
    for asked, (status, body) in known.items():
        assert [one for one in telling if one in json.dumps(body)] == [], asked
        if asked.split()[1] in refused:
            assert (status, body["type"].rpartition(":")[2]) == (410, "subject-erased"), asked
        else:
            assert (status, body) == nobody[asked], asked
    assert skeleton_of(tenant) == skeleton
    assert [event["redactions"][0]["reason"] for event in skeleton] == ["erased"] * 2


def test_the_answer_says_that_the_name_was_forgotten(tenant: Tenant) -> None:
    """At once, with policy 0; the receipt has the statement, and lists and the subject say so by ref."""
    erasure = erase(tenant, 0)
    assert (erasure["state"], erasure["unlink_pending"]) == ("erased", None)
    assert erasure["unlinked_at"] is not None
    (statement,) = erasure["receipt"]["statements"]
    assert (statement["payload"]["kind"], statement["payload"]["unlinked_at"]) == ("unlinked", erasure["unlinked_at"])
    shown = tenant.client.get(f"{tenant.path}/erasures/{erasure['id']}").json()
    (listed,) = tenant.client.get(f"{tenant.path}/erasures?reference=case%205").json()["erasures"]
    receipt = tenant.client.get(f"{tenant.path}/erasures/{erasure['id']}/receipt").json()
    assert {one["unlinked_at"] for one in (shown, listed)} == {erasure["unlinked_at"]}
    assert receipt == erasure["receipt"]
    subject = tenant.client.get(f"{tenant.path}/subjects/{erasure['subject_ref']}").json()
    assert (subject["unlinked_at"], subject["names"], subject["events"]) == (erasure["unlinked_at"], 0, 2)


@pytest.mark.parametrize(("days", "word"), [("never", "policy-never"), (90, "not-yet")])
def test_until_then_it_says_why_not(tenant: Tenant, days: object, word: str) -> None:
    """And the name still leads there."""
    erasure = erase(tenant, days)
    pending = erasure["unlink_pending"]
    assert (erasure["unlinked_at"], pending["reason"]) == (None, word)
    assert (pending["due_at"] is None) == (days == "never")
    subject = tenant.client.post(f"{tenant.path}/subjects/lookup", {"subject": PERSON}).json()
    assert (subject["subject_ref"], subject["unlinked_at"], subject["names"]) == (erasure["subject_ref"], None, 1)


def test_the_name_can_begin_anew(tenant: Tenant) -> None:
    """As after any erasure, with a new ref and new streams."""
    erasure = erase(tenant, 0)
    old_stream = skeleton_of(tenant)[0]["stream_ref"]
    answer = tenant.client.post(f"{tenant.path}/subjects/reinstate", {"subject": PERSON, "reason": "new contract"})
    assert answer.status == 201
    assert answer.json()["subject_ref"] != erasure["subject_ref"]
    appended = tenant.client.post(f"{tenant.path}/events", {**VISIT, "expected_version": 0}).json()
    assert appended["events"][0]["stream_ref"] != old_stream
    found = tenant.client.post(f"{tenant.path}/query", {"subject": PERSON}).json()["events"]
    assert [event["data"] for event in found] == [VISIT["data"]]
