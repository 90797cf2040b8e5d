"""An erasure that has failed says so, and is told apart from one that is under way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from api.wiring import Service
from ledger.domain.events import OPERATOR
from ledger.open_ledger import OpenLedger
from ledger.services.ledgers import create_ledger
from tests.support.in_process import client_of, service_at


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of its own."""
    with service_at(tmp_path / "home") as opened:
        yield opened


def begin(ledger: OpenLedger, subject: str) -> UUID:
    """An erasure that was cut short behind its first step."""
    entry = ledger.deps.vault.begin_erasure(
        ledger.ledger_id,
        subject,
        erasure_id=ledger.deps.new_id(),
        purposes=None,
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=ledger.deps.clock(),
        requested_by=OPERATOR,
        block_unknown=False,
    )
    return entry.erasure_id


def test_every_state_is_shown_and_can_be_asked_for(service: Service) -> None:
    """Erased, shredding, and failed where a writer's event has taken the erasure's id: nothing was shredded then."""
    ledger = OpenLedger(service.deps, create_ledger(service.deps, "test").ledger_id, OPERATOR)
    for name in ("A", "B", "C"):
        ledger.append({"stream": f"patient-{name}", "type": "Visit", "subject": f"patient:{name}", "data": {}})
    expected = {
        "erased": ledger.erase("patient:A").erasure.entry.erasure_id,
        "shredding": begin(ledger, "patient:B"),
        "failed": begin(ledger, "patient:C"),
    }
    ledger.append({"id": str(expected["failed"]), "stream": "note-1", "type": "Noted", "nonpersonal": {}})

    client, headers = client_of(service)
    for state, erasure_id in expected.items():
        shown = client.get(f"/v1/ledgers/test/erasures/{erasure_id}", headers=headers)
        assert json.loads(shown.data)["state"] == state
        listed = client.get(f"/v1/ledgers/test/erasures?state={state}", headers=headers)
        found = json.loads(listed.data)["erasures"]
        assert [(one["id"], one["state"]) for one in found] == [(str(erasure_id), state)]
