"""Runs the command line as a user does: with a home, and nothing else in its settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.config import Settings
from api.wiring import Service, open_service
from tests.support.cli import run_here

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-W", "error", "-c", "from api.cli import main; main()")
SEPSIS = ROOT / "docs" / "data" / "sepsis.ndjson"
TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Cli:
    """The command line on one home."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """No setting of whoever runs the tests gets in."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
        return {**inherited, "AUDIT_LEDGER_HOME": str(self.home), **self.settings}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command and do not wait for it."""
        return subprocess.Popen([*PROGRAM, *arguments], cwd=ROOT, env=self.environment, **options)

    def run(self, *arguments: str, text: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with ``text`` on its standard input. No command may ever show a traceback.

        It runs in this process. Where it matters that it has one of its own, :meth:`run_apart` and :meth:`start` do.
        """
        return _clean(run_here(*arguments, environment=self.environment, text=text))

    def run_apart(self, *arguments: str, text: str | bytes = "") -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=ROOT,
            env=self.environment,
            input=text.encode() if isinstance(text, str) else text,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
        return _clean(
            subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        )

    def must(self, *arguments: str, text: str | bytes = "") -> str:
        """Run a command that has to succeed; gives what it prints."""
        result = self.run(*arguments, text=text)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def lines(self, *arguments: str, text: str | bytes = "") -> list[dict[str, Any]]:
        """Run a command that has to succeed and prints NDJSON."""
        return [json.loads(line) for line in self.must(*arguments, text=text).splitlines()]

    def copied(self, home: Path) -> Cli:
        """The same on a copy of the home, which no process may be using now."""
        shutil.copytree(self.home, home)
        return Cli(home, self.settings)

    def open(self) -> Service:
        """The same service in this process, to look inside. The caller closes it."""
        return open_service(Settings.from_environment({"AUDIT_LEDGER_HOME": str(self.home), **self.settings}))


def _clean(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert "Traceback" not in done.stderr, done.stderr
    return done


def ndjson(events: Iterable[Mapping[str, Any]]) -> bytes:
    """Events as lines."""
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)


def event(stream: str = "patient-A", event_type: str = "CRP", **fields: Any) -> dict[str, Any]:
    """A small event of one patient."""
    identifier = stream.partition("-")[2]
    return {"stream": stream, "type": event_type, "subject": f"patient:{identifier}", "data": {"crp": 7}, **fields}
