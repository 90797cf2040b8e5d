"""Restrict, lift and reinstate, as the privacy team asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Tenant

PERSON = "patient:Anna-Canary-7731"
STREAM = "patient-Anna-Canary-7731"
VALUE = "canary-value-5520"
VISIT = {"stream": STREAM, "type": "Visit", "subject": PERSON, "data": {"note": VALUE}}


def ask(tenant: Tenant, what: str, **body: object) -> Any:
    """The answer to one of the three requests."""
    return tenant.client.post(f"{tenant.path}/subjects/{what}", {"subject": PERSON, **body})


def append(tenant: Tenant, **fields: object) -> Any:
    """The answer to an append."""
    return tenant.client.post(f"{tenant.path}/events", {**VISIT, **fields})


def events_of(tenant: Tenant, **question: object) -> list[dict[str, Any]]:
    """What a query finds."""
    found: list[dict[str, Any]] = tenant.client.post(f"{tenant.path}/query", question).json()["events"]
    return found


def lookup(tenant: Tenant) -> dict[str, Any]:
    """What a lookup by name says."""
    found: dict[str, Any] = tenant.client.post(f"{tenant.path}/subjects/lookup", {"subject": PERSON}).json()
    return found


def test_a_restriction_hides_a_person_until_it_is_lifted(tenant: Tenant) -> None:
    """Appends go on, by ref too; both requests take a ref, and can be repeated."""
    append(tenant)
    ref = lookup(tenant)["subject_ref"]

    restricted = ask(tenant, "restrict", reason="case 7")
    assert (restricted.status, restricted.json()) == (200, lookup(tenant))
    assert restricted.json()["state"] == "restricted"
    assert append(tenant).status == 201
    assert append(tenant, subject=None, subject_ref=ref).status == 201
    for event in events_of(tenant, subject=PERSON):
        assert (event["subject"], event["data"], event["stream"]) == (None, None, None)
        assert [redaction["reason"] for redaction in event["redactions"]] == ["restricted"]

    for _ in range(2):
        lifted = ask(tenant, "unrestrict", subject=None, subject_ref=ref)
        assert (lifted.status, lifted.json()["state"]) == (200, "active")
    assert [event["data"] for event in events_of(tenant, subject=PERSON)] == [{"note": VALUE}] * 3
    assert [(event["type"], event["nonpersonal"]) for event in events_of(tenant, category="ledger")] == [
        ("SubjectRestricted", {"subject_ref": ref, "reason": "case 7"}),
        ("SubjectUnrestricted", {"subject_ref": ref, "reason": None}),
    ]


def test_a_person_who_was_erased_comes_back_and_the_past_does_not(tenant: Tenant) -> None:
    """Erase, refused, reinstate, append: a new ref; the old data is redacted at every past moment."""
    append(tenant)
    old = lookup(tenant)["subject_ref"]
    old_stream = events_of(tenant)[0]["stream_ref"]
    erasure = tenant.client.post(f"{tenant.path}/erasures", {"subject": PERSON}).json()
    assert append(tenant).code == "subject-erased"

    answer = ask(tenant, "reinstate", reason="contract 12")

    assert answer.status == 201
    new = answer.json()
    assert (new["state"], new["events"], new["erased_at"], new["names"]) == ("active", 0, None, 1)
    assert new == lookup(tenant)
    assert new["subject_ref"] != old
    assert append(tenant, data={"note": "new"}, expected_version=0).status == 201
    for position in range(tenant.size):
        first = events_of(tenant, as_of={"position": position})[0]
        assert (first["subject"], first["data"], first["stream"], first["subject_ref"]) == (None, None, None, old)
        assert first["redactions"][0]["reason"] == "erased"
    (shown,) = events_of(tenant, subject=PERSON)
    assert (shown["data"], shown["subject_ref"], shown["stream_version"]) == ({"note": "new"}, new["subject_ref"], 1)
    assert shown["stream_ref"] != old_stream
    assert events_of(tenant, stream=STREAM) == [shown]
    found = lookup(tenant)
    assert (found["events"], found["first_recorded_at"]) == (1, shown["recorded_at"])
    past = tenant.client.get(f"{tenant.path}/subjects/{old}").json()
    assert (past["state"], past["names"], past["events"]) == ("erased", 0, 1)
    assert tenant.client.get(f"{tenant.path}/erasures/{erasure['id']}/receipt").json() == erasure["receipt"]
    (told,) = events_of(tenant, category="ledger", type=["SubjectReinstated"])
    assert told["nonpersonal"] == {"subject_ref": new["subject_ref"], "reason": "contract 12"}
    assert old not in str(told)


def test_what_is_not_to_be_reinstated_or_restricted_says_why(tenant: Tenant) -> None:
    """404, 409 and 422, with nothing of the request in them."""
    for what in ("restrict", "unrestrict", "reinstate"):
        assert (ask(tenant, what).status, ask(tenant, what).code) == (404, "not-found")
    append(tenant)
    ref = lookup(tenant)["subject_ref"]
    active = ask(tenant, "reinstate")
    assert (active.status, active.code) == (409, "wrong-state")
    assert "nothing to reinstate" in active.json()["detail"]
    by_ref = tenant.client.post(f"{tenant.path}/subjects/reinstate", {"subject_ref": ref})
    assert (by_ref.status, by_ref.code) == (422, "invalid")
    tenant.client.post(f"{tenant.path}/erasures", {"subject": PERSON})
    for what in ("restrict", "unrestrict"):
        erased = ask(tenant, what)
        assert (erased.status, erased.code) == (409, "wrong-state")
        assert b"Canary" not in erased.body
    assert tenant.size == 2


@pytest.mark.parametrize("reason", ["Anna says so!", "x" * 129, "", 7, ["case 1"]])
@pytest.mark.parametrize("what", ["restrict", "unrestrict", "reinstate"])
def test_a_reason_is_a_case_number(embedded_tenant: Tenant, what: str, reason: object) -> None:
    """It stands in clear for good, so it is held to the letters of a reference; and it is not repeated."""
    answer = ask(embedded_tenant, what, reason=reason)
    assert (answer.status, answer.code) == (422, "invalid")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/reason"]
    assert b"Anna" not in answer.body
