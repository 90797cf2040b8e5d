"""Where more is sent than can be recorded, some are told to come again, and nobody is kept waiting for long."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

from api.context import LIMITS
from api.turns import Turns
from ledger.services.ledgers import create_ledger
from tests.support.in_process import client_of, service_at

EVENT = {"stream": "ward-1", "type": "Opened", "nonpersonal": {"beds": 4}}


def test_more_appends_than_are_taken_on_get_429_and_nothing_is_recorded(tmp_path: Path) -> None:
    """With the time after which to come again; then it is recorded, once."""
    with service_at(tmp_path / "home") as service:
        ledger_id = create_ledger(service.deps, "test").ledger_id
        client, headers = client_of(service)
        limits: Any = client.application.extensions[LIMITS]
        limits.appending = Turns(1, 1)
        assert limits.appending.take(None)
        refused = client.post("/v1/ledgers/test/events", json=EVENT, headers=headers)
        assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert refused.get_json()["type"].endswith(":slow-down")
        assert int(refused.headers["Retry-After"]) >= 1
        assert service.deps.store.head(ledger_id).size == 0
        limits.appending.give(None)
        for _ in range(3):
            # What an append took, it has given back.
            assert client.post("/v1/ledgers/test/events", json=EVENT, headers=headers).status_code == HTTPStatus.CREATED
        assert service.deps.store.head(ledger_id).size == 3
