"""The commands of README, tutorial and guides are run as they stand, and print what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.cli_support import ROOT
from tests.support.postgres import PostgresCluster
from tests.support.server import Client, free_port

PAGES = ("README.md", "docs/tutorial/first-hour.md")
START = "scripts/start\n"
START_SECONDS = 300
PAGE_SECONDS = 300
ELLIPSIS = "…"
_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Step:
    """Commands of a page, and what the page says they print (None: it does not say)."""

    commands: str
    printed: str | None


def steps_of(page: str) -> list[Step]:
    """The blocks of a page: a ``text`` block right behind an ``sh`` block is what that prints."""
    page = re.sub(r"^```sql\n.*?^```$", "", page, flags=re.M | re.S)
    blocks = [(match["kind"], match["text"]) for match in _BLOCK.finditer(page)]
    kinds = [kind for kind, _ in blocks]
    assert set(kinds) <= {"sh", "text"}, "a block of a kind that nobody checks"
    assert ("text", "text") not in pairwise(kinds), "output of no command"
    following = [*blocks[1:], ("sh", "")]
    return [
        Step(text, after if kind_after == "text" else None)
        for (kind, text), (kind_after, after) in zip(blocks, following, strict=True)
        if kind == "sh"
    ]


@contextmanager
def started(environment: dict[str, str], log: Path) -> Iterator[None]:
    """``scripts/start`` as a user runs it, until it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen([str(ROOT / "scripts" / "start")], env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(environment["PORT"]):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(port: str) -> bool:
    try:
        return Client(int(port)).get("/readyz").status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False


def matches(printed: str, expected: str) -> bool:
    """Whether the output is what the page shows, where an ellipsis stands for anything on one line."""
    pattern = ".*".join(re.escape(piece) for piece in expected.strip().split(ELLIPSIS))
    return re.fullmatch(pattern, printed.strip()) is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    """In order, in one shell, against a fresh home on a free port; a command that fails fails the test."""
    steps = steps_of((ROOT / page).read_text())
    assert steps[0].commands == START
    environment = own_environment(tmp_path)
    here = {"127.0.0.1:8080": f"127.0.0.1:{environment['PORT']}", "var/": f"{environment['AUDIT_LEDGER_HOME']}/"}
    with started(environment, tmp_path / "start.log"):
        run_steps(steps[1:], environment, here, tmp_path)


def test_the_guide_to_postgresql_leads_to_a_service_that_cannot_change_the_past(
    tmp_path: Path, postgres: PostgresCluster
) -> None:
    """Its SQL and its commands, in order, on a real server (one for both databases)."""
    page = (ROOT / "docs" / "how-to" / "postgresql.md").read_text()
    statements = re.findall(r"^```sql\n(.*?)^```$", page, re.M | re.S)
    assert len(statements) == 2
    for number, text in enumerate(statements):
        script = tmp_path / f"{number}.sql"
        script.write_text(text)
        postgres.run("psql", "-v", "ON_ERROR_STOP=1", "--quiet", "-f", str(script))
    server = f"127.0.0.1:{postgres.port}"
    here = {"ledger-db.example:5432": server, "keyvault-db.example:5432": server}
    environment = own_environment(tmp_path)
    environment["PATH"] = f"{postgres.bin_directory}{os.pathsep}{environment['PATH']}"
    run_steps(steps_of(page), environment, here, tmp_path)


def own_environment(folder: Path) -> dict[str, str]:
    """A home and a port of the page's own, and no setting of whoever runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
    return {**inherited, "AUDIT_LEDGER_HOME": str(folder / "home"), "PORT": str(free_port())}


def run_steps(steps: list[Step], environment: dict[str, str], here: dict[str, str], folder: Path) -> None:
    """Run the commands in one shell, with the page's places replaced by those of the test, and compare."""
    script = ["set -euo pipefail"]
    for number, step in enumerate(steps):
        commands = step.commands
        for theirs, ours in here.items():
            commands = commands.replace(theirs, ours)
        script.append(f"{{\n{commands}\n}} >{folder}/{number}.out")
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    for number, step in enumerate(steps):
        if step.printed is not None:
            printed = (folder / f"{number}.out").read_text()
            assert matches(printed, step.printed), f"{step.commands}\nprints\n{printed}\nand not\n{step.printed}"


def test_output_that_differs_from_the_page_is_noticed() -> None:
    """The comparison is strict but for the ellipsis."""
    assert matches('{"size":3,"root":"abc"}\n', '{"size":3,"root":"…"}')
    assert not matches('{"size":4,"root":"abc"}\n', '{"size":3,"root":"…"}')
    assert not matches("intact\nmore\n", "intact…\n")
