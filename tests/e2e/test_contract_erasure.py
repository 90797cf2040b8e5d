"""What the privacy team and the person may rely on."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.e2e.conftest import Tenant
from tests.support.server import NDJSON

PERSON = "patient:Anna-Canary-7731"
STREAM = "patient-Anna-Canary-7731"
VALUE = "canary-value-5520"


@pytest.fixture
def ward(tenant: Tenant) -> Tenant:
    """A ledger where a person is a subject, an actor and a further person."""
    events = [
        {"stream": STREAM, "type": "Admitted", "subject": PERSON, "data": {"note": VALUE}, "nonpersonal": {"ward": 1}},
        {"stream": STREAM, "type": "Billed", "subject": PERSON, "purpose": "billing", "data": {"iban": VALUE}},
        {"stream": "patient-B", "type": "Visited", "subject": "patient:B", "data": {"by": "family"}, "actor": PERSON},
        {
            "stream": "patient-B",
            "type": "Contact",
            "subject": "patient:B",
            "data": {"n": 1},
            "parts": [{"subject": PERSON, "data": {"phone": VALUE}}],
        },
    ]
    assert tenant.client.post(f"{tenant.path}/events", {"events": events}).status == 201
    return tenant


def erase(tenant: Tenant, **order: object) -> Any:
    """The answer to an erasure of the person."""
    return tenant.client.post(f"{tenant.path}/erasures", {"subject": PERSON, **order})


def events_of(tenant: Tenant, **question: object) -> list[dict[str, Any]]:
    """What a query finds."""
    found: list[dict[str, Any]] = tenant.client.post(f"{tenant.path}/query", question).json()["events"]
    return found


def test_an_erasure_answers_with_its_receipt(ward: Tenant) -> None:
    """201, the erasure's fields, the receipt, and the salt of the name this once."""
    answer = erase(ward, ground="17(1)(b)", reference="case 2026-114")

    assert answer.status == 201
    done = answer.json()
    assert (done["state"], done["events"], done["final_at"], done["unlinked_at"]) == ("erased", 3, None, None)
    assert (done["ground"], done["reference"], done["purposes"]) == ("17(1)(b)", "case 2026-114", None)
    payload = done["receipt"]["payload"]
    assert set(payload) >= {"id", "subject_ref", "name_commitment", "key_ids", "events", "requested_at", "erased_at"}
    assert set(payload) >= {"position", "leaf", "root"}
    assert (payload["id"], payload["position"]) == (done["id"], 4)
    assert done["receipt"]["proof"]["index"] == done["receipt"]["payload"]["position"]
    assert done["receipt"]["checkpoint"].splitlines()[0] == f"localhost/{ward.name}"
    salt = base64.b64decode(done["name_salt"])
    assert base64.b64decode(payload["name_commitment"]) == hashlib.sha256(salt + PERSON.encode()).digest()


def test_a_receipt_verifies_under_the_ledgers_key(ward: Tenant) -> None:
    """Anybody with the verifier key can check it, and it is always the same bytes."""
    done = erase(ward).json()
    verifier_key = ward.client.get(ward.path).json()["verifier_key"]

    name, key_id, encoded = verifier_key.split("+", 2)
    key = base64.b64decode(encoded)
    message = (
        b"audit-ledger v1 receipt\n"
        + json.dumps(done["receipt"]["payload"], ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    )

    assert name == f"localhost/{ward.name}"
    assert hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(base64.b64decode(done["receipt"]["signature"]), message)
    assert ward.client.get(f"{ward.path}/erasures/{done['id']}/receipt").json() == done["receipt"]


def test_after_an_erasure_the_envelope_stays_and_the_person_is_gone(ward: Tenant) -> None:
    """I7: the same query, the same refs, null in place of names and data, and a redaction that says why."""
    before = events_of(ward, subject=PERSON)
    done = erase(ward).json()
    after = events_of(ward, subject=PERSON)

    for old, new in zip(before, after, strict=True):
        gone = {"stream": None, "subject": None, "data": None}
        assert new == {**old, **gone, "redactions": new["redactions"]}
        by_pointer = {redaction["pointer"]: redaction for redaction in new["redactions"]}
        assert by_pointer["/data"] == {
            "pointer": "/data",
            "subject_ref": old["subject_ref"],
            "purpose": old["purpose"],
            "reason": "erased",
            "at": done["erased_at"],
            "erasure_id": done["id"],
        }
    assert before[0]["nonpersonal"] == after[0]["nonpersonal"] == {"ward": 1}


def test_parts_of_others_stay_and_what_the_person_did_stays(ward: Tenant) -> None:
    """``purposes: null`` leaves the actor's part; other people's data is not touched."""
    erase(ward)

    visited, contact = events_of(ward, subject="patient:B")
    assert visited["actor"]["subject"] == PERSON
    assert contact["data"] == {"n": 1}
    assert contact["parts"][0]["subject"] is None
    assert contact["parts"][0]["data"] is None
    assert [redaction["pointer"] for redaction in contact["redactions"]] == ["/parts/0"]


def test_nothing_that_the_service_says_has_the_erased_any_more(ward: Tenant) -> None:
    """I7: whatever past moment is asked for, and however."""
    moment = ward.client.post(f"{ward.path}/query", {}).json()["as_of"]
    erase(ward, purposes=["", "billing", "actor"])
    questions: list[dict[str, object]] = [{}, {"as_of": moment["recorded_at"]}, {"as_of": {"position": 0}}]

    said = [ward.client.post(f"{ward.path}/query", question).body for question in questions]
    said += [ward.client.post(f"{ward.path}/query", question, {"Accept": NDJSON}).body for question in questions]
    said += [ward.client.get(f"{ward.path}/events").body, ward.client.get(f"{ward.path}/erasures").body]
    said += [ward.client.post(f"{ward.path}/state", {"stream": STREAM}).body]
    said += [ward.server.log().encode()]

    for text in said:
        assert b"Canary" not in text
        assert VALUE.encode() not in text


def test_the_state_of_an_erased_stream_is_not_complete(ward: Tenant) -> None:
    """It says what is hidden, how often, and where."""
    erase(ward)

    state = ward.client.post(f"{ward.path}/state", {"stream": STREAM}).json()

    assert (state["state"], state["complete"]) == ({"ward": 1}, False)
    assert {(hidden["purpose"], hidden["events"]) for hidden in state["redactions"]} == {("", 1), ("billing", 1)}
    assert [hidden["first_position"] for hidden in state["redactions"]] == [0, 1]


def test_one_purpose_can_go_alone(ward: Tenant) -> None:
    """The others stay readable."""
    answer = erase(ward, purposes=["billing"])

    admitted, billed = events_of(ward, subject=PERSON)
    assert answer.json()["purposes"] == ["billing"]
    assert admitted["data"] == {"note": VALUE}
    assert (billed["data"], billed["redactions"][0]["purpose"]) == (None, "billing")


def test_erasing_twice_gives_the_first_erasure_again(ward: Tenant) -> None:
    """200, the same erasure and receipt; the salt was handed out once."""
    first, again = erase(ward), erase(ward)

    assert (first.status, again.status) == (201, 200)
    assert again.json() == {**first.json(), "name_salt": None}
    assert ward.size == 5


def test_an_unknown_name_is_not_found_unless_it_is_to_be_blocked(ward: Tenant) -> None:
    """``block_unknown``: late writers of that name are refused from then on."""
    unknown = ward.client.post(f"{ward.path}/erasures", {"subject": "patient:late"})
    blocked = ward.client.post(f"{ward.path}/erasures", {"subject": "patient:late", "block_unknown": True})
    late = ward.client.post(
        f"{ward.path}/events", {"stream": "patient-late", "type": "X", "subject": "patient:late", "data": {}}
    )

    assert (unknown.status, unknown.code) == (404, "not-found")
    assert blocked.status == 201
    assert (late.status, late.code) == (410, "subject-erased")


def test_erasures_can_be_found_again(ward: Tenant) -> None:
    """By id, by reference, by state, and page by page."""
    one = erase(ward, reference="case 1").json()
    two = ward.client.post(f"{ward.path}/erasures", {"subject": "patient:B", "reference": "case 2"}).json()

    def listed(parameters: str) -> list[str]:
        answer = ward.client.get(f"{ward.path}/erasures{parameters}")
        assert answer.status == 200, answer.body
        return [erasure["id"] for erasure in answer.json()["erasures"]]

    shown = ward.client.get(f"{ward.path}/erasures/{one['id']}").json()
    assert shown == {name: value for name, value in one.items() if name not in ("receipt", "name_salt")}
    assert listed("") == [one["id"], two["id"]]
    assert listed("?reference=case%202") == [two["id"]]
    assert listed("?state=erased") == [one["id"], two["id"]]
    assert listed("?state=requested") == listed("?state=shredding") == []
    assert listed("?limit=1") == [one["id"]]
    assert listed(f"?cursor={one['id']}") == [two["id"]]
    assert ward.client.get(f"{ward.path}/erasures?limit=1").json()["next"] == one["id"]


def test_a_subject_can_be_looked_up(ward: Tenant) -> None:
    """By name and by ref; its state and times change with the erasure."""
    before = ward.client.post(f"{ward.path}/subjects/lookup", {"subject": PERSON}).json()
    done = erase(ward).json()
    after = ward.client.get(f"{ward.path}/subjects/{before['subject_ref']}").json()

    assert (before["state"], before["names"], before["events"]) == ("active", 1, 4)
    assert (before["erased_at"], before["final_at"]) == (None, None)
    assert before["first_recorded_at"] <= before["last_recorded_at"]
    assert (after["state"], after["events"]) == ("erased", 4)
    assert after["erased_at"] is not None
    assert done["subject_ref"] == before["subject_ref"]
    assert ward.client.post(f"{ward.path}/subjects/lookup", {"subject": "nobody"}).status == 404
