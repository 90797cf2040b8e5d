"""``receipt verify``: what the officer, or the person, does with a receipt years later, with nothing but the key."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli_support import PROGRAM, ROOT, Cli, event, ndjson
from tests.support.cli import run_here


class Officer:
    """Somebody who has a file and the key, and neither a home nor a setting."""

    def __init__(self, folder: Path, key: str, answer: dict[str, Any]) -> None:
        self.file = folder / "receipt.json"
        self.key = key
        self.answer = answer

    def verify(self, shown: Any, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Check a receipt."""
        self.file.write_text(json.dumps(shown, indent=2))
        command = ("receipt", "verify", str(self.file), "--key", self.key, *arguments)
        return run_here(*command, environment=self.environment, text=text, folder=self.file.parent)

    def verify_apart(self, shown: Any) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        self.file.write_text(json.dumps(shown, indent=2))
        return subprocess.run(
            [*PROGRAM, "receipt", "verify", str(self.file), "--key", self.key],
            cwd=self.file.parent,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of a service's."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("AUDIT_LEDGER_", "HOME"))}


@pytest.fixture(scope="module")
def officer(tmp_path_factory: pytest.TempPathFactory) -> Officer:
    """An erasure and its answer."""
    folder = tmp_path_factory.mktemp("receipts")
    cli = Cli(folder / "home")
    cli.must("init")
    cli.must("import", "-", "--source", "s", "--ledger", "er", "--create", text=ndjson([event(), event("patient-B")]))
    (ledger,) = cli.lines("ledgers", "list")
    answer = json.loads(cli.must("erase", "--ledger", "er", "@-", "--yes", text="patient:A"))
    return Officer(folder, ledger["verifier_key"], answer)


def test_a_receipt_says_what_it_proves_and_what_it_cannot(officer: Officer) -> None:
    """In plain lines; names nobody; leaves nothing behind."""
    result = officer.verify_apart(officer.answer["receipt"])
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"erasure {officer.answer['id']} of {officer.answer['subject_ref']}"
    assert "1 keys were ordered to be destroyed" in lines[1]
    assert "recorded: at position 2, in the tree of the checkpoint of localhost/er with 3 events" in lines[2]
    assert lines[-1].startswith("It cannot show that no copy of a key exists anywhere")


def test_name_and_salt_show_whose_it_is(officer: Officer) -> None:
    """The salt from the answer, or from the second line; never an argument. Another name is refused, and not said."""
    whose = officer.verify(officer.answer, "--whose", text="patient:A\n")
    assert (whose.returncode, "whose: it commits to that name" in whose.stdout) == (0, True)
    salt = officer.answer["name_salt"]
    assert officer.verify(officer.answer["receipt"], "--whose", text=f"patient:A\n{salt}\n").returncode == 0
    wrong = officer.verify(officer.answer, "--whose", text="patient:B\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "not the receipt of that name" in wrong.stderr
    assert "patient" not in wrong.stderr
    assert "not base64" in officer.verify(officer.answer["receipt"], "--whose", text="patient:A\n!\n").stderr
    for text in ("patient:A\n", "\n", " x \n"):
        assert officer.verify(officer.answer["receipt"], "--whose", text=text).returncode == 2


def test_an_altered_receipt_is_refused(officer: Officer) -> None:
    """Exit status 1, one line, and nothing on standard output."""
    receipt = officer.answer["receipt"]
    for payload in (
        {"events": 0},
        {"erased_at": "2020-01-01T00:00:00.000000Z"},
        {"root_before": receipt["payload"]["root"]},
    ):
        result = officer.verify({**receipt, "payload": {**receipt["payload"], **payload}})
        assert (result.returncode, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
    assert officer.verify_apart([]).returncode == 1
