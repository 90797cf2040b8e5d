"""The commands of README and tutorial are run as they stand, and print what the pages say."""

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
    home, port = tmp_path / "home", str(free_port())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
    environment = {**inherited, "AUDIT_LEDGER_HOME": str(home), "PORT": port}
    script = ["set -euo pipefail"]
    for number, step in enumerate(steps[1:], 1):
        here = step.commands.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("var/", f"{home}/")
        script.append(f"{{\n{here}\n}} >{tmp_path}/{number}.out")
    with started(environment, tmp_path / "start.log"):
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PAGE_SECONDS,
        )
    assert done.returncode == 0, done.stderr
    for number, step in enumerate(steps[1:], 1):
        if step.printed is not None:
            printed = (tmp_path / f"{number}.out").read_text()
            assert matches(printed, step.printed), f"{step.commands}\nprints\n{printed}\nand not\n{step.printed}"


def test_output_that_differs_from_the_page_is_noticed() -> None:
    """The comparison is strict but for the ellipsis."""
    assert matches('{"size":3,"root":"abc"}\n', '{"size":3,"root":"…"}')
    assert not matches('{"size":4,"root":"abc"}\n', '{"size":3,"root":"…"}')
    assert not matches("intact\nmore\n", "intact…\n")
