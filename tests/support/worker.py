"""The real worker process: ``audit-ledger worker`` with the settings of a served ledger."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.server import PROGRAM, START_SECONDS, STOP_SECONDS, ServedLedger, ServerError

PATIENCE_SECONDS = 30.0


class WorkerProcess:
    """One worker. Use it as a context manager; it starts with the block and is killed at its end if it still runs."""

    def __init__(self, server: ServedLedger, *, settings: dict[str, str] | None = None) -> None:
        self._environment = {**server.environment, **(settings or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="audit-ledger-worker-")
        self._log_file = Path(self._folder.name, "worker.log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start, and wait until it works."""
        begun = self.told("working")
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), "worker"], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        process, deadline = self._process, time.monotonic() + START_SECONDS
        while self.told("working") == begun:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"the worker did not start:\n{self.log()}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Tell it to stop; gives its exit status and how many seconds that took."""
        if self._process is None:
            raise ServerError("the worker is not running")
        began = time.monotonic()
        self._process.send_signal(how)
        status = self._process.wait(STOP_SECONDS)
        self._process = None
        return status, time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._process = None

    def log(self) -> str:
        """All that it has logged."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        """The log as JSON; raises where a line is something else."""
        return [json.loads(line) for line in self.log().splitlines()]

    def told(self, event: str) -> int:
        """How often it has logged an event of this name."""
        return self.log().count(f'"event": "{event}"')


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Fails when it does not hold in time."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.2)  # who asks all the time takes it from those who are waited for
