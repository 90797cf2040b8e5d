"""The page for auditors: its commands are run as they stand, by somebody who has a URL, keys, and no setting at all."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.config import Settings
from api.wiring import open_service
from ledger.domain.checkpoints import parse_checkpoint, parse_tlog_proof
from ledger.domain.notes import parse_note, parse_verifier_key
from ledger.services.proving.publishing import log_name
from ledger.services.proving.witnessing import cosign
from tests.e2e.cli_support import ROOT, event
from tests.e2e.test_docs_commands import run_steps, steps_of
from tests.support.golang import check_with_go
from tests.support.server import ServedLedger
from tests.support.witness import WitnessProcess

PAGE = (ROOT / "docs" / "how-to" / "for-auditors.md").read_text(encoding="utf-8")
ORIGIN = "ledger.example.org"
POSITION = 1


@dataclass(frozen=True)
class Operator:
    """Who runs the ledger of the page: two patients, of whom one was erased, and a witness has cosigned."""

    server: ServedLedger
    policy: Path
    path: str
    verifier_key: str
    event_id: str
    answer: dict[str, Any]

    @property
    def later(self) -> str:
        """The command by which three more events are recorded, and published."""
        url = f"http://127.0.0.1:{self.server.port}{self.path}"
        sent = json.dumps({"events": [event()] * 3})
        key = f"Authorization: Bearer {self.server.client.key}"
        append = f"curl -sSf -H '{key}' -H 'Content-Type: application/json' -d '{sent}' {url}/events"
        # Once a second at most is it published for somebody who does not ask for these events.
        return f"{append} > /dev/null; sleep 1; curl -sSf -H '{key}' '{url}/consistency?from=0' > /dev/null"


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """The same, served."""
    policy = tmp_path / "operator.policy"
    with WitnessProcess("witness.example.org/first") as witness:
        policy.write_text(f"witness first {witness.verifier_key} {witness.url}\nquorum first\n")
        with ServedLedger({"AUDIT_LEDGER_ORIGIN": ORIGIN, "AUDIT_LEDGER_WITNESSES": str(policy)}) as server:
            path, client = server.make_ledger("hospital"), server.client
            public = b'{"public_checkpoints": true}'
            assert client.send("PUT", f"{path}/policy", public, {"Content-Type": "application/json"}).status == 200
            patients = [event(f"patient-{name}") for name in "ABAB"]
            events = client.post(f"{path}/events", {"events": patients}).json()["events"]
            order = {"subject": "patient:B", "ground": "17(1)(b)", "reference": "case 1"}
            answer = client.post(f"{path}/erasures", order).json()
            key = client.get(path).json()["verifier_key"]
            witness.trust(parse_verifier_key(key))
            _have_cosigned(server)
            yield Operator(server, policy, path, key, events[POSITION]["id"], answer)


def _have_cosigned(server: ServedLedger) -> None:
    """What a worker does."""
    service = open_service(Settings.from_environment(server.environment))
    try:
        (ledger,) = service.store.ledgers()
        deps = service.deps
        last = deps.transparency.latest_published(ledger.ledger_id, log_name(deps, ledger.ledger_id))
        assert last is not None
        assert len(cosign(deps, last)) == 1
    finally:
        service.close()


def test_each_question_is_answered_as_the_page_says(operator: Operator, tmp_path: Path) -> None:
    """In order, in one shell; and what the page says that any tool can check, Go's packages do."""
    desk = tmp_path / "audits"
    desk.mkdir()
    (desk / "auditor-key").write_text(operator.server.make_key("auditor", ledger="hospital") + "\n")
    (desk / "witnesses").write_text(operator.policy.read_text())
    (desk / "receipt.json").write_text(json.dumps(operator.answer["receipt"]))
    (desk / "name-and-salt").write_text(f"patient:B\n{operator.answer['name_salt']}\n")
    here = {
        "/srv/audits": str(desk),
        f"https://{ORIGIN}": f"http://127.0.0.1:{operator.server.port}",
        f"{ORIGIN}/hospital+1b2c3d4e+AT…": operator.verifier_key,
        "0198c0de-7c00-7000-8000-00000000e7e7": operator.event_id,
        "# some weeks later": operator.later,
    }
    steps = steps_of(PAGE)
    commands = "".join(step.commands for step in steps)
    assert [commands.count(theirs) for theirs in here] == [1] * len(here)
    run_steps(steps, _environment(), here, tmp_path)

    assert (desk / "auditor-header").stat().st_mode & 0o077 == 0
    assert check_with_go(_task(operator, desk)) == [3, 1, 1, 0]


def _environment() -> dict[str, str]:
    """Nothing of a service's, and the program."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
    return {**inherited, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"}


def _task(operator: Operator, desk: Path) -> dict[str, Any]:
    """The files that the auditor has now, for a program that has none of our code."""
    proof = parse_tlog_proof((desk / "event.tlog-proof").read_text())
    growth = json.loads((desk / "growth.json").read_text())
    notes = [(desk / f"{name}.checkpoint").read_text() for name in ("first", "second")] + [proof.checkpoint]
    old, new, proven = (parse_checkpoint(parse_note(note).text) for note in notes)
    return {
        "VerifierKey": operator.verifier_key,
        "Checkpoints": notes,
        "Inclusion": [
            {
                "Size": proven.size,
                "Index": POSITION,
                "Root": proven.root,
                "Leaf": proof.extra,
                "Proof": list(proof.hashes),
            }
        ],
        "Consistency": [
            {
                "Old": old.size,
                "New": new.size,
                "OldRoot": old.root,
                "NewRoot": new.root,
                "Proof": [base64.b64decode(node) for node in growth["proof"]],
            }
        ],
    }
