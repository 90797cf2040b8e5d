"""Verifying: events a second for each core, what memory it takes, and what a second process brings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from ledger.domain.encoding import encode_aad, encode_plaintext
from ledger.domain.events import Envelope, Role, SealedEvent, SealedPart
from ledger.domain.ids import uuid7
from ledger.domain.sequence import place_events
from ledger.ports import DataKey, Store
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.running import verify_ledger
from scripts.benchmarks.frame import AtLeast, AtMost, Engine, Report, per_second
from tests.support.service import Service, new_ledger

FEW: Final = 50_000
MANY: Final = 200_000
FULL_MANY: Final = 1_000_000
STREAMS: Final = 2_000
EVENTS_A_SECOND: Final = 150_000
"""Per core, on what is read from PostgreSQL."""

ROUNDS: Final = 5
_BATCH: Final = 5_000
_BEGAN: Final = 1_700_000_000_000_000
_WRITER: Final = UUID(int=1)
_MEBIBYTE: Final = 1024

# As an operator starts it: a process of its own, whose peak of memory is its own.
_VERIFY: Final = """
import resource, sys, time
from api.cli import cli
began = time.monotonic()
try:
    cli(["verify", "--ledger", sys.argv[1], "--jobs", sys.argv[2]], standalone_mode=False)
finally:
    print("measured", time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(report: Report) -> None:
    """On each engine, a small ledger and a large one."""
    many = report.size(MANY, FULL_MANY)
    for engine in report.engines:
        report.heading(f"verify on {engine}")
        with report.fresh_service(engine) as service:
            ledger = new_ledger(service)
            writer = _Writer(service.deps, ledger.ledger_id)
            writer.write(FEW)
            _, least = _as_a_command(service, ledger.name, jobs=1)
            writer.write(many)
            _, peak = _as_a_command(service, ledger.name, jobs=1)
            name = f"memory for {many:,} events ÷ for {FEW:,}"
            report.ratio_of(name, [least], [peak], AtMost(1.2), shown=mebibytes)
            _measure_checking(report, engine, service.deps, ledger.ledger_id, many)
            one, two = (partial(_as_a_command, service, ledger.name, jobs=jobs) for jobs in (1, 2))
            report.ratio(f"one process ÷ two, {many:,} events, opening all parts", two, one, rounds=3)


def _measure_checking(report: Report, engine: Engine, deps: Dependencies, ledger_id: UUID, events: int) -> None:
    """What this process does for each event, beside reading it. Of several runs the median counts."""
    for opening in (False, True):
        checking, whole, waiting = [], [], []
        for _ in range(ROUNDS):
            reads = _TimedReads(deps.store)
            cpu, wall = time.process_time(), time.perf_counter()
            timed: Any = reads
            verdict = verify_ledger(replace(deps, store=timed), ledger_id, lambda *_: None, opening=opening)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if not verdict.intact:
                raise RuntimeError("the benchmark's ledger is not intact")
            checking.append(events / (cpu - reads.cpu))
            whole.append(events / cpu)
            waiting.append(reads.wall / wall)
        what = "structure and all parts opened" if opening else "structure"
        bar = AtLeast(1) if engine == "postgresql" and not opening else None
        name = f"{what}: events a second for a core, as delivered ÷ {EVENTS_A_SECOND:,}"
        report.ratio_of(name, [EVENTS_A_SECOND], checking, bar, shown=per_second)
        report.ratio_of("    the same with reading them", [EVENTS_A_SECOND], whole, shown=per_second)
        report.note(f"    of the time, {sorted(waiting)[len(waiting) // 2]:.0%} is reading")


@dataclass
class _TimedReads:
    """A store that counts what its large reads take."""

    store: Store
    cpu: float = 0.0
    wall: float = 0.0
    names: Sequence[str] = field(default=("leaf_rows", "shredded_rows", "shredded_among", "full_tiles"))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        return partial(self._timed, found) if name in self.names else found

    def key_records(self, *arguments: Any) -> Iterator[Sequence[bytes]]:
        """One batch after another."""
        batches = self.store.key_records(*arguments)
        while (batch := self._timed(next, batches, None)) is not None:
            yield batch

    def _timed(self, work: Callable[..., Any], *arguments: Any) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            return work(*arguments)
        finally:
            self.cpu += time.process_time() - cpu
            self.wall += time.perf_counter() - wall


@dataclass
class _Writer:
    """Writes events as appends do, but many at once: by way of requests it would take an hour."""

    deps: Dependencies
    ledger_id: UUID
    _keys: list[tuple[bytes, DataKey]] = field(default_factory=list)
    _versions: dict[bytes, int] = field(default_factory=dict)

    def write(self, size: int) -> None:
        """Until the ledger has so many."""
        self._mint()
        done = self.deps.store.head(self.ledger_id).size
        for start in range(done, size, _BATCH):
            events = [self._event(number) for number in range(start, min(start + _BATCH, size))]
            with self.deps.store.locked_head(self.ledger_id) as lock:
                recorded, head = place_events(events, lock.head, self._versions, _BEGAN + start)
                lock.write(recorded, head)
            self._versions.update((event.envelope.stream_ref, event.stream_version) for event in recorded)

    def _mint(self) -> None:
        for start in range(len(self._keys), STREAMS, 500):
            names = {f"patient-{number}": f"patient:{number}" for number in range(start, start + 500)}
            needed = [(name, "") for name in names.values()]
            made = self.deps.vault.reserve(self.ledger_id, names, needed, mint=True)
            refs: Mapping[str, bytes] = made.subjects
            self._keys += [(made.streams[stream].ref, made.keys[refs[name], ""]) for stream, name in names.items()]

    def _event(self, number: int) -> SealedEvent:
        stream_ref, key = self._keys[number * 7919 % STREAMS]
        event_id = uuid7(_BEGAN + number, os.urandom(10))
        correlation_id = UUID(bytes=os.urandom(16))
        envelope = Envelope(
            self.ledger_id, event_id, stream_ref, "patient", "Visit", 1, _BEGAN - 5, correlation_id, None
        )
        data = {"crp": number % 50, "note": "x" * 40}
        plaintext = encode_plaintext(subject="patient:1", stream="patient-1", data=data)
        sealed = key.seal(plaintext, encode_aad(envelope, [(Role.SUBJECT, key.key_id)], 0))
        return SealedEvent(envelope, (SealedPart(Role.SUBJECT, key.key_id, sealed),), _WRITER)


def _as_a_command(service: Service, ledger: str, *, jobs: int) -> tuple[float, float]:
    place = service.place
    settings = {
        "AUDIT_LEDGER_HOME": str(place.home),
        "AUDIT_LEDGER_DATABASE_URL": place.ledger_url,
        "AUDIT_LEDGER_KEYVAULT_URL": place.vault_url,
    }
    return verify_as_a_command({**os.environ, **settings}, ledger, jobs=jobs)


def verify_as_a_command(environment: Mapping[str, str], ledger: str, *, jobs: int) -> tuple[float, float]:
    """Seconds, and the kibibytes that the process took at most."""
    command = [sys.executable, "-c", _VERIFY, ledger, str(jobs)]
    done = subprocess.run(  # noqa: S603 - the program itself
        command, env=environment, capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.splitlines()[-1].split()[1:]
    return float(seconds), float(peak)


def mebibytes(kibibytes: float) -> str:
    """How an amount of memory is shown."""
    return f"{kibibytes / _MEBIBYTE:.0f} MiB"
