"""Who is asked about the canary: reader processes that the drill starts, and a server that runs already."""

from __future__ import annotations

import http.client
import json
import os
import select
import ssl
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, Protocol
from urllib.parse import urlsplit

from api.drill.asking import Question, requests_for
from api.drill.canary import LEDGER
from api.drill.checks import DrillError
from api.json_text import JSON, NDJSON

READER: Final = (sys.executable, "-m", "api.drill.reader")
_PATIENCE_SECONDS: Final = 60.0
_BLOCK: Final = 2**24
_OK: Final = 200


class Asked(Protocol):
    """Somebody who answers questions about the canary."""

    @property
    def name(self) -> str: ...
    def ask(self) -> Mapping[str, bytes]:
        """Way → answer. Raises ``DrillError`` when there is none."""


class Reader:
    """A reader process of the drill's own. See ``api.drill.reader``."""

    def __init__(self, name: str, question: Question, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603 - this program's own module, and no shell
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
        )
        told = {
            "ledger_id": str(question.ledger_id),
            "subject_ref": question.subject_ref.hex(),
            "stream_ref": question.stream_ref.hex(),
            "position": question.position,
        }
        self._tell(json.dumps(told).encode())

    def ask(self) -> Mapping[str, bytes]:
        """Have it ask in every way."""
        self._tell(b"{}")
        pipe = self._process.stdout
        ready = select.select([pipe], [], [], _PATIENCE_SECONDS)[0] if pipe is not None else []
        line = pipe.readline() if pipe is not None and ready else b""
        if not line:
            raise DrillError(f"{self.name} did not answer; does `audit-ledger verify --ledger {LEDGER}` work here?")
        return {way: answer.encode() for way, answer in json.loads(line).items()}

    def remembered(self, forms: Collection[bytes]) -> int | None:
        """In how many places of its memory one of these forms stands; None where the system does not let us look."""
        try:
            return sum(block.count(form) for block in self._memory() for form in forms)
        except OSError:
            return None

    def _memory(self) -> Iterator[bytes]:
        """What it may write to: that is where answers and keys lie."""
        with open(f"/proc/{self._process.pid}/maps") as maps, open(f"/proc/{self._process.pid}/mem", "rb", 0) as memory:
            for line in maps:
                area, rights, *_ = line.split()
                if not rights.startswith("rw"):
                    continue
                start, end = (int(address, 16) for address in area.split("-"))
                memory.seek(start)
                try:
                    yield from (memory.read(min(_BLOCK, end - place)) for place in range(start, end, _BLOCK))
                except OSError:  # the kernel's own pages, such as [vvar]
                    continue

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, line: bytes) -> None:
        if self._process.stdin is None:
            raise DrillError(f"{self.name} cannot be told anything")
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise DrillError(f"{self.name} has ended; are the settings right? Try `audit-ledger query`") from None


class Server:
    """A server that runs already, asked over HTTP with a key of its own."""

    def __init__(self, url: str, key: str, question: Question) -> None:
        self.name = f"the server at {url}"
        self._url = urlsplit(url)
        self._key = key
        self._question = question

    def ask(self) -> Mapping[str, bytes]:
        """Ask in every way, each over a connection of its own, so that any of its processes may answer."""
        return {
            way: self._send(end, body, NDJSON if way == "export" else JSON)
            for way, (end, body) in requests_for(self._question).items()
        }

    def _send(self, end: str, body: Mapping[str, object], accept: str) -> bytes:
        path = f"{self._url.path.rstrip('/')}/v1/ledgers/{LEDGER}/{end}"
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": JSON, "Accept": accept}
        try:
            with closing(self._connection()) as connection:
                connection.request("POST", path, json.dumps(body), headers)
                response = connection.getresponse()
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DrillError(f"{self.name} cannot be asked ({type(error).__name__}); is it there?") from None
        if response.status != _OK:
            raise DrillError(
                f"{self.name} answered {end} with status {response.status}; --key-file must hold a key with the role "
                f"auditor for the ledger {LEDGER!r}, and the server must use this installation's databases"
            )
        return content

    def _connection(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, self._url.port, timeout=_PATIENCE_SECONDS, context=context)
        return http.client.HTTPConnection(host, self._url.port, timeout=_PATIENCE_SECONDS)
