"""Two ledgers of one origin and key, as when a copy is restored and both go on: the witness cosigns one of them, and
who audits from outside finds the other out, with evidence; across restarts of all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.config import Settings
from api.wiring import open_service
from keyvault.signatures import verify_ed25519
from ledger.domain.events import OPERATOR
from ledger.domain.notes import VerifierKey, parse_note
from ledger.domain.witness_policy import parse_policy, require_quorum
from ledger.services.appending.append import append_events
from ledger.services.ledgers import create_ledger
from ledger.services.proving.publishing import log_key, publish
from tests.support.metrics import scrape
from tests.support.server import ServedLedger
from tests.support.service import event
from tests.support.witness import WitnessProcess, run_program
from tests.support.worker import WorkerProcess, eventually

NAME = "hospital"
PATH = f"/v1/ledgers/{NAME}"


@dataclass
class World:
    """A ledger that waits for its witness, and an auditor who has seen it at two events."""

    server: ServedLedger
    copy: ServedLedger
    witness: WitnessProcess
    policy: Path
    kept: Path
    key: VerifierKey

    def append(self, server: ServedLedger, count: int, ward: str) -> None:
        """Record something, which is another thing for another ward."""
        events = [{"stream": f"ward-{ward}", "type": "Noted", "nonpersonal": {"ward": ward}} for _ in range(count)]
        assert server.client.post(f"{PATH}/events", {"events": events}).status == 201

    def checkpoint(self, server: ServedLedger) -> str:
        """What it publishes."""
        answer = server.client.get(f"{PATH}/checkpoint")
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def audit(self, server: ServedLedger, *more: str) -> tuple[int, str]:
        """Exit status, and what is said."""
        url = f"http://127.0.0.1:{server.port}{PATH}"
        key_file = str(server.home / "admin-key")
        arguments = ("--key", self.key.text, "--ledger-state", str(self.kept), "--api-key-file", key_file)
        done = run_program("audit", url, *arguments, *more, check=False)
        return done.returncode, done.stdout + done.stderr


def size_of(note: str) -> int:
    """Of a checkpoint."""
    return int(note.split("\n")[1])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The ledger has three events, and there is a copy of it from when it had two."""
    with WitnessProcess() as witness:
        policy = tmp_path / "policy"
        policy.write_text(f"witness first {witness.verifier_key} {witness.url}\nquorum first\n")
        settings = {"AUDIT_LEDGER_WITNESSES": str(policy), "AUDIT_LEDGER_WITNESSES_AWAY": "stop"}
        server, copy = ServedLedger(settings), ServedLedger({**settings, "AUDIT_LEDGER_WITNESSES_AWAY": "warn"})
        try:
            server.run("init")
            key = _begin(server, witness)
            shutil.copytree(server.home, copy.home)
            server.start()
            world = World(server, copy, witness, policy, tmp_path / "kept", key)
            world.append(server, 1, "B")
            eventually(lambda: size_of(world.checkpoint(server)) == 3)
            yield world
        finally:
            server.remove()
            copy.remove()


def _begin(server: ServedLedger, witness: WitnessProcess) -> VerifierKey:
    """The ledger with two events, which the witness has cosigned. Gives its key."""
    service = open_service(Settings.from_environment(server.environment))
    try:
        ledger_id = create_ledger(service.deps, NAME).ledger_id
        key = log_key(service.deps, ledger_id)
        witness.trust(key)
        append_events(service.deps, ledger_id, [event("ward-A"), event("ward-A")], OPERATOR)
        assert publish(service.deps, ledger_id).size == 2
        return key
    finally:
        service.close()


def test_what_is_published_is_cosigned_and_audited(world: World) -> None:
    """By the real witness, before anybody sees it; leaves and all; and again after everything was restarted.

    While the witness is away appends go on, the last checkpoint stays, and whoever looks is told what waits.
    """
    policy = parse_policy(world.policy.read_bytes())
    require_quorum(policy, parse_note(world.checkpoint(world.server)), verify_ed25519)
    status, said = world.audit(world.server, "--policy", str(world.policy), "--entries")
    assert (status, "size 3" in said) == (0, True), said
    world.witness.stop()
    world.witness.start()
    world.server.restart()
    world.append(world.server, 2, "C")
    eventually(lambda: size_of(world.checkpoint(world.server)) == 5)
    status, said = world.audit(world.server, "--policy", str(world.policy), "--entries")
    assert (status, "size 5 (before: 3)" in said) == (0, True), said
    world.witness.kill()
    world.append(world.server, 1, "C")

    def told() -> Any:
        assert size_of(world.checkpoint(world.server)) == 5
        ready = world.server.client.get("/readyz")
        assert ready.status == 200
        return ready.json()["dependencies"]["witnesses"]

    eventually(lambda: told() == "publishing waits for their quorum")
    assert scrape(world.server.client, "audit_ledger_witness_quorum") == 1.0
    world.witness.start()
    eventually(lambda: size_of(world.checkpoint(world.server)) == 6)
    assert scrape(world.server.client, "audit_ledger_witness_cosigned_size", witness="first") == 6.0


def test_the_second_history_is_refused_and_found_out(world: World) -> None:
    """The copy goes on from two events to another third: no cosignature, an alarm with evidence, and the auditor who
    knows the other one says fork. Restarts change nothing of it.

    Where the witness is required, the copy shows nothing that it has not cosigned.
    """
    assert world.audit(world.server)[0] == 0
    before = shutil.copytree(world.kept, world.kept.with_name("before"))
    true = world.checkpoint(world.server)
    world.server.stop()
    world.copy.start()
    status, said = world.audit(world.copy)
    assert (status, said.startswith("Error: rollback")) == (1, True), said
    world.append(world.copy, 1, "X")
    with WorkerProcess(world.copy) as worker:
        eventually(lambda: worker.told("integrity-alarm") == 1)
        (line,) = [one for one in worker.log_lines() if one["event"] == "witness-does-not-cosign"]
        assert (line["outcome"], line["witness"]) == ("other-history", "first")
    false = world.checkpoint(world.copy)
    assert size_of(false) == 3
    assert world.witness.key_name not in false
    (evidence,) = (world.copy.home / "evidence").glob("*.txt")
    assert false in evidence.read_text()
    (seen,) = (world.witness.folder / "evidence").iterdir()
    assert false in seen.read_text()
    assert scrape(world.copy.client, "audit_ledger_witness_quorum") == 0.0
    for _ in range(2):
        status, said = world.audit(world.copy)
        assert (status, said.startswith("Error: fork")) == (1, True), said
    kept = {path.name.split("-")[0]: path.read_text() for path in (world.kept / "evidence").iterdir()}
    assert set(kept) == {"rollback", "fork"}
    assert parse_note(true).text in kept["fork"]
    assert false in kept["fork"]
    world.append(world.copy, 1, "X")
    eventually(lambda: size_of(world.checkpoint(world.copy)) == 4)
    assert world.audit(world.copy)[1].startswith("Error: fork: the log has signed two different trees of 3 events")
    # Who has not seen the one of three events finds it by the one of four.
    shutil.rmtree(world.kept)
    before.rename(world.kept)
    status, said = world.audit(world.copy)
    assert (status, said.startswith("Error: fork: the tree of 4 events does not begin with the 3")) == (1, True), said
    world.copy.environment["AUDIT_LEDGER_WITNESSES_AWAY"] = "stop"
    world.copy.restart()
    world.append(world.copy, 2, "X")
    assert size_of(world.checkpoint(world.copy)) == 4
    event_id = world.copy.client.get(f"{PATH}/events?after=4").json()["events"][0]["id"]
    proof = world.copy.client.get(f"{PATH}/events/{event_id}/proof")
    assert (proof.status, proof.code) == (503, "not-ready")
    assert world.copy.client.get(PATH).json()["size"] == 6
