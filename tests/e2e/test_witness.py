"""The witness as logs and monitors meet it: over HTTP, across restarts, with clients that misbehave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import shutil
import signal
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from api.witness import server
from api.witness.state import create_state
from tests.support.logs import SignedLog, leaves
from tests.support.server import free_port, raw_connection
from tests.support.witness import WitnessProcess, run_program


@pytest.fixture
def log() -> SignedLog:
    """A log of its own, so that tests can share a witness."""
    return SignedLog(leaves(60))


@pytest.fixture(scope="module")
def standing() -> Iterator[WitnessProcess]:
    """A witness that nobody stops."""
    with WitnessProcess() as process:
        yield process


@pytest.fixture
def witness(standing: WitnessProcess, log: SignedLog) -> WitnessProcess:
    """The same, which cosigns the log."""
    standing.trust(log.key)
    return standing


@pytest.fixture
def own_witness(log: SignedLog) -> Iterator[WitnessProcess]:
    """A witness of the test's own, which cosigns the log."""
    with WitnessProcess() as process:
        process.trust(log.key)
        yield process


def cosigned_at(line: str, text: str, verifier_key: str) -> int:
    """When a cosignature says that it was made, checked as the specification tells, with none of our own code."""
    name, key_id, encoded = verifier_key.split("+", 2)
    material = base64.b64decode(encoded)
    assert material[0] == 4
    assert hashlib.sha256(name.encode() + b"\n\x04" + material[1:]).hexdigest()[:8] == key_id
    dash, signer, signature = line.removesuffix("\n").split(" ")
    assert (dash, signer) == ("\u2014", name)
    signed = base64.b64decode(signature)
    assert signed[:4].hex() == key_id
    assert len(signed) == 4 + 8 + 64
    timestamp = int.from_bytes(signed[4:12], "big")
    message = f"cosignature/v1\ntime {timestamp}\n{text}".encode()
    Ed25519PublicKey.from_public_bytes(material[1:]).verify(signed[12:], message)
    return timestamp


def text_of(note: str) -> str:
    """The text of a note."""
    return note.rpartition("\n\n")[0] + "\n"


def test_a_log_is_cosigned_as_it_grows(witness: WitnessProcess, log: SignedLog) -> None:
    """200 with one cosignature that verifies, at every size and again at the same; monitors get the last one."""
    before = int(time.time())
    old = 0
    for size in (0, 1, 20, 20, 60):
        answer = witness.add(log.request(old, size))
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        line = answer.body.decode()
        assert before <= cosigned_at(line, text_of(log.note(size)), witness.verifier_key) <= time.time()
        path = f"/{hashlib.sha256(log.key.name.encode()).hexdigest()}/checkpoint"
        assert witness.client.get(path).body.decode() == log.note(size) + line
        old = size


def test_every_refusal_has_the_status_of_the_specification(witness: WitnessProcess, log: SignedLog) -> None:
    """400, 403, 404, 409 with the size, 422, 405, 413, 411; and nothing was cosigned by them."""
    assert witness.add(log.request(0, 20)).status == 200
    other = SignedLog(leaves(9), "log.example/other")
    impostor = SignedLog(leaves(60), log.key.name)
    fork = log.fork(10, leaves(50, "other"))
    conflict = witness.add(log.request(0, 40))
    assert (conflict.status, conflict.body, conflict.headers["content-type"]) == (409, b"20\n", "text/x.tlog.size")
    assert witness.add(log.request(19, 40)).body == b"20\n"
    assert witness.add(b"old 21\n\n" + log.note(20).encode()).status == 400
    assert witness.add(b"nonsense").status == 400
    assert witness.add(impostor.request(20, 40)).status == 403
    assert witness.add(other.request(0, 9)).status == 404
    assert witness.add(fork.request(20, 40)).status == 422
    assert witness.add(fork.request(20, 20)).status == 422
    assert witness.client.get("/add-checkpoint").status == 405
    assert witness.client.get("/").status == 404
    assert witness.client.get(f"/{'0' * 64}/checkpoint").status == 404
    assert witness.add(bytes(200_000)).status == 413
    assert witness.client.send("POST", "/add-checkpoint", iter([b"old 0\n"])).status == 411
    assert witness.add(log.request(20, 21)).status == 200


def test_a_second_history_is_refused_also_after_restarts_and_kept_as_evidence(
    own_witness: WitnessProcess, log: SignedLog
) -> None:
    """A fork of the same size or larger: 422 or 409, whatever was restarted between; both notes are kept."""
    fork = log.fork(10, leaves(40, "other"))
    assert own_witness.add(log.request(0, 30)).status == 200
    assert own_witness.stop() == 0
    own_witness.start()
    assert [own_witness.add(fork.request(old, size)).status for old, size in ((0, 30), (30, 30), (30, 50))] == [
        409,
        422,
        422,
    ]
    own_witness.kill()
    own_witness.start()
    assert own_witness.add(fork.request(30, 50)).status == 422
    assert own_witness.add(log.request(30, 60)).status == 200
    kept = sorted((own_witness.folder / "evidence").iterdir())
    assert len(kept) == 2
    for path, size in zip(kept, (30, 50), strict=True):
        assert fork.note(size) in path.read_text()
        assert log.note(30) in path.read_text()


def test_a_connection_is_kept_and_many_requests_may_follow(witness: WitnessProcess, log: SignedLog) -> None:
    """One connection for all requests of a log."""
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=30)
    connection.connect()
    first = connection.sock
    for old, size in ((0, 5), (5, 9), (9, 9)):
        connection.request("POST", "/add-checkpoint", log.request(old, size), {"Expect": "100-continue"})
        answer = connection.getresponse()
        assert (answer.status, connection.sock) == (200, first)
        answer.read()
    connection.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /livez HTTP/2.0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n folded: x\r\n\r\n",
        b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_plain_http_is_refused_and_the_connection_ends(witness: WitnessProcess, head: bytes) -> None:
    """No request of one client can hide in another's."""
    with raw_connection(witness.port) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert answer.count(b"HTTP/1.1 ") == 1


def test_clients_that_send_nothing_keep_nobody_from_being_cosigned(own_witness: WitnessProcess, log: SignedLog) -> None:
    """Bodies that do not come hold a connection, and no thread; told to stop, the witness does not wait for them."""
    stuck = [socket.create_connection(("127.0.0.1", own_witness.port)) for _ in range(100)]
    try:
        for connection in stuck:
            connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 100\r\n\r\nold")
        assert own_witness.add(log.request(0, 5)).status == 200
    finally:
        for connection in stuck:
            connection.close()
    assert own_witness.stop(signal.SIGINT) == 0


def test_a_folder_holds_one_witness_for_good(tmp_path: Path) -> None:
    """It is made once, for its owner alone; without its memory, or with another's, it does not serve."""
    folder, second = tmp_path / "first", tmp_path / "second"
    key = run_program("witness", "init", "--state", str(folder), "--name", "w.example").stdout
    run_program("witness", "init", "--state", str(second), "--name", "w.example")
    assert stat.S_IMODE((folder / "witness-key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "witness.db").stat().st_mode) == 0o600
    again = run_program("witness", "init", "--state", str(folder), "--name", "w.example", check=False)
    assert (again.returncode, "there is a witness" in again.stderr) == (1, True)
    assert run_program("witness", "key", "--state", str(folder)).stdout == key
    shutil.copy(second / "witness.db", folder / "witness.db")
    other = run_program("witness", "serve", "--state", str(folder), check=False)
    assert (other.returncode, "is not the state of w.example" in other.stderr) == (1, True)
    (folder / "witness.db").unlink()
    lost = run_program("witness", "serve", "--state", str(folder), check=False)
    assert (lost.returncode, "has lost its memory" in lost.stderr) == (1, True)
    assert not (folder / "witness.db").exists()


def test_a_state_that_cannot_be_used_is_a_503(own_witness: WitnessProcess, log: SignedLog) -> None:
    """Nobody is told that anything was cosigned that is not kept."""
    with contextlib.closing(sqlite3.connect(own_witness.folder / "witness.db", isolation_level=None)) as connection:
        connection.execute("DROP TABLE cosigned")
    assert own_witness.add(log.request(0, 5)).status == 503
    assert "witness-state-unavailable" in own_witness.log()


def test_what_was_cosigned_is_listed(witness: WitnessProcess, log: SignedLog) -> None:
    """Every log with the size of its last checkpoint; a witness's key is no log's."""
    witness.run("trust", log.key.text)
    assert f"{log.key.text} size 0 cosigned never" in witness.run("logs")
    assert witness.add(log.request(0, 7)).status == 200
    assert f"{log.key.text} size 7 cosigned 20" in witness.run("logs")
    wrong = run_program("witness", "trust", "--state", str(witness.folder), witness.verifier_key, check=False)
    assert (wrong.returncode, "the key of a witness" in wrong.stderr) == (1, True)
    typo = run_program("witness", "trust", "--state", str(witness.folder), log.key.text + "A", check=False)
    assert typo.returncode == 2


def test_who_is_too_slow_loses_the_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The time counts from the beginning of a request, and not from its last byte."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    port, ready = free_port(), threading.Event()
    loop = asyncio.new_event_loop()
    served = server.WitnessServer(create_state(tmp_path / "state", "w.example"))

    def run() -> None:
        loop.run_until_complete(served.run("127.0.0.1", port, ready.set))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    began = time.monotonic()
    with raw_connection(port) as connection:
        connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 20:
                connection.sendall(b"x")
                time.sleep(0.05)
    assert 0.4 < time.monotonic() - began < 10
    loop.call_soon_threadsafe(served.stop)
    thread.join(30)
    assert not thread.is_alive()
