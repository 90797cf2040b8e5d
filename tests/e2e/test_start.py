"""``scripts/start``: a server and a worker that begin together, and end together however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.e2e.cli_support import ROOT
from tests.support.metrics import scrape
from tests.support.server import Client, free_port
from tests.support.worker import eventually

# The very first run installs what is missing.
START_SECONDS = 300.0
_PROC = Path("/proc")


class Started:
    """A run of the script: itself, its server and its worker."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, home: Path, scratch: Path) -> None:
        self.process = process
        self.port = port
        self.home = home
        self.scratch = scratch

    @property
    def client(self) -> Client:
        """With the operator's key."""
        return Client(self.port, (self.home / "admin-key").read_text().strip())

    def running(self) -> set[int]:
        """All processes of both programs."""
        return {int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and self._is_ours(entry)}

    def main_process(self, command: str) -> int:
        """The one that the script has started with this command."""
        (found,) = [
            process
            for process in self.running()
            if f"\nPPid:\t{self.process.pid}\n" in (_PROC / str(process) / "status").read_text()
            and command in _words(_PROC / str(process))
        ]
        return found

    def _is_ours(self, entry: Path) -> bool:
        """The script hands its own process id over."""
        return _words(entry)[-2:] == ["--parent", str(self.process.pid)]


def _words(entry: Path) -> list[str]:
    """The command line of a process; empty when it is gone."""
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """The script, until both work."""
    with _started(tmp_path) as run:
        yield run


@contextmanager
def _started(folder: Path) -> Iterator[Started]:
    home, scratch, port = folder / "home", folder / "scratch", free_port()
    scratch.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
    settings = {"AUDIT_LEDGER_HOME": str(home), "PORT": str(port), "TMPDIR": str(scratch)}
    log = folder / "start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(ROOT / "scripts" / "start")], env={**inherited, **settings}, stdout=output, stderr=output
        )
    run = Started(process, port, home, scratch)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (_is_ready(port) and '"event": "working"' in log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield run
    finally:
        process.terminate()
        process.wait()
        for left_behind in run.running():
            os.kill(left_behind, signal.SIGKILL)


def _is_ready(port: int) -> bool:
    try:
        return Client(port).get("/readyz").status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False


def test_the_worker_beside_the_server_keeps_the_read_models_and_both_end_together(started: Started) -> None:
    """Appended, read from the read model, counted by both; and after a SIGTERM nobody and nothing is left behind."""
    client = started.client
    client.post("/v1/ledgers", {"name": "hospital"})
    visit = {"stream": "patient-A", "type": "Visit", "subject": "patient:A", "data": {"crp": 12}}
    position = client.post("/v1/ledgers/hospital/events", visit).json()["events"][0]["position"]
    question = {"stream": "patient-A", "min_position": position}
    answer = client.post("/v1/ledgers/hospital/read-models/current_state", question)
    assert answer.json()["documents"][0]["document"] == {"crp": 12}
    assert len(list(started.scratch.glob("*/counter_*.db"))) >= 2
    assert (scrape(client, "audit_ledger_key_unwraps_total") or 0) > 0
    assert started.main_process("serve") != started.main_process("worker")

    started.process.terminate()

    assert started.process.wait(60) == 0
    assert started.running() == set()
    assert list(started.scratch.iterdir()) == []


@pytest.mark.parametrize("victim", ["serve", "worker", "the script"])
def test_when_one_is_killed_the_others_end(started: Started, victim: str) -> None:
    """Whoever watches the script starts all of it again; none goes on alone."""
    os.kill(started.process.pid if victim == "the script" else started.main_process(victim), signal.SIGKILL)
    assert started.process.wait(60) != 0
    eventually(lambda: started.running() == set())
