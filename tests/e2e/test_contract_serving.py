"""How the server behaves on the wire: long uploads and downloads, rude clients, being stopped and killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.services.appending.ingest import BATCH_LINES
from tests.e2e.conftest import Tenant, make_tenant
from tests.support.server import NDJSON, Answer, Client, ServedLedger, raw_connection

MEMORY_GROWTH_MIB = 80


@pytest.fixture
def own_server() -> Iterator[ServedLedger]:
    """A server that the test may stop and kill."""
    with ServedLedger() as server:
        yield server


def lines(count: int, size: int = 100) -> Iterator[bytes]:
    """Events on 20 streams, one a line."""
    for number in range(count):
        event = {"stream": f"ward-{number % 20}", "type": "Noted", "nonpersonal": {"n": number, "text": "x" * size}}
        yield json.dumps(event).encode() + b"\n"


def workers_of(server: ServedLedger) -> list[int]:
    """The processes that serve."""
    return [
        int(child) for child in Path(f"/proc/{server.process_id}/task/{server.process_id}/children").read_text().split()
    ]


def replace_worker(server: ServedLedger) -> None:
    """Kill the one process that serves, and wait for the next."""
    (worker,) = workers_of(server)
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if Client(server.port).get("/livez").status == 200 and worker not in workers_of(server):
                return
        time.sleep(0.05)
    raise AssertionError("no worker took the place of the killed one")


def peak_memory_mib(process: int) -> int:
    """The most memory that a process ever had."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def head(path: str, key: str | None, *headers: str) -> bytes:
    """The head of a POST."""
    all_headers = (f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *headers)
    return "\r\n".join(all_headers).encode() + b"\r\n\r\n"


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_long_uploads_and_downloads_take_constant_memory(own_server: ServedLedger) -> None:
    """30 MB of lines in chunks, and their export, do not stay in memory."""
    tenant = make_tenant(own_server)
    tenant.client.send("POST", f"{tenant.path}/events", lines(2000, 1000), {"Content-Type": NDJSON})
    tenant.client.post(f"{tenant.path}/query", {}, {"Accept": NDJSON})
    (worker,) = workers_of(own_server)
    before = peak_memory_mib(worker)

    uploaded = tenant.client.send("POST", f"{tenant.path}/events", lines(6000, 5000), {"Content-Type": NDJSON})
    exported = tenant.client.post(f"{tenant.path}/query", {}, {"Accept": NDJSON})

    assert uploaded.lines()[-1] == {"end": True, "recorded": 6000, "duplicates": 0, "refused": 0}
    assert exported.lines()[-1] == {"end": True, "count": 8000}
    assert peak_memory_mib(worker) - before < MEMORY_GROWTH_MIB


def test_a_client_that_sends_everything_before_it_reads_does_not_hang(embedded_tenant: Tenant) -> None:
    """Even when the answer is too long for the buffers between the two."""
    body = b"".join(lines(20_000, 0))
    with raw_connection(embedded_tenant.server.port) as connection:
        connection.sendall(
            head(
                f"{embedded_tenant.path}/events",
                embedded_tenant.client.key,
                f"Content-Type: {NDJSON}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            )
        )
        connection.sendall(body)
        received = rest_of(connection)

    assert b'{"end":true,"recorded":20000,"duplicates":0,"refused":0}' in received[-200:]
    assert received.count(b'"line":') == 20_000


@pytest.mark.parametrize("length", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_body_that_breaks_off_records_nothing(embedded_tenant: Tenant, length: bytes) -> None:
    """A cut JSON body is not taken for a whole one."""
    start = head(f"{embedded_tenant.path}/events", embedded_tenant.client.key, "Content-Type: application/json")
    text = b'{"stream":"ward-1","type":"Noted","nonpersonal":{}'
    with raw_connection(embedded_tenant.server.port) as connection:
        chunk = text if b"Length" in length else b"%x\r\n%s\r\n" % (len(text), text)
        connection.sendall(start[:-2] + length + b"\r\n\r\n" + chunk)
        time.sleep(0.2)
    time.sleep(0.3)

    assert embedded_tenant.size == 0


def test_a_whole_event_in_a_body_that_is_too_short_is_refused(embedded_tenant: Tenant) -> None:
    """The client said that there is more, so something is missing."""
    text = b'{"stream":"ward-1","type":"Noted","nonpersonal":{}}'
    with raw_connection(embedded_tenant.server.port) as connection:
        connection.sendall(
            head(
                f"{embedded_tenant.path}/events",
                embedded_tenant.client.key,
                "Content-Type: application/json",
                f"Content-Length: {len(text) + 10}",
            )
            + text
        )
        connection.shutdown(socket.SHUT_WR)
        received = rest_of(connection)

    assert b"400 Bad Request" in received
    assert b"urn:audit-ledger:problem:malformed" in received
    assert embedded_tenant.size == 0


@pytest.mark.parametrize(
    ("key", "size", "problem"), [(None, 33 * 2**20, b"too-large"), ("alk_wrong", 2**20, b"unauthenticated")]
)
def test_a_refusal_reaches_a_client_that_is_still_sending(
    embedded_tenant: Tenant, key: str | None, size: int, problem: bytes
) -> None:
    """33 MiB are refused, and the client learns why instead of losing its connection. A stranger's MiB, too."""
    with raw_connection(embedded_tenant.server.port) as connection:
        connection.sendall(
            head(
                f"{embedded_tenant.path}/events",
                key or embedded_tenant.client.key,
                "Content-Type: application/json",
                f"Content-Length: {size}",
                "Connection: close",
            )
        )
        connection.sendall(b" " * size)
        received = rest_of(connection)

    assert b"urn:audit-ledger:problem:" + problem in received


def test_a_client_that_asks_before_it_sends_gets_an_answer(embedded_tenant: Tenant) -> None:
    """``Expect: 100-continue`` (curl, for long bodies): told to go on, or refused without sending."""
    path, key = f"{embedded_tenant.path}/events", embedded_tenant.client.key
    text = b'{"stream":"ward-1","type":"Noted","nonpersonal":{}}'
    expect = ("Content-Type: application/json", "Expect: 100-continue", "Connection: close")
    with raw_connection(embedded_tenant.server.port) as connection:
        connection.sendall(head(path, key, *expect, f"Content-Length: {len(text)}"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(text)
        assert b"201 Created" in rest_of(connection)
    with raw_connection(embedded_tenant.server.port) as connection:
        connection.sendall(head(path, "wrong", *expect, f"Content-Length: {len(text)}"))
        assert rest_of(connection).startswith(b"HTTP/1.1 401 ")


def test_a_client_that_goes_away_harms_nobody(embedded_tenant: Tenant) -> None:
    """In the middle of an upload or of a download: no thread is lost to it, and the batches so far stand (I12)."""
    tenant = embedded_tenant
    tenant.client.send("POST", f"{tenant.path}/events", lines(3000), {"Content-Type": NDJSON})
    rude_clients = tenant.server_threads + 4
    for _ in range(rude_clients):
        with raw_connection(tenant.server.port) as connection:
            body = b"{}"
            asking = ("Content-Type: application/json", f"Accept: {NDJSON}", f"Content-Length: {len(body)}")
            connection.sendall(head(f"{tenant.path}/query", tenant.client.key, *asking) + body)
            connection.recv(1000)
        with raw_connection(tenant.server.port) as connection:
            sending = (f"Content-Type: {NDJSON}", "Content-Length: 1000000")
            connection.sendall(head(f"{tenant.path}/events", tenant.client.key, *sending))
            connection.sendall(b"".join(lines(BATCH_LINES + 3)))

    stands = 3000 + BATCH_LINES * rude_clients
    deadline = time.monotonic() + 30
    while tenant.size < stands and time.monotonic() < deadline:
        time.sleep(0.1)
    assert tenant.size == stands
    assert tenant.client.post(f"{tenant.path}/query", {}, {"Accept": NDJSON}).lines()[-1] == {
        "end": True,
        "count": stands,
    }


def test_many_followers_leave_room_for_others(embedded_tenant: Tenant) -> None:
    """Who waits takes a thread, so only some may; the others are answered at once."""
    client, path = embedded_tenant.client, embedded_tenant.path
    answers: list[Answer] = []
    followers = [
        threading.Thread(target=lambda: answers.append(client.get(f"{path}/events?wait=4")))
        for _ in range(embedded_tenant.server_threads * 2)
    ]
    for follower in followers:
        follower.start()
    time.sleep(0.5)

    began = time.monotonic()
    assert client.get(path).status == 200
    assert time.monotonic() - began < 2

    for follower in followers:
        follower.join()
    assert {answer.status for answer in answers} == {200}


def test_a_stop_finishes_requests_and_wakes_those_who_wait(own_server: ServedLedger) -> None:
    """SIGTERM: exit status 0, soon, and every request that was under way has its answer."""
    tenant = make_tenant(own_server)
    answers: list[Any] = []

    def upload() -> Iterator[bytes]:
        for line in lines(20):
            time.sleep(0.05)
            yield line

    def send() -> None:
        answers.append(tenant.client.send("POST", f"{tenant.path}/events", upload(), {"Content-Type": NDJSON}))

    def wait() -> None:
        answers.append(tenant.client.get(f"{tenant.path}/events?wait=60&category=patient"))

    threads = [threading.Thread(target=send), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    time.sleep(0.4)

    began = time.monotonic()
    status = own_server.stop()
    for thread in threads:
        thread.join()

    assert status == 0
    assert time.monotonic() - began < 10
    assert [answer.status for answer in answers] == [200, 200]
    assert {"end": True, "recorded": 20, "duplicates": 0, "refused": 0} in [answer.lines()[-1] for answer in answers]


def test_workers_die_with_a_killed_main_process(own_server: ServedLedger) -> None:
    """Else they would go on serving next to those of the next start."""
    (worker,) = workers_of(own_server)

    os.kill(own_server.process_id, signal.SIGKILL)

    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists() or "State:\tZ" in Path(f"/proc/{worker}/status").read_text()
    own_server.kill()
    own_server.start()


def test_a_killed_worker_is_replaced(own_server: ServedLedger) -> None:
    """The service goes on by itself."""
    replace_worker(own_server)

    assert Client(own_server.port).get("/readyz").status == 200


def test_what_cannot_start_says_why() -> None:
    """Without databases, or with its port taken: exit status 1 and what to do, and no traceback."""
    server = ServedLedger()
    try:
        server.home.mkdir(mode=0o700)
        not_made = server.run_apart("serve", check=False)
        server.run("init")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", server.port))
            taken.listen()
            no_port = server.run_apart("serve", check=False)
    finally:
        server.remove()

    assert (not_made.returncode, no_port.returncode) == (1, 1)
    assert "audit-ledger init" in not_made.stderr
    assert "PORT" in no_port.stderr
    assert "Traceback" not in not_made.stderr + no_port.stderr


def test_a_lost_kek_is_a_503_and_no_redaction(own_server: ServedLedger) -> None:
    """I9: neither queries nor appends answer, and readiness names what is missing."""
    tenant = make_tenant(own_server)
    event = {"stream": "patient-A", "type": "X", "subject": "patient:A", "data": {"n": 1}}
    tenant.client.post(f"{tenant.path}/events", event)
    kek = own_server.home / "kek"
    kek.rename(own_server.home / "kek.away")
    # The unwrapped key is kept for a short time; a new process has none.
    replace_worker(own_server)

    ready = tenant.client.get("/readyz")
    query = tenant.client.post(f"{tenant.path}/query", {"subject": "patient:A"})
    stream = tenant.client.post(f"{tenant.path}/query", {"subject": "patient:A"}, {"Accept": NDJSON})
    append = tenant.client.post(f"{tenant.path}/events", event)
    sent = tenant.client.post_lines(f"{tenant.path}/events", [event])

    assert (ready.status, ready.code) == (503, "not-ready")
    assert [error["dependency"] for error in ready.json()["errors"]] == ["kek", "journal"]
    for answer in (query, stream, append, sent):
        assert (answer.status, answer.code) == (503, "vault-unavailable")
        assert int(answer.headers["retry-after"]) > 0
    (own_server.home / "kek.away").rename(kek)
    assert tenant.client.post(f"{tenant.path}/query", {}).json()["events"][0]["data"] == {"n": 1}
