"""Asking and erasing from the command line: the same use cases, the same answers as over HTTP."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli_support import Cli, event, ndjson

EVENTS = [
    event(event_type="Registration", occurred_at="2014-10-22T11:15:41Z", actor="group:L", data={"age": 85}),
    event("patient-B", occurred_at="2014-10-20T00:00:00Z", parts=[{"subject": "patient:A", "data": {"contact": 1}}]),
    event(occurred_at="2014-10-21T08:00:00Z", actor="group:B", nonpersonal={"ward": "ER"}),
    event(event_type="Billed", occurred_at="2014-10-25T08:00:00Z", purpose="billing", data={"iban": "made up"}),
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


def positions(cli: Cli, *arguments: str, text: str = "") -> list[int]:
    """Where the events lie that a query finds, in its order."""
    return [found["position"] for found in cli.lines("query", "--ledger", "er", *arguments, text=text)]


def test_every_filter_finds_what_it_says(cli: Cli) -> None:
    """Each option is the field of the same name of the HTTP query; together they narrow."""
    recorded_at = [found["recorded_at"] for found in cli.lines("query", "--ledger", "er")]
    for arguments, expected in (
        ((), [0, 1, 2, 3, 4]),
        (("--stream", "patient-A"), [0, 2, 3]),
        (("--subject", "patient:A"), [0, 2, 3]),
        (("--involving", "patient:A"), [0, 1, 2, 3]),
        (("--actor", "group:L"), [0]),
        (("--category", "ward"), [4]),
        (("--type", "CRP"), [1, 2]),
        (("--type", "Registration", "--type", "Billed"), [0, 3]),
        (("--as-of", "1"), [0, 1]),
        (("--as-of", recorded_at[-1]), [0, 1, 2, 3, 4]),
        (("--as-of", "2001-01-01T00:00:00Z"), []),
        (("--recorded-from", "2001-01-01T00:00:00Z", "--limit", "2"), [0, 1]),
        (("--recorded-to", "2001-01-01T00:00:00Z"), []),
        (("--occurred-from", "2014-10-21T08:00:00Z", "--occurred-to", "2014-10-25T08:00:00Z"), [0, 2]),
        (("--order-by", "occurred", "--category", "patient"), [1, 2, 0, 3]),
        (("--order", "desc", "--limit", "3"), [4, 3, 2]),
        (("--subject", "patient:A", "--type", "CRP", "--as-of", "2"), [2]),
        (("--subject", "patient:nobody"), []),
    ):
        assert positions(cli, *arguments) == expected, arguments


def test_who_stops_reading_gets_no_noise(cli: Cli) -> None:
    """``audit-ledger query … | head -n 1`` ends quietly."""
    cli.must("import", "-", "--source", "many", "--ledger", "er", text=ndjson([event()] * 2000))
    running = cli.start("query", "--ledger", "er", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stderr is not None
    assert json.loads(running.stdout.readline())["position"] == 0
    running.stdout.close()
    assert running.stderr.read() == b""
    running.stderr.close()
    running.wait(60)


def test_names_can_come_from_standard_input_and_people_can_be_asked_for_by_ref(cli: Cli) -> None:
    """So no name needs to stand in a shell's history or a list of processes."""
    assert positions(cli, "--subject", "@-", text="patient:A\n") == [0, 2, 3]
    ref = cli.lines("query", "--ledger", "er", "--limit", "1")[0]["subject_ref"]
    assert positions(cli, "--subject-ref", ref) == [0, 2, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--subject", "patient:A", "--subject-ref", "sub_" + "0" * 32),
        ("--subject", "@-", "--actor", "@-"),
        ("--subject-ref", "str_" + "0" * 32),
        ("--subject", " canary"),
        ("--as-of", "yesterday"),
        ("--occurred-from", "2014-10-22"),
        ("--order", "sideways"),
        ("--limit", "0"),
    ],
)
def test_a_query_that_cannot_be_meant_is_a_usage_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Exit status 2, nothing on stdout, and no name is repeated."""
    result = cli.run("query", "--ledger", "er", *arguments, text="canary\ncanary\n")
    assert (result.returncode, result.stdout) == (2, "")
    assert "canary" not in result.stderr


def test_the_future_is_an_error_and_not_an_answer(cli: Cli) -> None:
    """Exit status 1: what was asked does not hold yet."""
    result = cli.run("query", "--ledger", "er", "--as-of", "2999-01-01T00:00:00Z")
    assert (result.returncode, result.stdout) == (1, "")
    assert "future" in result.stderr


def test_an_erasure_redacts_the_same_question_and_changes_no_leaf(cli: Cli) -> None:
    """I6, I7: the same events, the same leaves, no data of the person; other people's parts stay."""
    leaves = leaf_hashes(cli)
    outcome = erase(cli, "patient:A", "--reference", "case 2026-114", "--ground", "17(1)(b)")
    assert (outcome["state"], outcome["reference"], outcome["events"]) == ("erased", "case 2026-114", 4)
    found = cli.lines("query", "--ledger", "er", "--involving", "patient:A")
    assert [item["position"] for item in found] == [0, 1, 2, 3]
    assert [item["data"] for item in found] == [None, {"crp": 7}, None, None]
    assert {redaction["reason"] for item in found for redaction in item["redactions"]} == {"erased"}
    assert found[2]["nonpersonal"] == {"ward": "ER"}
    assert leaf_hashes(cli)[: len(leaves)] == leaves
    cli.must("verify", "--ledger", "er")


def test_the_receipt_comes_with_the_salt_that_opens_its_name_commitment(cli: Cli) -> None:
    """Whoever keeps name and salt can show whose receipt it is."""
    outcome = erase(cli, "patient:A")
    commitment = base64.b64decode(outcome["receipt"]["payload"]["name_commitment"])
    assert sha256(base64.b64decode(outcome["name_salt"]) + b"patient:A").digest() == commitment


def test_one_purpose_can_be_erased_alone_and_twice_is_once(cli: Cli) -> None:
    """Other purposes stay readable; asking again gives the first erasure, without the salt."""
    outcome = erase(cli, "patient:A", "--purpose", "billing")
    assert [found["data"] for found in cli.lines("query", "--ledger", "er", "--stream", "patient-A")] == [
        {"age": 85},
        {"crp": 7},
        None,
    ]
    again = erase(cli, "patient:A", "--purpose", "billing")
    assert (again["id"], again["name_salt"]) == (outcome["id"], None)


def test_an_unknown_name_is_refused_or_blocked(cli: Cli) -> None:
    """An error without the name; with --block-unknown a late writer of it is refused."""
    result = cli.run("erase", "--ledger", "er", "--yes", "patient:canary")
    assert result.returncode == 1
    assert "canary" not in result.stderr
    erase(cli, "patient:canary", "--block-unknown")
    late = cli.run("import", "-", "--source", "late", "--ledger", "er", text=ndjson([event("patient-canary")]))
    assert late.returncode == 1
    assert "canary" not in late.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("patient:A",),
        ("--yes",),
        ("patient:A", "--yes", "--purpose", "a b"),
        ("patient:A", "--yes", "--reference", "ä"),
    ],
)
def test_nobody_is_erased_by_half_a_command(cli: Cli, arguments: tuple[str, ...]) -> None:
    """No subject, no confirmation, a purpose or reference that cannot be: exit status 2 and no erasure."""
    assert cli.run("erase", "--ledger", "er", *arguments).returncode == 2
    assert cli.lines("ledgers", "list")[0]["size"] == len(EVENTS)


def test_the_help_of_every_option_with_a_name_says_where_names_end_up(cli: Cli) -> None:
    """I5: shells keep what is typed and every user sees the arguments of processes; the help says so."""
    for command in ("query", "erase"):
        shown = " ".join(cli.must(command, "--help").split())
        assert "kept in the shell's history" in shown
        assert "@-" in shown


def erase(cli: Cli, name: str, *arguments: str) -> dict[str, Any]:
    """An erasure that has to succeed, with the name on standard input."""
    outcome: dict[str, Any] = json.loads(cli.must("erase", "--ledger", "er", "--yes", "@-", *arguments, text=name))
    return outcome


def leaf_hashes(cli: Cli) -> list[bytes]:
    """The stored leaf hashes in order."""
    database = sqlite3.connect(cli.home / "ledger.db")
    hashes = [row[0] for row in database.execute("SELECT leaf_hash FROM events ORDER BY position")]
    database.close()
    return hashes
