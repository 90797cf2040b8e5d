"""The serving processes are killed with SIGKILL at random moments under load (I2, I11, I12).

``AUDIT_LEDGER_TEST_KILLS`` sets the number of rounds; ``scripts/torture`` runs the full number.
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from tests.support.postgres import PostgresCluster
from tests.support.server import Answer, Client, ServedLedger

KILLS = int(os.environ.get("AUDIT_LEDGER_TEST_KILLS", "3"))
WRITERS = 4
BROKEN = (OSError, http.client.HTTPException)


@dataclass(slots=True)
class Load:
    """What the clients sent and were told, over all rounds."""

    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    unanswered: list[dict[str, Any]] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    interrupted: set[str] = field(default_factory=set)
    surprises: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(server: ServedLedger) -> None:
    """Kill, restart, look, again: every acknowledged event is at its place, every batch whole, every erasure done."""
    path = server.make_ledger("hospital")
    load = Load()
    for number in range(KILLS):
        run_round(server, path, load, number, server.kill)
        server.start()
        assert load.surprises == []
        check(server, path, load)
    assert len(load.acknowledged) > KILLS


def test_killed_database_server_loses_nothing_and_the_service_recovers(own_postgres: PostgresCluster) -> None:
    """The database server is killed and comes back; the service, which went on, needs no restart (I11)."""
    settings = {
        "AUDIT_LEDGER_DATABASE_URL": own_postgres.create_database(),
        "AUDIT_LEDGER_KEYVAULT_URL": own_postgres.create_database(),
    }
    with ServedLedger(settings) as server:
        path = server.make_ledger("hospital")
        load = Load()
        for number in range(max(KILLS // 2, 2)):
            run_round(server, path, load, number, own_postgres.kill)
            down = server.client.post(f"{path}/query", {})
            assert (down.status, down.code) in ((503, "store-unavailable"), (503, "vault-unavailable"))
            assert down.headers["retry-after"]
            assert server.client.get("/readyz").status == 503
            own_postgres.start()
            wait_until_ready(server.client)
            finish_erasures(server.client, path, load)
            assert load.surprises == []
            check(server, path, load)
        assert len(load.acknowledged) > 1


def wait_until_ready(client: Client) -> None:
    """Wait for the service to find its databases again."""
    deadline = time.monotonic() + 60
    while client.get("/readyz").status != 200:
        assert time.monotonic() < deadline, "the service did not recover within a minute"
        time.sleep(0.1)


def finish_erasures(client: Client, path: str, load: Load) -> None:
    """Ask again for erasures that were cut short, as their clients would: the service itself was not restarted."""
    for subject in load.interrupted:
        assert client.post(f"{path}/erasures", {"subject": subject}).status in (200, 201)
    load.erased |= load.interrupted
    load.interrupted.clear()


def run_round(server: ServedLedger, path: str, load: Load, number: int, crash: Callable[[], None]) -> None:
    """Some clients write, one erases; then everything is gone in the middle of it."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=write, args=(server.client, path, load, stop, f"{number}-{index}"))
        for index in range(WRITERS)
    ]
    threads.append(threading.Thread(target=erase, args=(server.client, path, load, stop, number)))
    for thread in threads:
        thread.start()
    time.sleep(0.1 + random.Random(number).random() * 0.8)
    crash()
    stop.set()
    for thread in threads:
        thread.join(60)


def write(client: Client, path: str, load: Load, stop: threading.Event, name: str) -> None:
    """Send batches of three events, over two streams, until the server is gone."""
    turn = 0
    while not stop.is_set():
        turn += 1
        batch = [
            {
                "id": str(uuid4()),
                "stream": f"case-{name}-{stream}",
                "type": "Noted",
                "subject": f"person:{name}",
                "data": {"turn": turn},
            }
            for stream in (1, 1, 2)
        ]
        try:
            answer = client.post(f"{path}/events", {"events": batch})
        except BROKEN:
            with load.lock:
                load.unanswered.append({"events": batch})
            return
        record(load, batch, answer)


def record(load: Load, batch: list[dict[str, Any]], answer: Answer) -> None:
    """Keep what a writer was told."""
    with load.lock:
        if answer.status in (200, 201):
            load.acknowledged.update({told["id"]: told for told in answer.json()["events"]})
        elif answer.status in (503, 429):
            load.unanswered.append({"events": batch})
        else:
            load.surprises.append(f"{answer.status} {answer.body.decode()}")


def erase(client: Client, path: str, load: Load, stop: threading.Event, number: int) -> None:
    """Record somebody and erase them, again and again, until the server is gone."""
    turn = 0
    while not stop.is_set():
        turn += 1
        subject = f"leaver:{number}-{turn}"
        event = {"stream": f"leaver-{number}-{turn}", "type": "Noted", "subject": subject, "data": {"secret": 1}}
        try:
            if client.post(f"{path}/events", event).status != 201:
                continue
            status = client.post(f"{path}/erasures", {"subject": subject}).status
            with load.lock:
                (load.erased if status == 201 else load.interrupted).add(subject)
        except BROKEN:
            return


def check(server: ServedLedger, path: str, load: Load) -> None:
    """Look at the whole ledger after a restart."""
    client = server.client
    verdict = server.run("verify", "--ledger", "hospital")
    assert "intact" in verdict.stdout
    found = everything(client, path)
    assert [event["position"] for event in found] == list(range(len(found)))
    by_id = {event["id"]: event for event in found}
    for event_id, told in load.acknowledged.items():
        assert {name: by_id[event_id][name] for name in told} == told
    for sent in load.unanswered:
        ids = [event["id"] for event in sent["events"]]
        # I12: a batch whose answer was lost is there as a whole or not at all…
        there = sum(event_id in by_id for event_id in ids)
        assert there in (0, len(ids))
        # …and sending it again records it once (I4).
        answer = client.post(f"{path}/events", sent)
        assert answer.status == (200 if there else 201)
        load.acknowledged.update({told["id"]: told for told in answer.json()["events"]})
    load.unanswered.clear()
    open_erasures = client.get(f"{path}/erasures?state=shredding").json()["erasures"]
    assert open_erasures == []
    for subject in load.erased:
        assert client.post(f"{path}/subjects/lookup", {"subject": subject}).json()["state"] == "erased"
        shown = client.post(f"{path}/query", {"subject": subject}).json()["events"]
        assert [event["data"] for event in shown] == [None]
        assert shown[0]["redactions"][0]["reason"] == "erased"
    load.erased.clear()
    assert all(redaction["reason"] == "erased" for event in found for redaction in event["redactions"])


def everything(client: Client, path: str) -> list[dict[str, Any]]:
    """All events, in order."""
    lines = client.post(f"{path}/query", {}, {"Accept": "application/x-ndjson"}).lines()
    assert lines[-1] == {"end": True, "count": len(lines) - 1}
    assert all(UUID(event["id"]) for event in lines[:-1])
    return lines[:-1]
