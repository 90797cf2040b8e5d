"""``verify``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import click

from api.commands.errors import CommandError
from api.commands.session import opened, the_ledger
from api.verification import StateFile, StateFileError, opened_dependencies, report_json, report_text
from api.wiring import Service
from ledger.services.verifying.processes import Processes
from ledger.services.verifying.ranges import RANGE
from ledger.services.verifying.running import Here, Progress, Workers, verify_ledger
from ledger.services.verifying.verification import Verified

MOST_JOBS: Final = 64
WORTH_A_PROCESS: Final = 2 * RANGE
"""Events for which it pays to start a process."""


@click.command()
@click.option("--ledger", "ledger_name", required=True, help="The ledger to check.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--jobs", type=click.IntRange(1, MOST_JOBS), help="Processes that read; by default one a core.")
@click.option(
    "--state",
    "state_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep in this file how far everything is right, and go on from there the next time.",
)
@click.option(
    "--no-open", is_flag=True, help="Do not open the sealed parts nor check signatures; needs no KEK, and is quicker."
)
def verify(ledger_name: str, jobs: int | None, state_path: Path | None, *, as_json: bool, no_open: bool) -> None:
    """Check every row against its leaf, the leaves against the head and the published checkpoints, the keys and dead
    keys of all events, and that every sealed part opens under its key; name every position where something is wrong.

    Exit status 0 only if all holds. What each line means, and what to do then: docs/how-to/verify.md. That everything
    was built anew, checkpoints too, can be told only by somebody who kept one: see `audit-ledger audit`.
    """
    # Not guarded: a ledger that was cut off or restored old is what this is for.
    with opened(guarded=False) as service:
        ledger = the_ledger(service, ledger_name)
        state = StateFile(state_path) if state_path is not None else None
        since = _read(state)
        with _workers(service, ledger.ledger_id, jobs) as workers, _progress() as progress:
            report = verify_ledger(
                service.deps,
                ledger.ledger_id,
                progress,
                opening=not no_open,
                workers=workers,
                since=since,
                keep=state.keep if state is not None else lambda verified: None,
            )
        if state is not None:
            state.flush()
    click.echo(report_json(ledger_name, report) if as_json else report_text(report, since))
    if not report.intact:
        raise CommandError(f"the ledger {ledger_name!r} is not intact: keep its databases as evidence")


def _read(state: StateFile | None) -> Verified | None:
    try:
        return state.read() if state is not None else None
    except StateFileError as error:
        raise CommandError(str(error)) from None


@contextmanager
def _workers(service: Service, ledger_id: UUID, jobs: int | None) -> Iterator[Workers]:
    cores = len(os.sched_getaffinity(0))
    worth = service.deps.store.head(ledger_id).size // WORTH_A_PROCESS
    number = min(jobs if jobs is not None else cores, worth)
    if number <= 1:
        yield Here(service.deps)
        return
    with Processes(partial(opened_dependencies, service.settings), number) as processes:
        yield processes


@contextmanager
def _progress() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label="verifying", file=sys.stderr) as bar:

        def show(checked: int, size: int) -> None:
            bar.length = size
            bar.update(checked - bar.pos)

        yield show
