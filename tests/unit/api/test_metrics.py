"""The metrics: what the page documents is what is told, and nothing in it is a client's word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from api.config import Settings
from api.metrics import Counters, metrics_text
from api.wiring import Service, migrate_databases, open_service, prepare_home
from keyvault.signatures import SigningKey
from ledger.domain.events import OPERATOR
from ledger.domain.notes import COSIGNATURE, VerifierKey
from ledger.ports import CursorKey
from ledger.services.appending.append import append_events
from ledger.services.counting.filling import CURSOR
from ledger.services.ledgers import create_ledger
from ledger.services.proving.publishing import publish
from ledger.services.proving.witnessing import cosign
from ledger.services.verifying.background import CURSOR as VERIFIED
from ledger.storage import tables
from tests.support.service import event

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
INNER = {"le"}
"""The labels that the format itself adds."""

Described = dict[str, tuple[str, frozenset[str]]]
"""Metric → its type and labels."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """An initialised service of its own, with a witness that is not there."""
    policy = tmp_path / "policy"
    witness = VerifierKey("w.example", COSIGNATURE, SigningKey.generate().public_key)
    policy.write_text(f"witness first {witness.text} http://127.0.0.1:1/\nquorum first\n")
    settings = Settings.from_environment(
        {"AUDIT_LEDGER_HOME": str(tmp_path / "home"), "AUDIT_LEDGER_WITNESSES": str(policy)}
    )
    prepare_home(settings)
    migrate_databases(settings)
    opened = open_service(settings)
    opened.vault.initialise()
    yield opened
    opened.close()


def documented() -> Described:
    """What the tables of the page say."""
    rows = [re.split(r"\s*\|\s*", line) for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {name.strip("`"): (kind, frozenset(re.findall(r"\w+", labels))) for _, name, kind, labels, *_ in rows}


def told(service: Service, counters: Counters) -> Described:
    """What is told, with the labels that the samples have."""
    found = {}
    for family in text_string_to_metric_families(metrics_text(service, counters).decode()):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = frozenset(label for sample in family.samples for label in sample.labels) - INNER
        found[name] = (family.type, labels)
    return found


def values(service: Service, counters: Counters, metric: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric by the values of their labels, in order of the labels' names."""
    families = text_string_to_metric_families(metrics_text(service, counters).decode())
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for family in families
        for sample in family.samples
        if sample.name == metric
    }


def fill(service: Service) -> str:
    """A ledger with something of everything; gives its id."""
    deps = service.deps
    ledger_id = create_ledger(deps, "hospital").ledger_id
    for number in range(3):
        append_events(deps, ledger_id, [event("ward-1")], OPERATOR)
        if number == 1:
            publish(deps, ledger_id)
    deps.derived.cursors.add_cursor(ledger_id, CursorKey("projection", "activity", 1), 1, "running", 0)
    deps.derived.cursors.add_cursor(ledger_id, CursorKey("projection", "activity", 2), 2, "building", -1)
    deps.derived.cursors.add_cursor(ledger_id, VERIFIED, 1, "running", 1)
    deps.derived.cursors.add_cursor(ledger_id, CURSOR, 1, "running", -1)
    parked = {"position": 0, "stream_ref": b"s" * 16, "tries": 3, "error": "E", "parked_at": 1, "replay": False}
    with service.engine.begin() as connection:
        connection.execute(
            sa.insert(tables.parked_events), {"ledger_id": ledger_id, "subscription": "billing", **parked}
        )
    return str(ledger_id)


def test_the_page_documents_what_is_told_and_no_more(service: Service) -> None:
    """Names, types and labels."""
    fill(service)
    counters = Counters()
    counters.request("GET", "/livez", 200, 0.1, query=False)
    counters.witness_failed("first", "away")
    assert told(service, counters) == documented()


def test_lag_is_that_of_the_generation_that_readers_see(service: Service) -> None:
    """In events and in seconds; the one that is built beside it has a metric of its own."""
    ledger = fill(service)
    labels = ("projection", ledger, "activity")
    assert values(service, Counters(), "audit_ledger_lag_events") == {labels: 2.0}
    (age,) = values(service, Counters(), "audit_ledger_lag_seconds").values()
    assert 0.0 < age < 60.0
    assert values(service, Counters(), "audit_ledger_rebuild_events") == {(ledger, "activity"): 3.0}
    assert values(service, Counters(), "audit_ledger_not_begun") == {
        ("projection", ledger, "current_state"): 1.0,
        ("projection", ledger, "daily_counts"): 1.0,
    }
    assert values(service, Counters(), "audit_ledger_events_total") == {(ledger,): 3.0}
    assert values(service, Counters(), "audit_ledger_published_size") == {(ledger,): 2.0}
    assert values(service, Counters(), "audit_ledger_verified_size") == {(ledger,): 2.0}
    assert values(service, Counters(), "audit_ledger_verification_failed") == {(ledger,): 0.0}
    assert values(service, Counters(), "audit_ledger_parked_messages") == {(ledger, "billing"): 1.0}


def test_no_more_is_verified_than_there_is(service: Service) -> None:
    """Whoever sets the cursor by hand."""
    ledger = fill(service)
    with service.engine.begin() as connection:
        mine = tables.cursors.c.kind == VERIFIED.kind
        connection.execute(sa.update(tables.cursors).where(mine).values(position=10**9))
    assert values(service, Counters(), "audit_ledger_verified_size") == {(ledger,): 3.0}


def test_how_far_each_witness_is_shows(service: Service) -> None:
    """Its last size beside what was published, whether that is enough, and how often it failed."""
    counters = Counters()
    watched = open_service(service.settings, counters)
    ledger = fill(watched)
    last = watched.deps.transparency.latest_published(UUID(ledger), "localhost/hospital")
    assert last is not None
    assert cosign(watched.deps, last) == frozenset()
    assert values(watched, counters, "audit_ledger_witness_cosigned_size") == {(ledger, "first"): 0.0}
    assert values(watched, counters, "audit_ledger_witness_quorum") == {(ledger,): 0.0}
    assert values(watched, counters, "audit_ledger_witness_failures_total") == {("away", "first"): 1.0}
    watched.close()


def test_what_is_stopped_or_leased_shows(service: Service) -> None:
    """Somebody works on one, the other waits for somebody to restart it."""
    deps = service.deps
    ledger_id = create_ledger(deps, "hospital").ledger_id
    now, holder = deps.clock(), deps.new_id()
    for name in ("leased", "stopped"):
        key = CursorKey("process", name)
        deps.derived.cursors.add_cursor(ledger_id, key, 1, "running", -1)
        deps.derived.cursors.take_cursor(ledger_id, key, holder, now, now + 60_000_000)
    deps.derived.cursors.note_failure(
        ledger_id, CursorKey("process", "stopped"), holder, -1, "KeyError", retry_at=0, stop=True
    )
    expected = {("process", str(ledger_id), "leased"): 1.0, ("process", str(ledger_id), "stopped"): 0.0}
    assert values(service, Counters(), "audit_ledger_leases") == expected
    assert values(service, Counters(), "audit_ledger_stopped") == {
        labels: 1.0 - value for labels, value in expected.items()
    }


def test_an_erasure_that_hangs_shows(service: Service) -> None:
    """How many there are, and for how long."""
    deps = service.deps
    ledger_id = create_ledger(deps, "hospital").ledger_id
    assert values(service, Counters(), "audit_ledger_open_erasures") == {(): 0.0}
    assert values(service, Counters(), "audit_ledger_open_erasure_seconds") == {(): 0.0}
    service.vault.begin_erasure(
        ledger_id,
        "patient:A",
        erasure_id=deps.new_id(),
        purposes=None,
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=deps.clock() - 90_000_000,
        requested_by=OPERATOR,
        block_unknown=True,
    )
    assert values(service, Counters(), "audit_ledger_open_erasures") == {(): 1.0}
    (age,) = values(service, Counters(), "audit_ledger_open_erasure_seconds").values()
    assert 90.0 <= age < 150.0


def test_a_key_that_is_needed_again_is_a_hit(tmp_path: Path) -> None:
    """And each that is not remembered a miss."""
    settings = Settings.from_environment({"AUDIT_LEDGER_HOME": str(tmp_path / "home")})
    prepare_home(settings)
    migrate_databases(settings)
    counters = Counters()
    service = open_service(settings, counters)
    service.vault.initialise()
    ledger_id = create_ledger(service.deps, "hospital").ledger_id
    service.vault.verifying_key(ledger_id)
    before = values(service, counters, "audit_ledger_key_unwraps_total")
    service.vault.verifying_key(ledger_id)
    after = values(service, counters, "audit_ledger_key_unwraps_total")
    service.close()
    assert (after["hit",] - before["hit",], after["miss",] - before["miss",]) == (1.0, 0.0)
    assert before["miss",] > 0.0


def test_an_alarm_is_counted(tmp_path: Path) -> None:
    """I9: not only in the log."""
    counters = Counters()
    service = open_service(Settings.from_environment({"AUDIT_LEDGER_HOME": str(tmp_path)}), counters)
    service.deps.alarm(OPERATOR, 7, None, "the leaf does not match")
    assert values(service, counters, "audit_ledger_integrity_alarms_total") == {(): 1.0}


def test_databases_that_are_down_are_metrics(tmp_path: Path) -> None:
    """What was counted is told all the same."""
    counters = Counters()
    service = open_service(Settings.from_environment({"AUDIT_LEDGER_HOME": str(tmp_path / "nowhere")}), counters)
    assert values(service, counters, "audit_ledger_database_up") == {(): 0.0}
    assert values(service, counters, "audit_ledger_keyvault_up") == {(): 0.0}
    assert values(service, counters, "audit_ledger_queries_total") == {(): 0.0}


def test_a_clients_word_is_no_label(service: Service) -> None:
    """I5: neither an address that nobody knows nor a method."""
    counters = Counters()
    counters.request("PATIENT-A", None, 405, 0.1, query=False)
    assert values(service, counters, "audit_ledger_requests_total") == {("", "", "405"): 1.0}
    assert b"PATIENT-A" not in metrics_text(service, counters)
