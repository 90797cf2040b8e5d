"""What a rotation costs: how quick it is, what memory it takes, and what readers of the served ledger notice of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from sqlalchemy import insert

from api.config import Settings
from keyvault import database, store, tables
from keyvault.cache import UnwrapCache
from keyvault.keyring import Keyring
from keyvault.providers import provider_from_url
from scripts.benchmarks.frame import AtMost, Report
from tests.support.server import Client, ServedLedger

FEW: Final = 1_000
KEYS: Final = 20_000
FULL_KEYS: Final = 1_000_000
QUIET_SECONDS: Final = 5.0
_EVENTS: Final = 100
_BATCH: Final = 2_000
_MEBIBYTE: Final = 1024

# As an operator starts it: a process of its own, whose peak of memory is its own.
_ROTATE: Final = """
import resource, time
from api.cli import cli
began = time.monotonic()
cli(["epochs", "rotate"], standalone_mode=False)
print("measured", time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(report: Report) -> None:
    """Rotate a vault with few keys and one with many, and read meanwhile."""
    keys = report.size(KEYS, FULL_KEYS)
    for engine in report.engines:
        with report.served(engine) as server:
            path = server.make_ledger("bench")
            ledger_id = UUID(server.client.get(path).json()["id"])
            events = [{"stream": f"case-{n}", "type": "Noted", "subject": f"p:{n}", "data": {}} for n in range(_EVENTS)]
            server.client.post(f"{path}/events", {"events": events})
            _mint(server, ledger_id, FEW)
            _, least = _rotate(server)
            _mint(server, ledger_id, keys - FEW)
            quiet = _read_until(server.client, path, _after(QUIET_SECONDS))
            with _reading(server.client, path) as busy:
                seconds, peak = _rotate(server)
            report.note(f"{engine}: {keys:,} keys rewrapped in {seconds:.1f} s, {keys / seconds:,.0f} a second")
            name = f"{engine}: memory for {keys:,} keys ÷ for {FEW:,}"
            report.ratio_of(name, [least], [peak], AtMost(1.5), shown=_mebibytes)
            report.ratio_of(f"{engine}: reading a page during a rotation ÷ before it", quiet, busy, AtMost(4))


def _mint(server: ServedLedger, ledger_id: UUID, number: int) -> None:
    """Keys of as many subjects, by hand: by way of events it would take hours."""
    settings = Settings.from_environment(server.environment)
    engine = database.make_engine(settings.keyvault_url)
    keyring = Keyring(provider_from_url(settings.kek), UnwrapCache())
    with database.reading(engine) as connection:
        epoch = max(connection.execute(tables.epochs.select().with_only_columns(tables.epochs.c.epoch)).scalars())
    for start in range(0, number, _BATCH):
        refs = [os.urandom(16) for _ in range(min(_BATCH, number - start))]
        subjects = [{"ledger_id": ledger_id, "subject_ref": ref, "state": "active", "changed_at": 0} for ref in refs]
        with database.writing(engine) as connection:
            connection.execute(insert(tables.subjects), subjects)
            store.insert_keys(connection, [keyring.new_key(ledger_id, ref, "", epoch) for ref in refs], 0)
    engine.dispose()


def _rotate(server: ServedLedger) -> tuple[float, float]:
    """Seconds of a rotation, and the kibibytes that its process took at most."""
    done = subprocess.run(  # noqa: S603 - the program itself
        [sys.executable, "-c", _ROTATE], env=server.environment, capture_output=True, text=True, check=True
    )
    seconds, peak = done.stdout.splitlines()[-1].split()[1:]
    return float(seconds), float(peak)


def _mebibytes(kibibytes: float) -> str:
    return f"{kibibytes / _MEBIBYTE:.0f} MiB"


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _read_until(client: Client, path: str, over: Callable[[], bool]) -> list[float]:
    """Read the same page, again and again with short pauses; gives the seconds that each took."""
    taken = []
    while not over():
        began = time.perf_counter()
        answer = client.post(f"{path}/query", {"limit": _EVENTS})
        taken.append(time.perf_counter() - began)
        if answer.status != 200 or any(event["redactions"] for event in answer.json()["events"]):
            raise RuntimeError(f"a page could not be read: {answer.status}")
        time.sleep(0.02)
    return taken


@contextmanager
def _reading(client: Client, path: str) -> Iterator[list[float]]:
    """Read beside what the block does; the list has the seconds once the block is over."""
    taken: list[float] = []
    stop = threading.Event()
    thread = threading.Thread(target=lambda: taken.extend(_read_until(client, path, stop.is_set)))
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()
