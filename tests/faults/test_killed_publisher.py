"""Processes that publish and processes that append are killed with SIGKILL at random: no two checkpoints that were ever
served contradict each other, and what is served never goes back.

``AUDIT_LEDGER_TEST_KILLS`` sets the number of rounds on each engine; ``scripts/torture`` runs the full number.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from keyvault.errors import KeyVaultError
from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, open_checkpoint
from ledger.domain.events import OPERATOR
from ledger.domain.merkle import verify_consistency
from ledger.errors import LedgerError
from ledger.services.appending.append import append_events
from ledger.services.proving.proofs import prove_consistency, root_at
from ledger.services.proving.publishing import log_key, note_of, publish
from tests.support.processes import processes
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up, verified

KILLS: Final = int(os.environ.get("AUDIT_LEDGER_TEST_KILLS", "3"))
SEED: Final = 20261123
PUBLISHERS: Final = 2
APPENDERS: Final = 4
PATIENCE_SECONDS: Final = 60.0
LARGEST: Final = 2**62


@dataclass(frozen=True, slots=True)
class Served:
    """A checkpoint that a process handed out, and when it was asked for it and had it (one clock for all)."""

    asked: int
    given: int
    checkpoint: Checkpoint


def publish_for_ever(place: Place, ledger_id: UUID, told: Path) -> None:
    """Hand out checkpoints, each written down as whoever had asked would keep it."""
    service = open_service(place)
    with told.open("a", encoding="utf-8") as file:
        while True:
            asked = time.monotonic_ns()
            try:
                note = note_of(service.deps, publish(service.deps, ledger_id, at_least=LARGEST))
            except (LedgerError, KeyVaultError) as error:
                note = f"{type(error).__name__}: {error}"
            file.write(json.dumps([asked, time.monotonic_ns(), note]) + "\n")
            file.flush()


def append_for_ever(place: Place, ledger_id: UUID) -> None:
    """Record events, a few at a time."""
    service = open_service(place)
    for n in range(LARGEST):
        append_events(service.deps, ledger_id, [event(f"ward-{n % 7}", nonpersonal={"n": n})] * 1, OPERATOR)


def test_no_two_checkpoints_contradict_each_other_whoever_is_killed(place: Place, tmp_path: Path) -> None:
    """Each round one process of each kind dies and another takes its place."""
    chance = random.Random(SEED)
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    files: list[Path] = []

    def publisher() -> BaseProcess:
        files.append(tmp_path / f"told-{len(files)}")
        return started(publish_for_ever, place, ledger_id, files[-1])

    def appender() -> BaseProcess:
        return started(append_for_ever, place, ledger_id)

    publishers = [publisher() for _ in range(PUBLISHERS)]
    appenders = [appender() for _ in range(APPENDERS)]
    try:
        for _ in range(KILLS):
            wait_for_growth(service, ledger_id)
            time.sleep(chance.uniform(0, 0.3))
            replace_one(publishers, publisher, chance)
            replace_one(appenders, appender, chance)
        wait_for_growth(service, ledger_id)
    finally:
        for process in (*publishers, *appenders):
            process.kill()
            process.join()

    served = read_all(service, ledger_id, files)
    assert len({one.checkpoint.size for one in served}) > KILLS
    assert_consistent(service, ledger_id, served)
    assert_never_back(served)
    verified(service, ledger_id)
    service.close()


def started(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process of its own."""
    process = processes.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def replace_one(running: list[BaseProcess], start: Callable[[], BaseProcess], chance: random.Random) -> None:
    """Kill one, whatever it is doing, and start another."""
    at = chance.randrange(len(running))
    assert running[at].is_alive(), "a process died by itself"
    running[at].kill()
    running[at].join()
    running[at] = start()


def wait_for_growth(service: Service, ledger_id: UUID) -> None:
    """Until something new was recorded and published, so that every round means something."""
    key = log_key(service.deps, ledger_id)
    deadline = time.monotonic() + PATIENCE_SECONDS
    first = service.deps.transparency.latest_published(ledger_id, key.name)
    while time.monotonic() < deadline:
        last = service.deps.transparency.latest_published(ledger_id, key.name)
        if last is not None and last.size > (first.size if first is not None else 0):
            return
        time.sleep(0.01)
    raise AssertionError("nothing was published")


def read_all(service: Service, ledger_id: UUID, files: list[Path]) -> list[Served]:
    """What all publishers have handed out, each verified. A line that was cut off was handed to nobody."""
    key = log_key(service.deps, ledger_id)
    found = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []:
            if line.endswith("\n"):
                asked, given, note = json.loads(line)
                found.append(Served(asked, given, open_checkpoint(note, key, verify_ed25519)))
    return found


def assert_consistent(service: Service, ledger_id: UUID, served: list[Served]) -> None:
    """One root for each size, each a beginning of the next, and all of them of the ledger that there is."""
    roots: dict[int, bytes] = {}
    for one in served:
        assert roots.setdefault(one.checkpoint.size, one.checkpoint.root) == one.checkpoint.root
    publish(service.deps, ledger_id, at_least=LARGEST)
    sizes = sorted(roots)
    for old, new in itertools.pairwise(sizes):
        if old:
            proof = prove_consistency(service.deps, ledger_id, old, new)
            verify_consistency(old_size=old, new_size=new, old_root=roots[old], new_root=roots[new], proof=proof)
    assert all(root_at(service.deps, ledger_id, size) == root for size, root in roots.items())


def assert_never_back(served: list[Served]) -> None:
    """Whoever asks after somebody else had an answer gets one that is as large at least."""
    asked = sorted(served, key=lambda one: one.asked)
    answered = sorted(served, key=lambda one: one.given)
    largest, at = 0, 0
    for one in asked:
        while at < len(answered) and answered[at].given < one.asked:
            largest = max(largest, answered[at].checkpoint.size)
            at += 1
        assert one.checkpoint.size >= largest
