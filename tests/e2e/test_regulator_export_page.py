"""The page on handing events to a regulator: its commands are run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.e2e.cli_support import ROOT, Cli, event, ndjson

PAGE = ROOT / "docs" / "how-to" / "regulator-export.md"


def test_the_pages_commands_lead_to_a_file_that_verifies(tmp_path: Path) -> None:
    """List the keys, export one person's events, check the file: each is a command of the page."""
    commands = re.findall(r"^ {4,}((?:echo|audit-ledger) .*)$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    listing, export, check = commands
    cli = Cli(tmp_path / "home")
    cli.must("init")
    cli.must("import", "-", "--source", "s", "--ledger", "hospital", "--create", text=ndjson([event()] * 3))
    (ledger,) = cli.lines(*shlex.split(listing)[1:])

    asked, file = export.removeprefix("echo patient:A | audit-ledger ").split(" > ")
    (tmp_path / file).write_text(cli.must(*shlex.split(asked), text="patient:A\n"))

    words = shlex.split(check)[1:]
    placed = [str(tmp_path / word) if word == file else word for word in words[:-1]]
    assert words[-1].startswith("ledger.example/hospital+")
    assert "3 events shown, and all of them are what was recorded" in cli.must(*placed, ledger["verifier_key"])
