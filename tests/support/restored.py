"""An installation with two moments, of which any place can be put back to the first; served in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import cli
from api.app import create_app
from api.guard import Guard
from api.wiring import Service
from tests.support.restoring import PLACES, Installation, Place

ERASED, RESTRICTED, LIVING, NEW = "patient:ann", "patient:tim", "patient:eve", "patient:joe"


@dataclass(frozen=True, slots=True)
class Served:
    """A process of the service, as far as a test needs one."""

    service: Service
    guard: Guard
    client: FlaskClient
    headers: dict[str, str]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON."""
        answer = self.client.get(path, headers=self.headers)
        return answer.status_code, json.loads(answer.data)

    def post(self, rest: str, body: object, *, path: str = "/v1/ledgers/town/") -> tuple[int, Any]:
        """Status and JSON, of an endpoint of the ledger."""
        answer = self.client.post(path + rest, headers=self.headers, json=body)
        return answer.status_code, json.loads(answer.data)

    def visit(self, who: str) -> tuple[int, Any]:
        """Something is recorded of a person."""
        stream = who.replace(":", "-")
        return self.post("events", {"stream": stream, "type": "Visit", "subject": who, "data": {"of": who}})

    def readable(self) -> set[str]:
        """Of whom anything can be read."""
        status, page = self.post("query", {"type": ["Visit"]})
        assert status == 200, page
        return {event["data"]["of"] for event in page["events"] if event["data"] is not None}

    def hidden(self) -> dict[str, str]:
        """Why the first thing that was recorded of a person cannot be read."""
        _, page = self.post("query", {"type": ["Visit"]})
        first = zip((ERASED, RESTRICTED, LIVING, NEW), page["events"], strict=False)
        return {who: event["redactions"][0]["reason"] for who, event in first if event["redactions"]}

    def reconciled(self) -> list[dict[str, Any]]:
        """What the ledger says of restored backups."""
        _, page = self.post("query", {"type": ["VaultReconciled"]})
        return [event["nonpersonal"] for event in page["events"]]


@dataclass(slots=True)
class Town:
    """``old``: before one was erased, one restricted, one recorded for the first time, and an epoch destroyed; ``new``:
    after all of that. Kept elsewhere: ``size``, of the ledger, and ``receipt``, of the erasure."""

    installation: Installation
    size: int = 0
    receipt: dict[str, Any] = field(default_factory=dict)

    def live(self) -> None:
        """Up to the second moment."""
        with self.served() as served:
            assert served.post("", {"name": "town"}, path="/v1/ledgers")[0] == 201
            for who in (ERASED, RESTRICTED, LIVING):
                assert served.visit(who)[0] == 201
            served.service.vault.epochs.rotate()
            served.service.vault.epochs.note_backup(served.service.deps.clock(), "made")
        self.installation.keep("old")
        with self.served() as served:
            assert served.visit(NEW)[0] == 201
            self.receipt = served.post("erasures", {"subject": ERASED})[1]["receipt"]
            assert served.post("subjects/restrict", {"subject": RESTRICTED})[0] == 200
            served.service.vault.epochs.destroy(1)
            self.size = served.get("/v1/ledgers/town")[1]["size"]
        self.installation.keep("new")

    @property
    def environment(self) -> dict[str, str]:
        """The settings of all its processes."""
        return self.installation.served.environment

    def put_back(self, *old: Place) -> None:
        """All as at the second moment, but for these places, while nothing runs."""
        self.installation.put_back("new", *(place for place in PLACES if place not in old))
        self.installation.put_back("old", *old)

    @contextmanager
    def served(self) -> Iterator[Served]:
        """A process, from its start to its end in good order."""
        with self.installation.service() as service:
            guard = Guard(service)
            guard.start()
            key = (self.installation.served.home / "admin-key").read_text().strip()
            client = create_app(service, guard=guard).test_client()
            yield Served(service, guard, client, {"Authorization": f"Bearer {key}"})
            guard.finish()

    def command(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
        """Run a command in this process; exit status, and all that it says."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["audit-ledger", *arguments])
            patch.setattr(sys, "stdin", io.StringIO())
            # Logging is the process's own, and this process is the tests'.
            patch.setattr("api.commands.session.configure_logs", lambda _: None)
            status: Any = 0
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code or 0
        printed, complained = capsys.readouterr()
        return status, printed + complained

    def write_receipt(self, folder: Path) -> None:
        """Keep the receipt elsewhere."""
        (folder / "receipt.json").write_text(json.dumps(self.receipt))
