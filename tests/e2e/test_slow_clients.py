"""Clients that send nothing, read nothing, or only wait: they cost themselves something, and nobody else."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from api.serving import give_up_dead_clients
from api.turns import MOST_READING, SERVER_THREADS
from tests.e2e.conftest import Tenant
from tests.support.server import NDJSON, Answer

AT_ONCE = 5.0
"""Seconds within which a request is answered that has to wait for nobody."""

EVENT = {"stream": "ward-1", "type": "Noted", "nonpersonal": {"n": 1}}


def connect(
    tenant: Tenant, path: str, key: str | None, *headers: str, body: bytes = b"", method: str = "POST"
) -> socket.socket:
    """Send a request and read nothing."""
    connection = socket.socket()
    # What is sent to it and not read fills up at once.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", tenant.server.port))
    authorization = [] if key is None else [f"Authorization: Bearer {key}"]
    head = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *authorization, *headers]
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    return connection


@contextlib.contextmanager
def many(
    count: int, tenant: Tenant, path: str, key: str | None, *headers: str, body: bytes = b""
) -> Iterator[list[socket.socket]]:
    """As many such connections."""
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(tenant, path, key, *headers, body=body)) for _ in range(count)]
        time.sleep(0.5)
        yield connections


def assert_served(tenant: Tenant, key: str | None = None) -> None:
    """Somebody else can append and ask, and the process shows that it lives and is ready."""
    client = tenant.client.with_key(key or tenant.server.make_key("writer", "auditor"))
    for _ in range(3):
        began = time.monotonic()
        assert client.post(f"{tenant.path}/events", EVENT).status == 201
        assert client.post(f"{tenant.path}/query", {"limit": 1}).status == 200
        assert [client.get(path).status for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]
        assert time.monotonic() - began < AT_ONCE


def test_strangers_who_send_no_body_hold_up_nobody(tenant: Tenant) -> None:
    """However many: each is refused at once, and not waited for."""
    key = tenant.server.make_key("writer", "auditor")
    with many(SERVER_THREADS + 20, tenant, f"{tenant.path}/events", None, "Content-Length: 100") as connections:
        assert_served(tenant, key)
        for connection in (connections[0], connections[-1]):
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_key_whose_bodies_do_not_come_holds_up_no_other(tenant: Tenant) -> None:
    """It is told to slow down; other keys are served, and so is it when it has gone."""
    greedy, other = tenant.server.make_key("writer"), tenant.server.make_key("writer", "auditor")
    # The processes share the connections out among themselves as it happens.
    count = MOST_READING * 3 // 4 * (1 if "AUDIT_LEDGER_DATABASE_URL" not in tenant.server.environment else 2)
    with many(count, tenant, f"{tenant.path}/events", greedy, "Content-Length: 100") as connections:
        assert_served(tenant, other)
        answered, _, _ = select.select(connections, [], [], AT_ONCE)
        assert 0 < len(answered) <= count - MOST_READING // 2
        refused = answered[0].recv(2000)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1" in refused.lower()

    deadline = time.monotonic() + 10
    while tenant.client.with_key(greedy).post(f"{tenant.path}/events", EVENT).status != 201:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_readers_who_do_not_read_hold_up_nobody(tenant: Tenant) -> None:
    """Neither appends nor the exports of others; and who reads nothing holds little in memory."""
    greedy, other = tenant.server.make_key("auditor"), tenant.server.make_key("writer", "auditor")
    for _ in range(3):
        text = {"text": "x" * 150_000}
        tenant.client.post(f"{tenant.path}/events", {"events": [{**EVENT, "nonpersonal": text} for _ in range(20)]})
    asking = (f"Accept: {NDJSON}", "Content-Length: 2")
    with many(30, tenant, f"{tenant.path}/query", greedy, *asking, body=b"{}"):
        assert_served(tenant, other)
        exported = tenant.client.with_key(other).post(f"{tenant.path}/query", {"category": "ward"}, {"Accept": NDJSON})
        assert exported.lines()[-1]["end"]


def test_uploads_that_stop_in_the_middle_hold_up_nobody(tenant: Tenant) -> None:
    """Neither lines nor large batches of others."""
    greedy, other = tenant.server.make_key("writer"), tenant.server.make_key("writer", "auditor")
    lines = json.dumps(EVENT).encode() + b"\n"
    large = b" " * 2**21
    with (
        many(20, tenant, f"{tenant.path}/events", greedy, f"Content-Type: {NDJSON}", "Content-Length: 99", body=lines),
        many(20, tenant, f"{tenant.path}/events", greedy, f"Content-Length: {2**22}", body=large),
    ):
        assert_served(tenant, other)
        client = tenant.client.with_key(other)
        assert client.post_lines(f"{tenant.path}/events", [EVENT] * 3).lines()[-1]["recorded"] == 3


def test_a_large_body_that_is_slow_goes_through(embedded_tenant: Tenant) -> None:
    """Lines over a slow connection, for longer than anybody is made to wait for a turn."""
    tenant = embedded_tenant

    def slowly() -> Iterator[bytes]:
        for _ in range(24):
            time.sleep(0.5)
            yield json.dumps(EVENT).encode() + b"\n"

    answer = tenant.client.send("POST", f"{tenant.path}/events", slowly(), {"Content-Type": NDJSON})

    assert answer.lines()[-1] == {"end": True, "recorded": 24, "duplicates": 0, "refused": 0}


def test_many_requests_of_one_key_at_once_are_all_answered(tenant: Tenant) -> None:
    """More than are worked on at a time, and than may wait: they are there whole, so they only queue."""
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(tenant.client.post(f"{tenant.path}/events", EVENT)))
        for _ in range(MOST_READING + 20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status for answer in answers} == {201}
    assert tenant.size == len(threads)


def test_followers_do_not_keep_others_from_reading_their_own_writes(embedded_tenant: Tenant) -> None:
    """Nor from waiting: who finds no turn is answered after a moment, and not asked back a thousand times a second."""
    tenant = embedded_tenant
    tenant.client.post(f"{tenant.path}/events", EVENT)
    with ExitStack() as stack:
        for _ in range(tenant.server_threads):
            headers = ("Accept: text/event-stream",)
            stack.enter_context(connect(tenant, f"{tenant.path}/events", tenant.client.key, *headers, method="GET"))
        time.sleep(0.3)
        began = time.monotonic()
        polled = tenant.client.get(f"{tenant.path}/events?after=0&wait=1")
        waited = time.monotonic() - began
        began = time.monotonic()
        own = tenant.client.post(f"{tenant.path}/read-models/current_state", {"min_position": 0})
        waited_for_own = time.monotonic() - began

    assert polled.status == 200
    assert waited > 0.9
    # Nobody projects here: it has waited, and did not say so at once.
    assert own.status == 200 or (own.code == "not-ready" and waited_for_own > 5)


def test_a_key_that_is_revoked_while_it_waits_is_shown_nothing_more(tenant: Tenant) -> None:
    """What is recorded after that is not for it; nor does it lease anything."""
    keys = [
        tenant.client.post("/v1/api-keys", {"name": "x", "principal": "x", "roles": ["auditor"], "ledger": None}).json()
        for _ in range(2)
    ]
    poller, consumer = (tenant.client.with_key(key["secret"]) for key in keys)
    tenant.client.post(f"{tenant.path}/subscriptions", {"name": "copies", "after": "end", "partitions": 1})
    answers: list[Answer] = []

    def poll() -> None:
        answers.append(poller.get(f"{tenant.path}/events?wait=20"))

    def fetch() -> None:
        asked = {"consumer": str(uuid4()), "wait": 20}
        answers.append(consumer.post(f"{tenant.path}/subscriptions/copies/fetch", asked))

    threads = [threading.Thread(target=poll), threading.Thread(target=fetch)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    for key in keys:
        assert tenant.client.delete(f"/v1/api-keys/{key['id']}").status == 204
    tenant.client.post(f"{tenant.path}/events", EVENT)
    for thread in threads:
        thread.join()

    assert [(answer.status, answer.code) for answer in answers] == [(401, "unauthenticated")] * 2
    again = tenant.client.post(f"{tenant.path}/subscriptions/copies/fetch", {"consumer": str(uuid4())})
    assert len(again.json()["events"]) == 1


def test_who_takes_nothing_is_given_up() -> None:
    """The kernel ends the connection, so its thread and its turn are free again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        give_up_dead_clients(listener.getsockname()[1], 2)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            accepted.settimeout(30)
            with accepted, pytest.raises(TimeoutError) as gone:
                accepted.sendall(b"x" * 2**25)

    assert gone.value.errno is not None  # the kernel's, not the test's own patience
