"""The real served process: ``audit-ledger serve`` on a free port with a home of its own, and a client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.cli import run_here

START_SECONDS = 60.0
STOP_SECONDS = 60.0
CLIENT_SECONDS = 60.0
PROGRAM = Path(sys.executable).with_name("audit-ledger")
NDJSON = "application/x-ndjson"


class ServerError(Exception):
    """The served process did not start or stop; the message has what it logged."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that was read to its end. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The body as NDJSON."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def code(self) -> str:
        """The code of a problem."""
        kind: str = self.json()["type"]
        return kind.removeprefix("urn:audit-ledger:problem:")


@dataclass(frozen=True, slots=True)
class Client:
    """Sends requests to a server with one API key (None: with none). Every request has a connection of its own."""

    port: int
    key: str | None = None

    def with_key(self, key: str | None) -> Client:
        """The same with another key."""
        return Client(self.port, key)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self.send("GET", path, None, headers)

    def delete(self, path: str) -> Answer:
        """DELETE."""
        return self.send("DELETE", path)

    def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """POST of a JSON body."""
        content = {"Content-Type": "application/json"}
        return self.send("POST", path, json.dumps(body).encode(), {**content, **(headers or {})})

    def post_lines(self, path: str, lines: Iterable[object], headers: Mapping[str, str] | None = None) -> Answer:
        """POST of NDJSON."""
        text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        return self.send("POST", path, text, {"Content-Type": NDJSON, **(headers or {})})

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request; an iterable body is sent in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CLIENT_SECONDS)
        with contextlib.closing(connection):
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, path, body, self._headers(headers), encode_chunked=chunked)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        own = {"Authorization": f"Bearer {self.key}"} if self.key is not None else {}
        return {**own, **(headers or {})}


class ServedLedger:
    """The service as its users meet it. Use it as a context manager; it keeps its port for its life.

    ``settings``: environment variables on top of the defaults, such as database URLs.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="audit-ledger-served-")
        self.home = Path(self._folder.name, "home")
        self.log_file = Path(self._folder.name, "server.log")
        self.port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
        self.environment = {
            **inherited,
            "AUDIT_LEDGER_HOME": str(self.home),
            "PORT": str(self.port),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            prepare = self.run if self._keks_are_files else self.run_apart
            prepare("init")
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def client(self) -> Client:
        """A client with the key of the first start, which has all roles."""
        return Client(self.port, (self.home / "admin-key").read_text().strip())

    @property
    def process_id(self) -> int:
        """The main process."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    @property
    def _keks_are_files(self) -> bool:
        """Else their keeper's library is set up by the environment, once for a process."""
        return self.environment.get("AUDIT_LEDGER_KEK", "file:").startswith("file:")

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run another command of the program with the same settings, in this process: to start one takes longer."""
        return self._checked(run_here(*arguments, environment=self.environment), check=check)

    def run_apart(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        command = [str(PROGRAM), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=START_SECONDS * 5)
        return self._checked(done, check=check)

    @staticmethod
    def _checked(done: subprocess.CompletedProcess[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        if check and done.returncode != 0:
            raise ServerError(f"{' '.join(done.args[1:])} failed:\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *, ready: bool = True) -> None:
        """Start and wait until it is ready; ``ready`` False: until it answers, whatever it says then."""
        with self.log_file.open("ab") as log:
            # A group of its own, so that ``kill`` gets all its processes.
            self._process = subprocess.Popen(
                [str(PROGRAM), "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if Client(self.port).get("/readyz" if ready else "/livez").status == 200:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"the server did not start:\n{self.log()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        if self._process is None:
            raise ServerError("the server is not running")
        self._process.terminate()
        status = self._process.wait(STOP_SECONDS)
        self._process = None
        return status

    def kill(self) -> None:
        """SIGKILL for the main process and all workers at once."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop in good order and start again."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Kill it and throw its home away."""
        self.kill()
        self._folder.cleanup()

    def log(self) -> str:
        """All that it has logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        """The log as JSON; raises where a line is something else."""
        return [json.loads(line) for line in self.log().splitlines()]

    def make_key(self, *roles: str, ledger: str | None = None, principal: str = "tester") -> str:
        """The secret of a new API key."""
        body = {"name": "made by a test", "principal": principal, "roles": roles, "ledger": ledger}
        answer = self.client.post("/v1/api-keys", body)
        if answer.status != 201:
            raise ServerError(f"no API key: {answer.status} {answer.body.decode()}")
        secret: str = answer.json()["secret"]
        return secret

    def make_ledger(self, name: str) -> str:
        """Make a ledger and give the path of its endpoints."""
        answer = self.client.post("/v1/ledgers", {"name": name})
        if answer.status != 201:
            raise ServerError(f"no ledger: {answer.status} {answer.body.decode()}")
        return f"/v1/ledgers/{name}"


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def raw_connection(port: int) -> Iterator[socket.socket]:
    """A TCP connection for clients that misbehave."""
    with socket.create_connection(("127.0.0.1", port), timeout=CLIENT_SECONDS) as connection:
        yield connection
