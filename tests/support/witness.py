"""The real witness process: ``audit-ledger witness serve`` on a free port with a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import io
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

from api.cli import main
from api.witness.state import create_state, open_state
from ledger.domain.notes import VerifierKey
from tests.support.server import Answer, Client, free_port

START_SECONDS = 60.0
STOP_SECONDS = 30.0
PROGRAM = (sys.executable, "-W", "error", "-c", "from api.cli import main; main()")
ROOT = Path(__file__).parents[2]


def run_program(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in this process: to start one takes longer than all that these commands do."""
    out, complaints = io.StringIO(), io.StringIO()
    status = 0
    with (
        patch.object(sys, "argv", ["audit-ledger", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(complaints),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
    assert not check or status == 0, complaints.getvalue()
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), complaints.getvalue())


class WitnessProcess:
    """One witness. Use it as a context manager; it starts with the block and is killed at its end if it still runs."""

    def __init__(self, name: str = "witness.example/w1", *, folder: Path | None = None) -> None:
        self._holder = tempfile.TemporaryDirectory(prefix="audit-ledger-witness-")
        self.folder = folder or Path(self._holder.name, "state")
        self._log_file = Path(self._holder.name, "witness.log")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        state = create_state(self.folder, name) if folder is None else open_state(self.folder)
        self.verifier_key = state.key.text

    def run(self, command: str, *arguments: str) -> str:
        """Run another command on the same folder; gives what it prints."""
        return run_program("witness", command, "--state", str(self.folder), *arguments).stdout

    def trust(self, key: VerifierKey) -> None:
        """Have it cosign a log."""
        open_state(self.folder).trust(key)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._holder.cleanup()

    @property
    def key_name(self) -> str:
        """Of its key."""
        return self.verifier_key.partition("+")[0]

    @property
    def url(self) -> str:
        """Its submission and monitoring prefix."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> Client:
        """For it."""
        return Client(self.port)

    def add(self, body: bytes) -> Answer:
        """POST a request to cosign."""
        return self.client.send("POST", "/add-checkpoint", body)

    def start(self) -> None:
        """Start, and wait until it answers."""
        with self._log_file.open("ab") as log:
            arguments = ("witness", "serve", "--state", str(self.folder), "--port", str(self.port))
            self._process = subprocess.Popen(
                [*PROGRAM, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.client.get("/livez").status == 200:
                    return
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop; gives its exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        status = self._process.wait(STOP_SECONDS)
        self._process = None
        return status

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """All that it has logged."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""
