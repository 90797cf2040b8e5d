"""Server-sent events over HTTP, as a client meets them."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from api.routes.following import RECHECK_SECONDS
from tests.e2e.conftest import Tenant, make_tenant
from tests.support.server import CLIENT_SECONDS, Client, ServedLedger

EVENT_STREAM = "text/event-stream"
SOON = 5.0
"""Seconds within which a busy machine delivers what takes none."""


@dataclass(frozen=True, slots=True)
class Message:
    """One block of a stream: its fields by name, comments under the empty name."""

    fields: Mapping[str, str]

    @property
    def id(self) -> int:
        """The position."""
        return int(self.fields["id"])

    @property
    def event(self) -> dict[str, Any]:
        """The data, as JSON."""
        found: dict[str, Any] = json.loads(self.fields["data"])
        return found


class Stream:
    """A client that follows. ``status`` and ``headers`` are there as soon as it is open."""

    def __init__(self, client: Client, path: str, headers: Mapping[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=CLIENT_SECONDS)
        own = {"Authorization": f"Bearer {client.key}", "Accept": EVENT_STREAM}
        self._connection.request("GET", path, headers={**own, **(headers or {})})
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = self._response.headers

    def close(self) -> None:
        """Go away without a word."""
        self._response.close()
        self._connection.close()

    def blocks(self) -> Iterator[Message]:
        """What comes, until the stream ends."""
        fields: dict[str, str] = {}
        while line := self._response.readline():
            text = line.decode().rstrip("\n")
            if text:
                name, _, value = text.partition(":")
                fields[name] = value.removeprefix(" ")
            elif fields:
                yield Message(fields)
                fields = {}

    def messages(self) -> Iterator[Message]:
        """The blocks that have data."""
        return (block for block in self.blocks() if "data" in block.fields)

    def take(self, count: int) -> list[Message]:
        """The next messages."""
        messages = self.messages()
        return [next(messages) for _ in range(count)]


@contextlib.contextmanager
def following(tenant: Tenant, parameters: str = "", headers: Mapping[str, str] | None = None) -> Iterator[Stream]:
    """Somebody who follows a ledger."""
    stream = Stream(tenant.client, f"{tenant.path}/events{parameters}", headers)
    try:
        yield stream
    finally:
        stream.close()


def note(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    """Append one event; gives its place."""
    event = {"stream": "ward-ER", "type": "Noted", "nonpersonal": {"text": "zwei\nZeilen \u2028 und é"}, **fields}
    answer = tenant.client.post(f"{tenant.path}/events", event)
    assert answer.status == 201, answer.body
    appended: dict[str, Any] = answer.json()["events"][0]
    return appended


def test_a_stream_has_what_was_there_and_what_comes(tenant: Tenant) -> None:
    """One message an event, with its position as id and the event as the feed shows it."""
    first = [note(tenant), note(tenant, type="Closed")]
    with following(tenant) as stream:
        before = stream.take(2)
        began = time.monotonic()
        last = note(tenant)
        live = stream.take(1)
        assert time.monotonic() - began < SOON
        shown = tenant.client.get(f"{tenant.path}/events").json()["events"]

    assert (stream.status, stream.headers["Content-Type"]) == (200, f"{EVENT_STREAM}; charset=utf-8")
    assert stream.headers["Cache-Control"] == "no-store"
    assert [message.event for message in before + live] == shown
    assert [message.id for message in before + live] == [0, 1, 2]
    assert [message.event["id"] for message in before + live] == [place["id"] for place in (*first, last)]
    assert {tuple(message.fields) for message in before + live} == {("id", "data")}


def test_a_client_that_comes_back_goes_on_behind_the_last_message(tenant: Tenant) -> None:
    """`Last-Event-ID` is what it sends by itself, to the address that it was given first."""
    for _ in range(4):
        note(tenant)
    with following(tenant, "?after=0") as stream:
        assert [message.id for message in stream.take(3)] == [1, 2, 3]
    with following(tenant, "?after=0", {"Last-Event-ID": "2"}) as stream:
        assert [message.id for message in stream.take(1)] == [3]


def test_a_stream_can_be_filtered(embedded_tenant: Tenant) -> None:
    """As the feed can."""
    tenant = embedded_tenant
    note(tenant)
    kept = note(tenant, stream="bed-1", type="Made")
    note(tenant, stream="bed-1")
    for parameters in ("?category=bed&type=Made,Moved", f"?stream_ref={kept['stream_ref']}&type=Made"):
        with following(tenant, parameters) as stream:
            assert [message.id for message in stream.take(1)] == [1]


def test_who_is_erased_is_redacted_in_what_comes_after(tenant: Tenant) -> None:
    """And whoever follows learns of it by the event of the erasure."""
    person = {"subject": "patient:A", "data": {"age": 85}}
    note(tenant, stream="patient-A", **person)
    with following(tenant) as stream:
        assert stream.take(1)[0].event["data"] == {"age": 85}
        erasure = tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:A"}).json()
        told = stream.take(1)[0].event
    with following(tenant) as stream:
        again = stream.take(1)[0].event

    assert (told["type"], told["category"]) == ("SubjectErased", "ledger")
    assert told["nonpersonal"]["subject_ref"] == erasure["subject_ref"]
    assert (again["subject"], again["data"]) == (None, None)
    assert again["redactions"][0]["reason"] == "erased"


@pytest.mark.parametrize(
    ("parameters", "headers", "pointer"),
    [
        ("?as_of=0", {}, "/as_of"),
        ("?cursor=abc", {}, "/cursor"),
        ("", {"Last-Event-ID": "x"}, ""),
        ("", {"Last-Event-ID": "-1"}, ""),
        ("", {"Last-Event-ID": "9" * 30}, ""),
        ("", {"Last-Event-ID": str(2**63)}, ""),
        ("?after=x", {}, "/after"),
        ("?after=1", {}, "/after"),
        ("", {"Last-Event-ID": "1"}, ""),
        ("?after=0", {"Last-Event-ID": "7"}, ""),
    ],
)
def test_what_a_stream_cannot_do_is_said(
    embedded_tenant: Tenant, parameters: str, headers: dict[str, str], pointer: str
) -> None:
    """As a problem, before anything else is sent."""
    note(embedded_tenant)
    answer = embedded_tenant.client.get(
        f"{embedded_tenant.path}/events{parameters}", {"Accept": EVENT_STREAM, **headers}
    )

    assert (answer.status, answer.code) == (422, "invalid")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_feed_does_not_begin_behind_what_is_not_there_yet(embedded_tenant: Tenant) -> None:
    """Its page would be empty, for ever or until events have been left out; with or without waiting."""
    tenant = embedded_tenant
    beginning = tenant.client.get(f"{tenant.path}/events?after=-1")
    note(tenant)
    refused = [tenant.client.get(f"{tenant.path}/events?after={after}") for after in ("1", "50", "1&wait=5")]
    newest = tenant.client.get(f"{tenant.path}/events?after=0")

    assert [(answer.status, answer.json()["events"]) for answer in (beginning, newest)] == [(200, [])] * 2
    assert [(answer.status, answer.json()["errors"][0]["pointer"]) for answer in refused] == [(422, "/after")] * 3


def test_a_stream_ends_when_its_key_is_revoked_or_expires(embedded_tenant: Tenant) -> None:
    """Within seconds, though nothing was recorded."""
    tenant = embedded_tenant
    admin = tenant.client
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    keys = [
        admin.post("/v1/api-keys", {"name": "x", "principal": "y", "roles": ["auditor"], "expires_at": expires_at})
        for expires_at in (None, soon)
    ]
    streams = [Stream(Client(tenant.server.port, key.json()["secret"]), f"{tenant.path}/events") for key in keys]
    assert [stream.status for stream in streams] == [200, 200]
    assert admin.delete(f"/v1/api-keys/{keys[0].json()['id']}").status == 204
    began = time.monotonic()
    for stream in streams:
        assert list(stream.messages()) == []
        stream.close()

    assert time.monotonic() - began < 2 * RECHECK_SECONDS + SOON


def test_as_many_follow_as_there_are_turns_and_who_goes_away_leaves_one(embedded_tenant: Tenant) -> None:
    """Who comes too late is told when to come again, and everybody else is served meanwhile."""
    tenant = embedded_tenant
    path = f"{tenant.path}/events"
    streams = [Stream(tenant.client, path) for _ in range(tenant.server_threads // 2)]
    try:
        late = tenant.client.get(path, {"Accept": EVENT_STREAM})
        note(tenant)
        assert [stream.take(1)[0].id for stream in streams] == [0] * len(streams)
    finally:
        for stream in streams:
            stream.close()

    assert (late.status, late.code, late.headers["retry-after"]) == (429, "slow-down", "1")
    deadline = time.monotonic() + SOON
    again: list[Stream] = []
    while len(again) < len(streams):
        # That nobody is there any more is noticed within seconds, though nothing is recorded.
        assert time.monotonic() < deadline
        stream = Stream(tenant.client, path)
        if stream.status == 200:
            again.append(stream)
        else:
            stream.close()
            time.sleep(0.1)
    for stream in again:
        stream.close()


def test_a_stop_ends_streams(own_server: ServedLedger) -> None:
    """They do not keep the service from stopping."""
    tenant = make_tenant(own_server)
    note(tenant)
    with following(tenant) as stream:
        assert stream.take(1)[0].id == 0
        began = time.monotonic()
        assert own_server.stop() == 0
        assert list(stream.messages()) == []

    assert time.monotonic() - began < 10


@pytest.fixture
def own_server() -> Iterator[ServedLedger]:
    """A server that the test may stop."""
    with ServedLedger() as server:
        yield server
