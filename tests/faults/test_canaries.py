"""Marked names and values are looked for in every byte that the service writes anywhere (I5, I6)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.domain.snapshot import EVERY
from tests.support.contents import data_directory
from tests.support.postgres import PostgresCluster
from tests.support.server import NDJSON, Client, ServedLedger

SEPSIS = Path(__file__).parents[2] / "docs" / "data" / "sepsis.ndjson"
MARK = "kanarie"
EVENTS = 3000
CONSUMER = "0193a5e0-7c00-7000-8000-0000000000cc"
LATIN, CYRILLIC = f"{MARK}-latin", "канарейка"


@dataclass(frozen=True, slots=True)
class Site:
    """A served ledger and the server that its databases are on, if it is not itself their place."""

    served: ServedLedger
    cluster: PostgresCluster | None


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A served process on either engine."""
    if request.param == "sqlite":
        with ServedLedger() as served:
            yield Site(served, None)
        return
    cluster: PostgresCluster = request.getfixturevalue("own_postgres")
    settings = {
        "AUDIT_LEDGER_DATABASE_URL": cluster.create_database("ledger"),
        "AUDIT_LEDGER_KEYVAULT_URL": cluster.create_database("vault"),
    }
    with ServedLedger(settings) as served:
        yield Site(served, cluster)


def test_no_name_and_no_value_is_anywhere_in_clear(site: Site) -> None:
    """Neither before nor after the erasure: databases, write-ahead logs, dumps, journal, KEKs, service logs."""
    served = site.served
    path = served.make_ledger("hospital")
    marked = marked_events()
    send(served.client, path, marked)
    provoke(served.client, path, marked[0])
    import_by_command(served, marked)
    found = scan(site)
    assert found == []

    subject = marked[0]["subject"]
    assert served.client.post(f"{path}/erasures", {"subject": subject, "reference": "case 1"}).status == 201
    provoke(served.client, path, marked[0])
    assert served.stop() == 0
    assert scan(site) == []


def test_the_scan_would_find_a_name(site: Site) -> None:
    """A check that cannot fail is none: a mark in any of the places is found there."""
    served = site.served
    path = served.make_ledger("hospital")
    # A category is in clear by design; here it stands for what must not be.
    event = {"stream": f"{MARK}-1", "type": "Noted", "nonpersonal": {}}
    assert served.client.post(f"{path}/events", event).status == 201
    with (served.home / "erasures.journal").open("ab") as journal:
        journal.write(CYRILLIC.encode())
    places = " ".join(scan(site))
    assert "erasures.journal" in places
    assert ("ledger.db" in places) if site.cluster is None else ("dump of ledger" in places and "data/base" in places)


def marked_events() -> list[dict[str, Any]]:
    """Real events with a mark in every name and every value, in more than one script."""
    marked = []
    for number, line in enumerate(SEPSIS.read_text().splitlines()[:EVENTS]):
        event = json.loads(line)
        mark = LATIN if number % 2 else CYRILLIC
        event["stream"] = event["stream"].replace("patient-", f"patient-{mark}-")
        event["subject"] = f"{mark}:{event['subject']}"
        event["actor"] = {"subject": f"{mark}:{event['actor']}", "data": {"ip": f"{mark}-ip"}}
        event["data"] = {f"{mark}-{name}": f"{mark} {value}" for name, value in event["data"].items()}
        event["parts"] = [{"subject": f"{mark}:relative", "purpose": "contact", "data": {"phone": f"{mark}-phone"}}]
        event["nonpersonal"] = {"ward": f"{mark}-ward"}
        marked.append(event)
    return marked


def send(client: Client, path: str, events: list[dict[str, Any]]) -> None:
    """The import over HTTP."""
    headers = {"Content-Type": NDJSON, "Idempotency-Key": f"marked-{len(events)}"}
    body = "\n".join(json.dumps(event, ensure_ascii=False) for event in events).encode()
    answer = client.send("POST", f"{path}/events", body, headers)
    end = answer.lines()[-1]
    assert end["recorded"] + end["duplicates"] == len(events)


def provoke(client: Client, path: str, event: dict[str, Any]) -> None:
    """Every kind of request that carries a name or a value, and mistakes with marks where they do not belong."""
    for question in (
        {"subject": event["subject"]},
        {"actor": event["actor"]["subject"]},
        {"involving": event["parts"][0]["subject"], "stream": event["stream"]},
        {"subject": event["subject"], MARK: 1},
        {"category": f"{MARK} not a category", "cursor": MARK},
    ):
        client.post(f"{path}/query", question)
    client.post(f"{path}/query", {"subject": event["subject"]}, {"Accept": NDJSON})
    client.post(f"{path}/state", {"stream": event["stream"]})
    client.post(f"{path}/streams/lookup", {"stream": event["stream"]})
    client.post(f"{path}/subjects/lookup", {"subject": event["subject"]})
    client.post(f"{path}/events", {**event, "type": f"{MARK} is not a type", MARK: MARK, "expected_version": 77})
    client.post(f"{path}/events", {**event, "expected_version": 77})
    client.send("POST", f"{path}/events", b'{"subject":"' + MARK.encode() + b'",', {"Content-Type": "application/json"})
    client.send("POST", f"{path}/events", b'{"a":1,"' + MARK.encode() + b'":NaN}', {"Content-Type": "application/json"})
    client.send("POST", f"{path}/events", MARK.encode(), {"Content-Type": NDJSON})
    provoke_consumers(client, path)
    provoke_time_travel(client, path)
    client.get(f"{path}/events/{MARK}")
    client.get(f"{path}/events?subject_ref={MARK}&{MARK}=1")
    client.get(f"/v1/ledgers/{MARK}/events", {"X-Request-Id": f"{MARK} not an id"})
    client.get(f"/{MARK}")
    client.post(f"{path}/erasures", {"subject": f"{MARK}:nobody", "reference": f"{MARK}!"})


def provoke_time_travel(client: Client, path: str) -> None:
    """A stream that is long enough for snapshots, asked about in every way, with marks where they do not belong."""
    monitored = {"stream": f"monitor-{MARK}", "type": "Measured", "subject": f"{MARK}:monitored"}
    send(client, path, [{**monitored, "data": {MARK: f"{MARK} {number}"}} for number in range(2 * EVERY)])
    stream = {"stream": monitored["stream"]}
    state = client.post(f"{path}/state", stream).json()
    assert state["stream_version"] == 2 * EVERY
    for what, question in (
        ("state", stream),
        ("states", {"category": "monitor"}),
        ("states", {"subject": monitored["subject"], "cursor": MARK}),
        ("diff", {**stream, "old_as_of": {"position": 0}}),
        ("diff", {"category": MARK, "old_as_of": MARK}),
        ("history", {**stream, "path": f"/{MARK}"}),
        ("history", {**stream, "path": MARK}),
    ):
        client.post(f"{path}/{what}", question)


def provoke_consumers(client: Client, path: str) -> None:
    """A subscription whose events fail and are parked, reported with marks where they do not belong."""
    client.post(f"{path}/subscriptions", {"name": "mailer", "max_tries": 1, "category": f"{MARK} not a category"})
    client.post(f"{path}/subscriptions", {"name": "mailer", "max_tries": 1})
    delivery = client.post(f"{path}/subscriptions/mailer/fetch", {"consumer": CONSUMER}).json()
    failed = {"consumer": CONSUMER, "partition": delivery["lease"]["partition"]}
    for event, error in zip(delivery["events"], (f"{MARK} has no address", "Timeout"), strict=False):
        client.post(f"{path}/subscriptions/mailer/fail", {**failed, "position": event["position"], "error": error})
    assert client.get(f"{path}/subscriptions/mailer/parked").json()["parked"] != []
    client.get(f"{path}/subscriptions/{MARK}/parked?cursor={MARK}")
    client.get(f"{path}/events", {"Accept": "text/event-stream", "Last-Event-ID": MARK})


def import_by_command(served: ServedLedger, marked: list[dict[str, Any]]) -> None:
    """The command line writes to the same databases."""
    # Outside the home: the file itself is full of marks.
    file = served.log_file.with_name("events.ndjson")
    file.write_text("\n".join(json.dumps(event, ensure_ascii=False) for event in marked[:200]))
    served.run("import", str(file), "--ledger", "hospital", "--source", "command")
    file.unlink()
    verdict = served.run("verify", "--ledger", "hospital")
    assert MARK not in verdict.stdout + verdict.stderr


def scan(site: Site) -> list[str]:
    """Where a mark is found, in whatever encoding somebody might have written it."""
    needles = set()
    for mark in (MARK, CYRILLIC):
        needles |= {
            mark.encode(),
            mark.encode("utf-16-le"),
            json.dumps(mark)[1:-1].encode(),
            mark.encode().hex().encode(),
        }
    places = {str(file): file.read_bytes() for file in site.served.home.rglob("*") if file.is_file()}
    places["log"] = site.served.log_file.read_bytes()
    if site.cluster is not None:
        for database in ("ledger", "vault"):
            places[f"dump of {database}"] = site.cluster.run("pg_dump", database=database)
            with site.cluster.connect(database) as connection:
                connection.autocommit = True
                connection.execute("CHECKPOINT")
        places |= data_directory(site.cluster)
    return sorted({name for name, content in places.items() if any(needle in content for needle in needles)})
