"""Under which circumstances a run has measured: machine, versions, date. Without them its numbers say nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from scripts.benchmarks.frame import DURABLE, Report
from scripts.benchmarks.support.peers import peer_versions
from tests.support.postgres import find_bin_directory

_PACKAGE: Final = "gdpr-audit-ledger"
_LIBRARIES: Final = ("cryptography", "flask", "granian", "psycopg", "sqlalchemy")
_KIBIBYTE: Final = 1024


def surroundings(report: Report) -> dict[str, Any]:
    """What stands before the results of a run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "full": report.full,
        "engines": list(report.engines),
        "machine": {
            "cpu": _line_of(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "memory_bytes": _memory(),
            "kernel": platform.release(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "postgresql": _postgres_version(),
            "package": version(_PACKAGE),
            "commit": _commit(),
            **{name: version(name) for name in _LIBRARIES},
        },
        "peers": peer_versions(),
        "durability": {"postgresql": DURABLE, "sqlite": {"journal_mode": "WAL", "synchronous": "FULL"}},
    }


def _line_of(path: Path, name: str) -> str | None:
    if not path.exists():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for found, _, value in lines if found.strip() == name), None)


def _memory() -> int | None:
    total = _line_of(Path("/proc/meminfo"), "MemTotal")
    return None if total is None else int(total.split()[0]) * _KIBIBYTE


def _postgres_version() -> str | None:
    folder = find_bin_directory()
    return None if folder is None else _output([str(folder / "postgres"), "--version"])


def _commit() -> str | None:
    """With a ``+`` where the files are not those of the commit."""
    commit = _output(["git", "rev-parse", "--short", "HEAD"])
    return commit if commit is None or not _output(["git", "status", "--porcelain"]) else f"{commit}+"


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed commands
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
