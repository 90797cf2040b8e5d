"""Verify with several processes, each on connections of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

from ledger.services.dependencies import Dependencies
from ledger.services.verifying.running import Job

T = TypeVar("T")

Opener = Callable[[], AbstractContextManager[Dependencies]]
"""Opens a ledger's dependencies in the process that calls it. Can be pickled."""

_AHEAD: Final = 2
"""Pieces of work that wait for each process, so that none waits for work."""


class Processes:
    """Satisfies ``Workers``. Use it as a context manager.

    The processes are fresh ones (spawned): what another process has opened before must not be used on both sides of a
    fork. They end when this one does, however it ends.
    """

    def __init__(self, opener: Opener, number: int) -> None:
        self._number = number
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(number, context, initializer=_open, initargs=(opener,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def results(self, jobs: Iterable[Job[T]]) -> Iterator[T]:
        """What each gives, in their order."""
        waiting: deque[Future[T]] = deque()
        for job in jobs:
            waiting.append(self._pool.submit(_work, job))
            if len(waiting) >= _AHEAD * self._number:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_opened: list[Dependencies] = []
"""In a process of the pool: what it works with."""

_until_the_end = ExitStack()


def _open(opener: Opener) -> None:
    # Ctrl-C goes to the whole group; the process that was asked ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _opened.append(_until_the_end.enter_context(opener()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Killed, it could not tell: nobody waits for what is done here.
        os._exit(1)


def _work(job: Job[T]) -> T:
    return job.work(_opened[0])
