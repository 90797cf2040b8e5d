"""Read models and projections over HTTP: what an auditor reads, and what an admin can do about it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from ledger.services.projecting.runner import step
from ledger.services.projecting.shipped import SHIPPED
from tests.e2e.conftest import Tenant
from tests.support.projecting import HOLDER
from tests.support.service import Place, Service, open_service

DOCUMENT_MEMBERS = [
    "key", "bucket", "position", "events", "document", "complete", "redactions", "unknown_versions",
]  # fmt: skip


@contextmanager
def opened(tenant: Tenant) -> Iterator[Service]:
    """The databases behind a server, opened in this process as a worker would."""
    home, settings = tenant.server.home, tenant.server.environment
    place = Place(
        home,
        settings.get("AUDIT_LEDGER_DATABASE_URL", f"sqlite:///{home}/ledger.db"),
        settings.get("AUDIT_LEDGER_KEYVAULT_URL", f"sqlite:///{home}/keyvault.db"),
    )
    service = open_service(place)
    try:
        yield service
    finally:
        service.close()


def project(tenant: Tenant) -> None:
    """Do what a worker does, until nothing is left to do."""
    with opened(tenant) as service:
        ledger_id = UUID(tenant.client.get(tenant.path).json()["id"])
        while step(service.deps, ledger_id, tuple(SHIPPED.values()), HOLDER):
            pass


def ask(tenant: Tenant, name: str, **question: Any) -> Any:
    """The answer of a read model."""
    answer = tenant.client.post(f"{tenant.path}/read-models/{name}", question)
    assert answer.status == 200, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def refused(tenant: Tenant, name: str, **question: Any) -> tuple[int, str]:
    """Status and code of a problem."""
    answer = tenant.client.post(f"{tenant.path}/read-models/{name}", question)
    return answer.status, answer.code


def visit(patient: str, **more: Any) -> dict[str, Any]:
    """An event about a patient."""
    about = {"stream": f"patient-{patient}", "type": "Visit", "subject": f"patient:{patient}", "data": {"crp": 12}}
    return {**about, "actor": "nurse:L", **more}


@pytest.fixture
def hospital(tenant: Tenant) -> Tenant:
    """A ledger of three patients whose read models are up to date."""
    return filled(tenant)


@pytest.fixture
def embedded_hospital(embedded_tenant: Tenant) -> Tenant:
    """The same on SQLite, for what does not depend on the database."""
    return filled(embedded_tenant)


def filled(tenant: Tenant) -> Tenant:
    """With three patients, and read models that are up to date."""
    events = [visit("A"), visit("B"), visit("A", type="Moved", data={"ward": "ICU"}), visit("C")]
    assert tenant.client.post(f"{tenant.path}/events", {"events": events}).status == 201
    project(tenant)
    return tenant


def test_state_of_a_stream_by_name_and_by_ref(hospital: Tenant) -> None:
    """One document, and the position that it is of; the ref that the answer gives can be asked for again."""
    answer = ask(hospital, "current_state", stream="patient-A")
    assert list(answer) == ["name", "version", "generation", "position", "next", "documents"]
    assert (answer["name"], answer["version"], answer["generation"]) == ("current_state", 1, 1)
    assert (answer["position"], answer["next"]) == (3, None)
    (document,) = answer["documents"]
    assert list(document) == DOCUMENT_MEMBERS
    assert document["document"] == {"crp": 12, "ward": "ICU"}
    assert (document["bucket"], document["position"], document["events"]) == ("patient", 2, 2)
    assert (document["complete"], document["redactions"], document["unknown_versions"]) == (True, [], 0)
    assert ask(hospital, "current_state", stream_ref=document["key"]) == answer


def test_states_of_a_category_in_pages(hospital: Tenant) -> None:
    """The cursor alone goes on, or with the same question; with another it is refused."""
    first = ask(hospital, "current_state", category="patient", limit=2)
    second = ask(hospital, "current_state", cursor=first["next"], limit=2)
    assert ask(hospital, "current_state", category="patient", cursor=first["next"], limit=2) == second
    assert second["next"] is None
    keys = [document["key"] for document in first["documents"] + second["documents"]]
    assert keys == sorted(keys)
    assert len(set(keys)) == 3
    assert refused(hospital, "current_state", category="ward", cursor=first["next"]) == (422, "invalid")
    assert refused(hospital, "activity", cursor=first["next"]) == (422, "invalid")


def test_activity_of_a_person_and_counts_of_a_day(hospital: Tenant) -> None:
    """By name or ref of the person; by day or month."""
    (activity,) = ask(hospital, "activity", subject="nurse:L")["documents"]
    assert activity["document"]["types"] == {"Visit": 3, "Moved": 1}
    assert activity["key"].startswith("sub_")
    assert ask(hospital, "activity", subject_ref=activity["key"])["documents"] == [activity]
    day = activity["document"]["first_recorded_at"][:10]
    (counts,) = ask(hospital, "daily_counts", month=day[:7])["documents"]
    assert (counts["key"], counts["bucket"], counts["document"]) == (day, day[:7], {"types": {"Visit": 3, "Moved": 1}})
    assert ask(hospital, "daily_counts", day=day)["documents"] == [counts]


def test_erased_person_is_gone_before_and_after_the_worker_comes_by(hospital: Tenant) -> None:
    """I7: every question begun after the acknowledgement answers without the person, and says so."""
    (document,) = ask(hospital, "current_state", stream="patient-A")["documents"]
    erasure = hospital.client.post(f"{hospital.path}/erasures", {"subject": "patient:A"}).json()
    for _ in range(2):
        (erased,) = ask(hospital, "current_state", stream_ref=document["key"])["documents"]
        assert (erased["document"], erased["complete"]) == ({}, False)
        (redaction,) = erased["redactions"]
        assert (redaction["pointer"], redaction["reason"], redaction["events"]) == ("/data", "erased", 2)
        assert redaction["erasure_id"] == erasure["id"]
        (activity,) = ask(hospital, "activity", subject_ref=erasure["subject_ref"])["documents"]
        assert (activity["document"]["types"], activity["complete"]) == ({"Visit": 1, "Moved": 1}, False)
        assert len(ask(hospital, "current_state", category="patient")["documents"]) == 3
        project(hospital)


def test_reader_waits_for_its_own_write(hospital: Tenant) -> None:
    """With ``min_position`` the answer holds the event, or it is a 503 that says when to come back."""
    place = hospital.client.post(f"{hospital.path}/events", visit("A", data={"crp": 7})).json()["events"][0]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, hospital, "current_state", stream="patient-A", min_position=place["position"])
        project(hospital)
        (document,) = waiting.result()["documents"]
    assert document["document"]["crp"] == 7
    assert refused(hospital, "current_state", stream="patient-A", min_position=10**6) == (422, "invalid")


def test_read_model_that_nobody_runs_is_not_ready(tenant: Tenant) -> None:
    """Without a worker there is nothing to read, and the answer says to come back."""
    tenant.client.post(f"{tenant.path}/events", visit("A"))
    answer = tenant.client.post(f"{tenant.path}/read-models/current_state", {"stream": "patient-A"})
    assert (answer.status, answer.code) == (503, "not-ready")
    assert int(answer.headers["retry-after"]) >= 1
    assert tenant.client.get(f"{tenant.path}/projections").json() == {"projections": []}


@pytest.mark.parametrize(
    ("name", "question", "status"),
    [
        ("current_state", {"stream": "patient-A", "category": "patient"}, 422),
        ("current_state", {"stream": "patient-A", "stream_ref": "str_" + "0" * 32}, 422),
        ("current_state", {"subject": "patient:A"}, 422),
        ("activity", {"category": "patient"}, 422),
        ("daily_counts", {"day": "2026-02-30"}, 422),
        ("daily_counts", {"day": "2026-2-3"}, 422),
        ("daily_counts", {"month": "2026-13"}, 422),
        ("daily_counts", {"day": "1999-01-01"}, 404),
        ("current_state", {"stream": "patient-X"}, 404),
        ("activity", {"subject": "nobody"}, 404),
        ("activity", {"subject_ref": "sub_" + "0" * 32}, 404),
        ("current_state", {"stream_ref": "str_" + "0" * 32}, 404),
        ("current_state", {"cursor": "made up"}, 422),
        ("current_state", {"limit": 0}, 422),
        ("current_state", {"unknown": 1}, 422),
        ("no_such_model", {}, 404),
    ],
)
def test_question_that_cannot_be_answered(
    embedded_hospital: Tenant, name: str, question: dict[str, Any], status: int
) -> None:
    """A clear problem, that repeats no name of the request."""
    answer = embedded_hospital.client.post(f"{embedded_hospital.path}/read-models/{name}", question)
    assert answer.status == status
    for value in question.values():
        assert not isinstance(value, str) or value not in answer.body.decode() or value == "category"


def test_projections_show_how_far_they_are_and_are_rebuilt(hospital: Tenant) -> None:
    """An admin sees lag twice, and has a read model built anew while readers go on."""
    projections = hospital.client.get(f"{hospital.path}/projections").json()["projections"]
    assert [projection["name"] for projection in projections] == ["activity", "current_state", "daily_counts"]
    assert list(projections[0]) == [
        "name", "version", "generation", "state", "current", "position", "behind", "age_seconds", "held", "error",
    ]  # fmt: skip
    assert {(one["state"], one["behind"], one["age_seconds"], one["held"]) for one in projections} == {
        ("running", 0, None, True)
    }
    before = ask(hospital, "current_state", category="patient")
    hospital.client.post(f"{hospital.path}/events", visit("B"))
    rebuilding = hospital.client.post(f"{hospital.path}/projections/current_state/rebuild")
    assert rebuilding.status == 202
    old, new = rebuilding.json()["projections"]
    assert (old["generation"], old["state"], old["current"], old["behind"]) == (1, "running", True, 1)
    assert old["age_seconds"] >= 0
    assert (new["generation"], new["state"], new["current"], new["position"]) == (2, "building", False, -1)
    assert ask(hospital, "current_state", category="patient") == before
    project(hospital)
    after = ask(hospital, "current_state", category="patient")
    assert (after["generation"], after["position"]) == (2, 4)
    restarted = hospital.client.post(f"{hospital.path}/projections/current_state/restart")
    assert (restarted.status, [one["state"] for one in restarted.json()["projections"]]) == (200, ["running"])
    for action in ("rebuild", "restart"):
        assert hospital.client.post(f"{hospital.path}/projections/unknown/{action}").code == "not-found"
