"""Where appends to one ledger meet.

1. Small appends are prepared together: the catalogue and the key vault are asked once for all of them. A large one is
   prepared by itself, so that nobody waits for its sealing.
2. What is prepared takes its turn to be written: one head lock, one commit. While one is written the next is prepared,
   and who comes meanwhile gathers for the one after it: prepared any sooner, they would only wait in smaller groups.

Whatever is wrong with one is the matter of that one alone. Where something fails for all of them, each is tried again
by itself, in the thread that it came from.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from ledger.domain.names import is_process_category, is_reserved_category, split_stream
from ledger.errors import Fault, InvalidError, StoreUnavailableError
from ledger.ports import CatalogueMark
from ledger.services.appending.attempt import Attempt, Prepared, failing_alone, still_open
from ledger.services.appending.gathering import Gathering
from ledger.services.appending.preparation import Candidate, seal_batch
from ledger.services.appending.reserving import reserve_all
from ledger.services.appending.writing import write_all
from ledger.services.dependencies import Dependencies
from ledger.services.naming import with_names

SMALL: Final = 32
"""Events of an append that is prepared together with others, at most."""

TOGETHER: Final = 256
"""Events of small appends that are recorded together, at most."""


class _Meeting:
    """Where the appends to one ledger meet in this process. ``turn``: to be written."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.preparing: Gathering[Attempt] = Gathering(
            most=TOGETHER,
            weight=lambda attempt: len(attempt.ids),
            together=lambda one, other: one.deps is other.deps,
        )


_meetings: defaultdict[UUID, _Meeting] = defaultdict(_Meeting)
_opening = threading.Lock()


def record(ledger_id: UUID, attempt: Attempt) -> None:
    """Record one attempt, together with others that are there. It is not open any more afterwards."""
    deps = attempt.deps
    with _opening:
        meeting = _meetings[ledger_id]
    prepared: Prepared | None = None

    def prepare(attempts: Sequence[Attempt]) -> None:
        nonlocal prepared
        with _blaming(attempts):
            prepared = prepare_all(deps, ledger_id, attempts)
        if not meeting.turn.acquire(blocking=False):
            with deps.while_waiting():
                meeting.turn.acquire()

    def write(_: Sequence[Attempt]) -> None:
        try:
            if prepared is not None:
                _write(deps, ledger_id, prepared)
        finally:
            meeting.turn.release()

    if len(attempt.ids) <= SMALL:
        meeting.preparing.do(attempt, prepare, write, waiting=deps.while_waiting)
    else:
        prepare([attempt])
        write([attempt])
    if attempt.open:
        # Something failed for all who shared a turn: whose fault it was shows when each is by itself.
        with failing_alone(attempt):
            alone = prepare_all(deps, ledger_id, [attempt])
            if alone is not None:
                write_all(deps, ledger_id, alone)


def _write(deps: Dependencies, ledger_id: UUID, prepared: Prepared) -> None:
    with _blaming(prepared.attempts):
        try:
            write_all(deps, ledger_id, prepared)
        except StoreUnavailableError as error:
            # Only who asks again can tell what is recorded, and each has to.
            for attempt in still_open(prepared.attempts):
                attempt.error = StoreUnavailableError(error.detail)


@contextmanager
def _blaming(attempts: Sequence[Attempt]) -> Iterator[None]:
    """What fails in the block is the error of the one that is left of these attempts. Several are left open."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is raised where the attempt was made
        left = still_open(attempts)
        if len(left) == 1:
            left[0].error = error


def prepare_all(deps: Dependencies, ledger_id: UUID, attempts: Sequence[Attempt]) -> Prepared | None:
    """Turn what was sent into sealed events, as far as nothing stands in the way; None when that is nowhere so. Raises
    what fails for all."""
    mark = deps.catalogues.catalogue_mark(ledger_id)
    for attempt in attempts:
        with failing_alone(attempt):
            attempt.become(_candidates(deps, ledger_id, attempt, mark))
    left = still_open(attempts)
    if not left:
        return None
    reservation = reserve_all(deps, ledger_id, left)
    for attempt in still_open(left):
        with failing_alone(attempt):
            attempt.sealed = seal_batch(ledger_id, attempt.candidates, attempt.recorded_by, reservation, attempt.dead)
            if attempt.inspect is not None:
                attempt.inspect(attempt.sealed)
    ready = still_open(left)
    return Prepared(ready, reservation.mark) if ready else None


def _candidates(deps: Dependencies, ledger_id: UUID, attempt: Attempt, mark: CatalogueMark) -> list[Candidate]:
    events = with_names(deps, ledger_id, attempt.admit(deps, ledger_id, mark, attempt.events))
    candidates = []
    for index, (event, event_id) in enumerate(zip(events, attempt.ids, strict=True)):
        split = split_stream(event.stream or "")
        if event.stream is None or split is None:
            fault = Fault(f"{event.pointer}/stream", "must have the form category-id", index)
            raise InvalidError("a stream has no category", [fault])
        if is_reserved_category(split[0]) and not (event.by_process and is_process_category(split[0])):
            # By name it was refused at the door; by ref its category is only known now.
            fault = Fault(f"{event.pointer}/stream_ref", "is a stream of the ledger's own events", index)
            raise InvalidError("a stream is reserved for the ledger's own events", [fault])
        candidates.append(Candidate(index, event, event_id, event.stream, split[0]))
    return candidates
