"""Who used the processors meanwhile: CPU seconds by process, from /proc."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger

OTHERS: Final = "others"
"""What the machine did beside: whatever belongs to nobody who is accounted for."""

_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    group: int
    own: int
    reaped: int
    """Of children that are gone."""


def machine_seconds() -> float:
    """CPU seconds that the machine was busy since it began."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / _TICK


def of_server(server: ServedLedger) -> Callable[[], float]:
    """The served process with its workers."""
    return lambda: _of_group(server.process_id)


def of_cluster(cluster: PostgresCluster) -> Callable[[], float]:
    """A PostgreSQL server with all its processes."""

    def seconds() -> float:
        postmaster = int((cluster.data_directory / "postmaster.pid").read_text().split("\n", 1)[0])
        return _of_family(postmaster)

    return seconds


@dataclass
class Accounts:
    """Takes the difference of several counts over a time. ``counts``: CPU seconds so far, by name."""

    counts: Mapping[str, Callable[[], float]]
    _before: dict[str, float] = field(default_factory=dict)
    _busy: float = 0.0

    def begin(self) -> None:
        """From now on."""
        self._before = {name: count() for name, count in self.counts.items()}
        self._busy = machine_seconds()

    def end(self, known: Mapping[str, float]) -> dict[str, float]:
        """CPU seconds since the beginning, by name; ``known``: of those who have counted for themselves."""
        used = {name: count() - self._before[name] for name, count in self.counts.items()} | dict(known)
        return {**used, OTHERS: max(0.0, machine_seconds() - self._busy - sum(used.values()))}


def _of_group(leader: int) -> float:
    members = [process for process in _processes().values() if process.group == leader]
    return sum(process.own + process.reaped for process in members) / _TICK


def _of_family(parent: int) -> float:
    found = _processes()
    ticks = sum(process.own for process in found.values() if process.parent == parent)
    return (ticks + found[parent].own + found[parent].reaped) / _TICK


def _processes() -> dict[int, _Process]:
    """All processes by id (proc(5), "stat")."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        user, system, reaped_user, reaped_system = map(int, fields[11:15])
        found[int(entry.name)] = _Process(int(fields[1]), int(fields[2]), user + system, reaped_user + reaped_system)
    return found
