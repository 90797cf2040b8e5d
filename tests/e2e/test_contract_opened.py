"""Answers with proofs, as a client gets them, and the regulator's export, checked by somebody who has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ledger.services.ledgers import find_ledger
from ledger.services.proving.publishing import log_key
from tests.e2e.cli_support import PROGRAM, ROOT, Cli, event, ndjson
from tests.e2e.conftest import Tenant
from tests.support.cli import run_here

VISITS = [
    {"stream": "patient-A", "type": "CRP", "subject": "patient:A", "data": {"crp": 7}, "actor": "group:L"},
    {"stream": "patient-B", "type": "CRP", "subject": "patient:B", "data": {"crp": 9}, "nonpersonal": {"ward": 1}},
]


def offline(file: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Check a file where there is neither a home nor a setting."""
    return run_here("opened", "verify", str(file), "--key", key, environment=_nothing(), folder=file.parent)


def offline_apart(file: Path, key: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    command = [*PROGRAM, "opened", "verify", str(file), "--key", key]
    environment = {**_nothing(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, timeout=60)


def _nothing() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AUDIT_LEDGER_", "HOME"))}


def verifier_key(cli: Cli, name: str) -> str:
    """The key of a ledger, as the API shows it."""
    service = cli.open()
    try:
        return log_key(service.deps, find_ledger(service.deps, name).ledger_id).text
    finally:
        service.close()


def test_every_form_of_an_opened_answer_verifies_offline(tenant: Tenant, tmp_path: Path) -> None:
    """A page, a stream and a single event, as they came over HTTP."""
    tenant.client.post(f"{tenant.path}/events", {"events": VISITS})
    key = tenant.client.get(tenant.path).json()["verifier_key"]
    page = tenant.client.post(f"{tenant.path}/query", {"proof": "opened"})
    stream = tenant.client.post(f"{tenant.path}/query", {"proof": "opened"}, {"Accept": "application/x-ndjson"})
    identifier = page.json()["events"][0]["id"]
    single = tenant.client.get(f"{tenant.path}/events/{identifier}?proof=opened")
    assert {answer.status for answer in (page, stream, single)} == {200}
    assert {answer.headers["cache-control"] for answer in (page, stream, single)} == {"no-store"}
    file = tmp_path / "answer"
    for count, answer in ((2, page), (2, stream), (1, single)):
        file.write_bytes(answer.body)
        result = offline(file, key)
        assert (result.returncode, result.stderr) == (0, "")
        assert f"{count} events shown, and all of them are what was recorded" in result.stdout
    assert list(tmp_path.iterdir()) == [file]


def test_proofs_of_places_have_one_checkpoint_beside_them(tenant: Tenant) -> None:
    """In a page beside the events, in a stream in the first line, with a single event among its members."""
    tenant.client.post(f"{tenant.path}/events", {"events": VISITS})
    page = tenant.client.post(f"{tenant.path}/query", {"proof": True}).json()
    first, *events, end = tenant.client.post(
        f"{tenant.path}/query", {"proof": True}, {"Accept": "application/x-ndjson"}
    ).lines()
    single = tenant.client.get(f"{tenant.path}/events/{events[0]['id']}?proof=true").json()
    assert (list(first), end) == (["checkpoint"], {"end": True, "count": 2})
    assert page["events"] == events
    assert single == {**events[0], "checkpoint": single["checkpoint"]}
    assert [list(event["proof"]) for event in events] == [["index", "hashes"]] * 2
    assert page["checkpoint"].splitlines()[:2] == [f"localhost/{tenant.name}", "2"]
    plain = tenant.client.post(f"{tenant.path}/query", {}).json()
    assert [{**event, "proof": None} for event in events] == [{**event, "proof": None} for event in plain["events"]]
    assert plain.keys() == {"as_of", "next", "events"}


def test_a_cursor_is_of_the_question_and_not_of_its_proof(tenant: Tenant) -> None:
    """The next page can be asked for with or without proofs."""
    tenant.client.post(f"{tenant.path}/events", {"events": VISITS})
    cursor = tenant.client.post(f"{tenant.path}/query", {"limit": 1}).json()["next"]
    proven = tenant.client.post(f"{tenant.path}/query", {"cursor": cursor, "proof": "opened"}).json()
    assert [event["proof"]["index"] for event in proven["events"]] == [1]


@pytest.mark.parametrize("word", ["1", "True", "", "closed"])
def test_another_word_than_the_contracts_is_refused(embedded_tenant: Tenant, word: str) -> None:
    """In the URL too."""
    path = f"{embedded_tenant.path}/events/0193a5e0-7c00-7000-8000-000000000e00"
    answer = embedded_tenant.client.get(f"{path}?proof={word}")
    assert (answer.status, answer.code) == (422, "invalid")


def test_the_regulators_export_is_one_file_with_one_checkpoint(tmp_path: Path) -> None:
    """``query --proof opened`` writes it; somebody with nothing but the key checks it, and whoever altered it is found
    out with the place."""
    cli = Cli(tmp_path / "home")
    cli.must("init")
    cli.must("import", "-", "--source", "s", "--ledger", "er", "--create", text=ndjson([event(), event("patient-B")]))
    key = verifier_key(cli, "er")
    exported = cli.must("query", "--ledger", "er", "--proof", "opened")
    file = tmp_path / "export.ndjson"
    file.write_text(exported)
    assert offline_apart(file, key).returncode == 0
    limited = cli.lines("query", "--ledger", "er", "--proof", "true", "--limit", "1")
    assert [next(iter(line)) for line in limited] == ["checkpoint", "position", "end"]

    lines = [json.loads(line) for line in exported.splitlines()]
    lines[2]["data"]["crp"] = 8
    file.write_bytes(ndjson(lines))
    result = offline_apart(file, key)
    assert (result.returncode, result.stdout) == (1, "event 2 (position 1): its data is not what was recorded\n")
    assert "1 of 2 events" in result.stderr
    file.write_bytes(ndjson(lines[:-1]))
    assert "broke off" in offline(file, key).stderr
    assert offline(file, "localhost/er+00000000+AAAA").returncode == 2
