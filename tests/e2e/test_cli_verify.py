"""``audit-ledger verify``: what it prints, its exit status, and that it goes on from where it was."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli_support import Cli, event, ndjson

EVENTS = [
    event(event_type="Registration", occurred_at="2014-10-22T11:15:41Z", actor="group:L", data={"age": 85}),
    event("patient-B", parts=[{"subject": "patient:A", "data": {"contact": 1}}]),
    event(actor="group:B", nonpersonal={"ward": "ER"}),
    event("patient-C", event_type="Billed", purpose="billing", data={"iban": "made up"}),
    {"stream": "ward-1", "type": "Opened", "nonpersonal": {"beds": 4}},
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A home with a ledger of a few events, to be copied."""
    made = Cli(tmp_path_factory.mktemp("prepared") / "home")
    made.must("init")
    made.must("import", "-", "--source", "s", "--ledger", "er", "--create", text=ndjson(EVENTS))
    return made


@pytest.fixture
def cli(tmp_path: Path, prepared: Cli) -> Cli:
    """A home with a ledger of a few events."""
    return prepared.copied(tmp_path / "home")


def tamper(cli: Cli, statement: str) -> None:
    """Change a row as somebody with all rights would."""
    with sqlite3.connect(cli.home / "ledger.db") as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        assert database.execute(statement).rowcount >= 1
    database.close()


def as_json(cli: Cli, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The report."""
    done = cli.run("verify", "--ledger", "er", "--json", *arguments)
    assert done.returncode == status, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_it_prints_size_and_root_and_says_intact(cli: Cli) -> None:
    """In words, and as JSON with the same values."""
    text = cli.must("verify", "--ledger", "er").splitlines()
    report = as_json(cli)
    assert text == [f"size {len(EVENTS)}", f"root {report['root']}", "events: 5 intact", "checkpoints: 0", "intact"]
    assert (report["size"], report["intact"], report["findings"]) == (len(EVENTS), True, [])
    assert len(base64.b64decode(report["root"])) == 32
    assert report["events"] == {
        "missing row": 0,
        "tampered": 0,
        "missing key": 0,
        "erased": 0,
        "restricted": 0,
        "intact": 5,
    }


def test_what_was_erased_is_counted_and_nothing_is_wrong(cli: Cli) -> None:
    """I9: erased is not broken."""
    cli.must("erase", "--ledger", "er", "--yes", "@-", text="patient:A")
    report = as_json(cli)
    assert report["intact"]
    assert (report["events"]["erased"], report["events"]["intact"]) == (3, 3)


@pytest.mark.parametrize(
    ("statement", "position", "verdict"),
    [
        ("UPDATE events SET event_type = 'Harmless' WHERE position = 2", 2, "tampered"),
        ("UPDATE events SET recorded_at = recorded_at - 1 WHERE position = 1", 1, "tampered"),
        ("DELETE FROM events WHERE position = 3", 3, "missing row"),
        ("UPDATE events SET sealed = CAST(x'00' || substr(sealed, 2) AS BLOB) WHERE position = 0", 0, "tampered"),
    ],
)
def test_it_names_what_somebody_changed_by_hand(cli: Cli, statement: str, position: int, verdict: str) -> None:
    """I10: exit status 1, and each wrong event on a line of its own, with its position and the verdict."""
    tamper(cli, statement)
    report = as_json(cli, status=1)
    assert not report["intact"]
    assert (position, verdict) in {(finding["position"], finding["verdict"]) for finding in report["findings"]}
    assert report["events"][verdict] == 1
    text = cli.run("verify", "--ledger", "er")
    assert text.returncode == 1
    assert any(line.startswith(f"wrong: position {position}: {verdict}: ") for line in text.stdout.splitlines())
    assert text.stdout.splitlines()[-1] == "not intact"


def test_without_opening_no_kek_is_needed(cli: Cli) -> None:
    """It says what was not checked; with opening, a missing KEK is an error and no verdict on any event."""
    (cli.home / "kek").rename(cli.home / "elsewhere")
    text = cli.must("verify", "--ledger", "er", "--no-open")
    assert "not checked: whether parts open" in text
    failed = cli.run("verify", "--ledger", "er")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "Error: " in failed.stderr


def test_it_goes_on_from_where_it_was(cli: Cli, tmp_path: Path) -> None:
    """Only what came since is read; the file is nobody else's to read."""
    state = tmp_path / "er.verified"
    assert as_json(cli, "--state", str(state))["first"] == 0
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert as_json(cli, "--state", str(state))["first"] == 5
    cli.must("import", "-", "--source", "t", "--ledger", "er", text=ndjson(EVENTS[:2]))
    report = as_json(cli, "--state", str(state))
    assert (report["first"], report["size"], report["events"]["intact"]) == (5, 7, 2)
    assert "not read again: positions 0 to 6" in cli.must("verify", "--ledger", "er", "--state", str(state))


def test_what_it_does_not_read_again_it_still_holds_to_the_head(cli: Cli, tmp_path: Path) -> None:
    """A ledger that was built anew behind an earlier run is not the one that was verified; nor is one cut off."""
    state = tmp_path / "er.verified"
    as_json(cli, "--state", str(state))
    kept = json.loads(state.read_text())
    state.write_text(json.dumps({**kept, "frontier": ["00" * 32, *kept["frontier"][1:]]}))
    report = as_json(cli, "--state", str(state), status=1)
    assert [(finding["position"], finding["last"]) for finding in report["findings"]] == [(0, 3)]
    assert "verified earlier" in report["findings"][0]["what"]
    state.write_text(json.dumps({**kept, "size": 6, "frontier": [kept["frontier"][0], "00" * 32]}))
    report = as_json(cli, "--state", str(state), status=1)
    assert (5, 5) in {(finding["position"], finding["last"]) for finding in report["findings"]}


def test_keys_of_what_is_not_read_again_are_still_compared(cli: Cli, tmp_path: Path) -> None:
    """A row of ``event_keys`` that vanishes after the earlier run is named."""
    state = tmp_path / "er.verified"
    as_json(cli, "--state", str(state))
    tamper(cli, "DELETE FROM event_keys WHERE position = 1 AND role = 3")
    report = as_json(cli, "--state", str(state), status=1)
    assert [finding["position"] for finding in report["findings"]] == [1]


def test_a_file_of_something_else_is_refused(cli: Cli, tmp_path: Path) -> None:
    """With what to do; and one of a run that opened nothing is not taken for more."""
    state = tmp_path / "er.verified"
    for text in ("", "{}", '{"format": 2}', "[]"):
        state.write_text(text)
        refused = cli.run("verify", "--ledger", "er", "--state", str(state))
        assert refused.returncode == 1
        assert "remove it to verify everything anew" in refused.stderr
    state.unlink()
    cli.must("verify", "--ledger", "er", "--no-open", "--state", str(state))
    refused = cli.run("verify", "--ledger", "er", "--state", str(state))
    assert refused.returncode == 1
    assert "has not opened the parts" in refused.stderr
    other = cli.run("ledgers", "create", "other")
    assert other.returncode == 0
    assert "of another ledger" in cli.run("verify", "--ledger", "other", "--no-open", "--state", str(state)).stderr
