"""Importing files: every line once and in order, however often and however badly it was interrupted."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.cli_support import PROGRAM, ROOT, SEPSIS, Cli, event, ndjson

SEPSIS_EVENTS = 15_214
MAPS = (
    "--map", "stream=patient-{case}", "--map", "subject=patient:{case}", "--map", "type={activity}",
    "--map", "occurred_at={time}Z", "--map", "actor=group:{group}", "--map", "nonpersonal.ward={ward}",
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A home after ``init``, to be copied."""
    made = Cli(tmp_path_factory.mktemp("prepared") / "home")
    made.must("init")
    return made


@pytest.fixture
def cli(tmp_path: Path, prepared: Cli) -> Cli:
    """A home after ``init``."""
    return prepared.copied(tmp_path / "home")


def counts(printed: str) -> dict[str, int]:
    """The numbers at the end of an import."""
    return {
        name: int(number) for name, number in re.findall(r"^(recorded|duplicates|refused|size) (\d+)$", printed, re.M)
    }


def test_a_killed_import_goes_on_where_it_stopped(cli: Cli) -> None:
    """I4, I11: kill -9 in the middle, the same command again, and each of the 15,214 events is there once, in order."""
    command = ("import", str(SEPSIS), "--ledger", "hospital", "--create")
    running = cli.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    service = cli.open()
    deadline = time.monotonic() + 60
    size = 0
    while not 0 < size < SEPSIS_EVENTS:
        assert time.monotonic() < deadline
        assert running.poll() is None, "the import was over before it could be killed"
        time.sleep(0.02)
        ledger = service.store.ledger("hospital")
        size = service.store.head(ledger.ledger_id).size if ledger is not None else 0
    running.send_signal(signal.SIGKILL)
    running.wait()
    ledger = service.store.ledger("hospital")
    assert ledger is not None
    before = service.store.head(ledger.ledger_id).size
    service.close()
    done = counts(cli.must(*command))
    assert done == {"recorded": SEPSIS_EVENTS - before, "duplicates": before, "refused": 0, "size": SEPSIS_EVENTS}
    cli.must("verify", "--ledger", "hospital")
    recorded = cli.lines("query", "--ledger", "hospital")
    with SEPSIS.open() as lines:
        sent = [json.loads(line) for line in lines]
    assert [(found["stream"], found["type"], found["data"]) for found in recorded] == [
        (line["stream"], line["type"], line["data"]) for line in sent
    ]


def test_an_import_that_is_stopped_by_hand_says_how_to_go_on(cli: Cli) -> None:
    """Ctrl-C ends in one line, exit status 1; what was recorded stands."""
    command = ("import", str(SEPSIS), "--ledger", "hospital", "--create")
    running = cli.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    service = cli.open()
    deadline = time.monotonic() + 60
    while (ledger := service.store.ledger("hospital")) is None or not service.store.head(ledger.ledger_id).size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert errors.decode().startswith("Error: stopped after ")
    assert errors.count(b"\n") == 1
    assert service.store.head(ledger.ledger_id).size < SEPSIS_EVENTS
    service.close()


def test_the_root_that_is_printed_is_the_one_that_verify_finds(cli: Cli) -> None:
    """Size and root at the end of an import are the ledger's."""
    printed = cli.must("import", "-", "--source", "s", "--ledger", "x", "--create", text=ndjson([event(), event()]))
    verified = cli.must("verify", "--ledger", "x")
    assert counts(printed) == {"recorded": 2, "duplicates": 0, "refused": 0, "size": 2}
    assert re.findall("^root .*$", printed, re.M) == re.findall("^root .*$", verified, re.M)


def test_bad_lines_are_reported_by_number_and_lose_no_good_one(cli: Cli) -> None:
    """Exit status 1, one line of complaint for each, and what they hold is never repeated (I5)."""
    lines = [
        ndjson([event()]),
        b'{"stream": "canary\n',
        b"\n",
        ndjson([event(event_type="canary value")]),
        ndjson([event(canary="canary")]),
        ndjson([event(subject="patient:A\u0000canary")]),
        b'{"canary": "' + b"canary" * 200_000 + b'"}\n',
        b"\xff canary\n",
        ndjson([event("patient-B")]),
    ]
    result = cli.run("import", "-", "--source", "s", "--ledger", "x", "--create", text=b"".join(lines))
    assert result.returncode == 1
    assert counts(result.stdout) == {"recorded": 2, "duplicates": 0, "refused": 6, "size": 2}
    complaints = result.stderr.splitlines()
    assert [line.split(":")[0] for line in complaints[:-1]] == [f"line {number}" for number in (2, 4, 5, 6, 7, 8)]
    assert complaints[1].startswith("line 4: /type must be")
    assert complaints[-1].startswith("Error: 6 lines were refused")
    assert "canary" not in result.stdout + result.stderr


def test_mending_the_bad_lines_and_importing_again_adds_only_those(cli: Cli) -> None:
    """I4: a refused line used up nothing; its number is free for what it should have been."""
    command = ("import", "-", "--source", "s", "--ledger", "x", "--create")
    cli.run(*command, text=ndjson([event(), event(event_type="not a type"), event()]))
    printed = cli.must(*command, text=ndjson([event(), event(event_type="Mended"), event()]))
    assert counts(printed) == {"recorded": 1, "duplicates": 2, "refused": 0, "size": 3}


def test_the_same_name_is_the_same_file(cli: Cli, tmp_path: Path) -> None:
    """Another content under the same name is reported, not recorded; under a name of its own it is new."""
    (tmp_path / "day.ndjson").write_bytes(ndjson([event()]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "day.ndjson").write_bytes(ndjson([event("patient-B")]))
    cli.must("import", str(tmp_path / "day.ndjson"), "--ledger", "x", "--create")
    clash = cli.run("import", str(tmp_path / "other" / "day.ndjson"), "--ledger", "x")
    assert clash.returncode == 1
    assert "line 1: /id is recorded with other content" in clash.stderr
    cli.must("import", str(tmp_path / "other" / "day.ndjson"), "--ledger", "x", "--source", "day two")
    assert cli.lines("ledgers", "list")[0]["size"] == 2


def test_ids_cannot_be_guessed_from_file_and_line(cli: Cli) -> None:
    """The same file in two ledgers gives other ids: they are made with a key of the ledger's own."""
    for ledger in ("one", "two"):
        cli.must("import", "-", "--source", "s", "--ledger", ledger, "--create", text=ndjson([event()]))
    ids = {cli.lines("query", "--ledger", ledger)[0]["id"] for ledger in ("one", "two")}
    assert len(ids) == 2


def test_events_with_ids_of_their_own_keep_them(cli: Cli) -> None:
    """Whoever gives ids is understood."""
    given = "0193e2a0-0000-7000-8000-000000000001"
    cli.must("import", "-", "--source", "s", "--ledger", "x", "--create", text=ndjson([event(id=given)]))
    assert cli.lines("query", "--ledger", "x")[0]["id"] == given


def test_a_missing_ledger_is_made_only_when_asked(cli: Cli) -> None:
    """The complaint holds the command that makes it."""
    result = cli.run("import", str(SEPSIS), "--ledger", "hospital")
    assert result.returncode == 1
    assert "audit-ledger ledgers create hospital" in result.stderr
    assert cli.lines("ledgers", "list") == []


def test_lines_of_an_erased_subject_are_refused_and_earlier_ones_stay_recorded(cli: Cli) -> None:
    """I8: importing the file again after an erasure brings nobody back and changes nothing."""
    command = ("import", "-", "--source", "s", "--ledger", "x", "--create")
    cli.must(*command, text=ndjson([event(), event("patient-B")]))
    cli.must("erase", "--ledger", "x", "--yes", "patient:A")
    result = cli.run(*command, text=ndjson([event(), event("patient-B"), event()]))
    assert counts(result.stdout) == {"recorded": 0, "duplicates": 2, "refused": 1, "size": 3}
    assert "line 3" in result.stderr
    assert "erased" in result.stderr


def test_a_csv_is_mapped_and_its_bad_rows_are_named_by_their_lines(cli: Cli, tmp_path: Path) -> None:
    """Templates, a note over two lines, empty cells, JSON cells; the bad row is reported with its line."""
    (tmp_path / "er.csv").write_text(
        "case;activity;time;group;age;ward;note\n"
        'A;Registration;2014-10-22 11:15:41;L;85;ER;"two\nlines"\n'
        "A;not a type;2014-10-22 11:16:00;L;85;ER;\n"
        "B;CRP;2014-10-22 11:27:00;;;ER;\n"
    )
    result = cli.run(
        "import", str(tmp_path / "er.csv"), "--ledger", "x", "--create", *MAPS, "--as-json", "age", "--delimiter", ";"
    )
    assert result.returncode == 1
    assert result.stderr.startswith("line 4: /type must be")
    first, second = cli.lines("query", "--ledger", "x")
    assert first["data"] == {"age": 85, "note": "two\nlines"}
    assert (first["stream"], first["subject"], first["actor"]["subject"]) == ("patient-A", "patient:A", "group:L")
    assert first["occurred_at"] == "2014-10-22T11:15:41.000000Z"
    assert first["nonpersonal"] == {"ward": "ER"}
    assert (second["data"], second["actor"]) == ({}, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-",), "--source"),
        (("rows.csv",), "--map"),
        (("rows.csv", "--map", "stream=s-{nothing}", "--map", "type=T"), "no column 'nothing'"),
        (("rows.csv", "--map", "nothing=x"), "no field nothing"),
        (("rows.csv", *MAPS, "--delimiter", ";;"), "delimiter"),
        (("missing.ndjson",), "missing.ndjson"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit status 2, what to do on stderr, and no ledger is made."""
    (tmp_path / "rows.csv").write_text("case,activity\nA,CRP\n")
    paths = [str(tmp_path / text) if text.endswith((".csv", ".ndjson")) else text for text in arguments]
    result = cli.run("import", *paths, "--ledger", "x", "--create")
    assert result.returncode == 2
    assert words in result.stderr
    assert cli.lines("ledgers", "list") == []


def test_a_terminal_sees_progress_and_a_pipe_does_not(cli: Cli, tmp_path: Path) -> None:
    """The bar is drawn by bytes of the file, on stderr only, and only for a person."""
    (tmp_path / "some.ndjson").write_bytes(ndjson([event()] * 20))
    quiet = cli.run("import", str(tmp_path / "some.ndjson"), "--ledger", "x", "--create")
    assert quiet.stderr == ""
    master, slave = pty.openpty()
    command = [*PROGRAM, "import", str(tmp_path / "some.ndjson"), "--ledger", "x", "--source", "again"]
    done = subprocess.run(command, cwd=ROOT, env=cli.environment, stdout=subprocess.PIPE, stderr=slave, timeout=60)
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert done.returncode == 0
    assert "100%" in shown
    assert counts(done.stdout.decode())["recorded"] == 20
