"""Durable subscriptions over HTTP, as a client meets them."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.conftest import Tenant
from tests.support.server import Answer

A, B = str(uuid4()), str(uuid4())


class Mailer:
    """A subscription and its consumers."""

    def __init__(self, tenant: Tenant, **definition: Any) -> None:
        self.tenant = tenant
        self.path = f"{tenant.path}/subscriptions/mailer"
        self.created = tenant.client.post(f"{tenant.path}/subscriptions", {"name": "mailer", **definition})

    def fetch(self, consumer: str = A, **options: Any) -> dict[str, Any]:
        """The next delivery."""
        answer = self.tenant.client.post(f"{self.path}/fetch", {"consumer": consumer, **options})
        assert answer.status == 200, answer.body
        delivery: dict[str, Any] = answer.json()
        return delivery

    def say(self, what: str, lease: dict[str, Any], consumer: str = A, **fields: Any) -> Answer:
        """Acknowledge or fail something of a lease."""
        said = {"consumer": consumer, **{name: lease[name] for name in ("partition", "position", "replay")}, **fields}
        return self.tenant.client.post(f"{self.path}/{what}", said)

    def status(self) -> dict[str, Any]:
        """How far it has come."""
        shown: dict[str, Any] = self.tenant.client.get(self.path).json()
        return shown


def append(tenant: Tenant, count: int = 1, **fields: Any) -> None:
    """Append events of one stream."""
    event = {"stream": "patient-A", "type": "Visit", "subject": "patient:A", "data": {"crp": 12}, **fields}
    assert tenant.client.post(f"{tenant.path}/events", {"events": [event] * count}).status == 201


def positions(delivery: dict[str, Any]) -> list[int]:
    """Of the events of a delivery."""
    return [event["position"] for event in delivery["events"]]


def test_events_are_fetched_and_acknowledged(tenant: Tenant) -> None:
    """Each once, as the feed shows them, when nothing goes wrong."""
    append(tenant, 3)
    mailer = Mailer(tenant, category="patient", type=["Visit"])
    assert mailer.created.status == 201
    assert mailer.created.json()["progress"][0]["behind"] == 3
    delivery = mailer.fetch(limit=2)

    assert delivery["events"] == tenant.client.get(f"{tenant.path}/events?limit=2").json()["events"]
    assert mailer.fetch(B) == {"lease": None, "events": []}
    assert mailer.say("acknowledge", delivery["lease"]).status == 204
    rest = mailer.fetch(B)
    assert positions(rest) == [2]
    assert mailer.say("acknowledge", rest["lease"], B).status == 204
    assert mailer.fetch() == {"lease": None, "events": []}
    assert mailer.status()["behind"] == 0
    assert [shown["name"] for shown in tenant.client.get(f"{tenant.path}/subscriptions").json()["subscriptions"]] == [
        "mailer"
    ]


def test_who_waits_gets_what_comes(tenant: Tenant) -> None:
    """A long poll, as of the feed."""
    mailer = Mailer(tenant)
    deliveries: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: deliveries.append(mailer.fetch(wait=30)))
    began = time.monotonic()
    waiting.start()
    append(tenant)
    waiting.join()

    assert positions(deliveries[0]) == [0]
    assert time.monotonic() - began < 10
    assert mailer.fetch(B, wait=1) == {"lease": None, "events": []}


def test_a_lease_can_be_kept_and_is_lost_in_time(tenant: Tenant) -> None:
    """Who was overtaken is told, and has changed nothing."""
    append(tenant, 3)
    mailer = Mailer(tenant, partitions=1)
    lease = mailer.fetch(A, lease_seconds=1)["lease"]
    assert mailer.say("acknowledge", lease, position=0, lease_seconds=1).status == 204
    time.sleep(1.1)
    assert positions(mailer.fetch(B)) == [1, 2]
    late = [mailer.say("acknowledge", lease), mailer.say("fail", lease, error="Timeout")]

    assert [(answer.status, answer.code) for answer in late] == [(409, "lease-lost")] * 2
    assert mailer.status()["progress"][0]["position"] == 0
    assert mailer.status()["progress"][0]["consumer"] == B


def test_what_fails_is_retried_then_parked_then_replayed(tenant: Tenant) -> None:
    """And what is shown of it is where it stands and the class of its failure."""
    append(tenant, 2)
    mailer = Mailer(tenant, max_tries=2)
    lease = mailer.fetch()["lease"]
    first = mailer.say("fail", lease, position=0, error="SmtpTimeout").json()
    assert (first["outcome"], first["tries"]) == ("retry", 1)
    assert mailer.fetch() == {"lease": None, "events": []}
    again = mailer.fetch(wait=10)
    assert positions(again) == [0, 1]
    second = mailer.say("fail", again["lease"], position=0, error="SmtpTimeout").json()
    assert second == {"outcome": "parked", "tries": 2, "retry_at": None}
    assert mailer.fetch() == {"lease": None, "events": []}
    page = tenant.client.get(f"{mailer.path}/parked?limit=1").json()
    rest = tenant.client.get(f"{mailer.path}/parked?limit=1&cursor={page['next']}").json()
    assert [(message["position"], message["error"]) for message in page["parked"] + rest["parked"]] == [
        (0, "SmtpTimeout"),
        (1, None),
    ]
    assert rest["next"] is None

    assert tenant.client.post(f"{mailer.path}/replay", {"positions": [1]}).json() == {"replayed": 2}
    replayed = mailer.fetch()
    assert (positions(replayed), replayed["lease"]["replay"]) == ([0, 1], True)
    assert mailer.say("acknowledge", replayed["lease"]).status == 204
    assert mailer.status()["parked"] == 0


def test_a_parked_message_of_an_erased_person_is_a_redaction(tenant: Tenant) -> None:
    """Whatever it said when it was parked."""
    append(tenant)
    mailer = Mailer(tenant, max_tries=1)
    mailer.say("fail", mailer.fetch()["lease"], position=0, error="Timeout")
    assert tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:A"}).status == 201
    assert tenant.client.post(f"{mailer.path}/replay", {}).json() == {"replayed": 1}
    (event,) = mailer.fetch()["events"]

    assert (event["subject"], event["stream"], event["data"]) == (None, None, None)
    assert [redaction["reason"] for redaction in event["redactions"]] == ["erased"]


def test_a_stopped_subscription_is_seen_and_restarted(tenant: Tenant) -> None:
    """It goes on with the event that stopped it."""
    append(tenant, 2)
    mailer = Mailer(tenant, max_tries=1, on_failure="stop", partitions=1)
    mailer.say("fail", mailer.fetch()["lease"], position=0, error="Timeout")
    (stopped,) = mailer.status()["progress"]

    assert (stopped["state"], stopped["error"], stopped["behind"]) == ("stopped", "Timeout", 2)
    assert stopped["age_seconds"] > 0
    assert mailer.fetch() == {"lease": None, "events": []}
    assert tenant.client.post(f"{mailer.path}/restart").json() == {"restarted": 1}
    assert positions(mailer.fetch()) == [0, 1]


def test_a_subscription_can_be_removed_and_made_again(tenant: Tenant) -> None:
    """A name is taken as long as it is there."""
    append(tenant)
    mailer = Mailer(tenant)
    taken = Mailer(tenant).created
    assert (taken.status, taken.code) == (409, "already-exists")
    assert tenant.client.delete(mailer.path).status == 204
    assert tenant.client.delete(mailer.path).status == 404
    again = Mailer(tenant, after="end")

    assert again.created.status == 201
    assert again.created.json()["after"] == 0
    assert again.fetch() == {"lease": None, "events": []}


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("subscriptions", {"name": "Mailer"}, {"/name"}),
        ("subscriptions", {"name": "a", "category": "no-word"}, {"/category"}),
        ("subscriptions", {"name": "a", "type": ["no word"]}, {"/type/0"}),
        ("subscriptions", {"name": "a", "after": 1}, {"/after"}),
        ("subscriptions", {"name": "a", "after": -2}, {"/after"}),
        ("subscriptions", {"name": "a", "after": True}, {"/after"}),
        ("subscriptions", {"name": "a", "after": "start"}, {"/after"}),
        ("subscriptions", {"name": "a", "after": None}, {"/after"}),
        ("subscriptions", {"name": "a", "after": 2**70}, {"/after"}),
        ("subscriptions", {"name": "a", "partitions": 65, "max_tries": 0}, {"/partitions", "/max_tries"}),
        ("subscriptions", {"name": "a", "on_failure": "skip"}, {"/on_failure"}),
        ("subscriptions/mailer/fetch", {"consumer": "me"}, {"/consumer"}),
        ("subscriptions/mailer/fetch", {"consumer": A, "wait": 61, "lease_seconds": 0}, {"/wait", "/lease_seconds"}),
        ("subscriptions/mailer/acknowledge", {"consumer": A}, {"/partition", "/position"}),
        ("subscriptions/mailer/acknowledge", {"consumer": A, "partition": 9, "position": 0}, {"/partition"}),
        (
            "subscriptions/mailer/fail",
            {"consumer": A, "partition": 0, "position": 0, "error": "could not reach jane@example.org"},
            {"/error"},
        ),
        ("subscriptions/mailer/replay", {"positions": []}, {"/positions"}),
        ("subscriptions/mailer/replay", {"positions": ["1"]}, {"/positions/0"}),
    ],
)
def test_what_is_wrong_is_said_and_not_repeated(
    embedded_tenant: Tenant, path: str, body: dict[str, Any], pointers: set[str]
) -> None:
    """Every field that is wrong, by its pointer."""
    append(embedded_tenant)
    Mailer(embedded_tenant)
    answer = embedded_tenant.client.post(f"{embedded_tenant.path}/{path}", body)

    assert (answer.status, answer.code) == (422, "invalid")
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers
    assert b"jane" not in answer.body


@pytest.mark.parametrize("parameters", ["cursor=x", "cursor=-1", "cursor=" + "9" * 20, "limit=0", "limit=x"])
def test_pages_of_parked_messages_are_checked(embedded_tenant: Tenant, parameters: str) -> None:
    """As everywhere."""
    mailer = Mailer(embedded_tenant)

    assert embedded_tenant.client.get(f"{mailer.path}/parked?{parameters}").status == 422
