"""What ``scripts/bench`` says and writes: what could not be measured is missed, and every line is in the JSON."""

from __future__ import annotations

import io
import json
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from typing_extensions import override

from scripts.benchmarks import __main__ as bench
from scripts.benchmarks.frame import AtLeast, AtMost, Report, results_in_turns
from scripts.benchmarks.support.drawing import line_chart
from scripts.benchmarks.support.growth import report_growth
from scripts.benchmarks.support.load import LoadProcess, Storm
from scripts.benchmarks.support.payloads import EventIds, lines_of, request_of, single_appends, visit
from scripts.benchmarks.support.payloads import Request as Prepared
from scripts.benchmarks.support.peers import EventSourcing, PeerMissingError, peer_versions
from scripts.benchmarks.support.processors import OTHERS, Accounts


def report_of(plots: Path | None = None) -> Report:
    """A report that writes to memory."""
    return Report(full=False, out=io.StringIO(), plots=plots)


def test_works_that_measure_themselves_take_turns_too() -> None:
    """The first turn of each is not counted."""
    numbers = iter(range(100))
    assert results_in_turns([lambda: next(numbers), lambda: -next(numbers)], rounds=2) == [[2, 5], [-3, -4]]


def test_what_could_not_be_measured_is_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It stands in the table, in the JSON and in the exit status."""
    monkeypatch.setattr(bench, "names", lambda: ["made-up"])
    monkeypatch.setattr(bench, "load", lambda name: lambda report: report.not_measured("ours ÷ theirs", "offline"))
    file = tmp_path / "results.json"
    assert bench.main(["--json", str(file)]) == 1
    written = json.loads(file.read_text())
    assert written["missed"] == ["ours ÷ theirs: not measured (made-up)"]
    assert [line["verdict"] for line in written["results"]] == ["not measured"]


def test_the_json_has_every_line_and_its_circumstances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With medians, rounds, ratio, bar and verdict; machine, versions and date."""

    def run(report: Report) -> None:
        report.heading("numbers")
        report.ratio_of("three ÷ one", [1.0, 1.0], [3.0, 3.0], AtMost(2))
        report.ratio_of("one ÷ one", [1.0], [1.0], AtLeast(1))
        report.ratio_of("only shown", [1.0], [2.0])

    monkeypatch.setattr(bench, "names", lambda: ["made-up"])
    monkeypatch.setattr(bench, "load", lambda name: run)
    file = tmp_path / "results.json"
    assert bench.main(["--json", str(file)]) == 1
    written = json.loads(file.read_text())
    first, second, third = written["results"]
    assert first == {
        "group": "numbers",
        "kind": "ratio",
        "name": "three ÷ one",
        "medians": {"measured": 3.0, "against": 1.0},
        "shown": {"measured": "3.00 s", "against": "1.00 s"},
        "rounds": {"measured": [3.0, 3.0], "against": [1.0, 1.0]},
        "ratio": 3.0,
        "bar": "at most 2",
        "verdict": "missed",
    }
    assert (second["verdict"], third["verdict"], third["bar"]) == ("ok", None, None)
    assert {"cpu", "cores", "memory_bytes", "kernel"} <= written["machine"].keys()
    assert {"python", "postgresql", "sqlite", "package", "commit"} <= written["versions"].keys()
    assert {"eventsourcing", "message-db"} == written["peers"].keys()
    assert written["date"]


def test_a_peer_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the folder that was looked into."""
    monkeypatch.setenv("PEERS", str(tmp_path))
    assert peer_versions() == {"eventsourcing": None, "message-db": None}
    with pytest.raises(PeerMissingError, match=str(tmp_path)):
        EventSourcing("postgresql://u:p@localhost:1/d")


def test_events_have_about_250_bytes_and_ids_of_their_own() -> None:
    """Ids that the ledger takes: version 7."""
    ids = EventIds()
    events = [json.loads(line) for line in lines_of(range(500), ids, streams=7).splitlines()]
    assert len({event["id"] for event in events}) == 500
    assert {UUID(event["id"]).version for event in events} == {7}
    assert len({event["stream"] for event in events}) == 7
    assert all(230 <= len(json.dumps(visit(number))) <= 270 for number in range(500))


def test_a_prepared_append_gets_another_id_each_time() -> None:
    """And is as long as it says."""
    ids = EventIds()
    (request,) = single_appends("/v1/ledgers/x", "key", streams=1)
    found = []
    for _ in range(2):
        head, _, body = request.filled(ids).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        found.append(json.loads(body))
    assert found[0]["id"] != found[1]["id"]
    assert found[0]["data"] == found[1]["data"]


class Counting(BaseHTTPRequestHandler):
    """Answers every POST, and counts."""

    protocol_version = "HTTP/1.1"
    # Headers and body go out in one piece.
    wbufsize = -1
    answered = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        with Counting.lock:
            Counting.answered += 1
        self.send_response(201)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Where ``Counting`` listens."""
    Counting.answered = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_clients_count_what_was_answered(port: int) -> None:
    """Every request that the server has seen, and none more."""
    client = LoadProcess()
    try:
        client.prepare(Storm(port, [[Prepared(request_of("/", "key", b"{}"))]] * 3, 201, 0.2))
        client.go()
        loaded = client.finish()
        assert loaded.count == Counting.answered > 3
        assert 0.2 <= loaded.seconds < 30
        assert 0 < loaded.cpu < loaded.seconds
    finally:
        client.close()


def test_clients_fail_on_an_answer_that_is_not_what_it_should_be(port: int) -> None:
    """A benchmark of refusals would be quick."""
    client = LoadProcess()
    try:
        client.prepare(Storm(port, [[Prepared(request_of("/", "key", b"{}"))]], 200, 0.1))
        client.go()
        with pytest.raises(RuntimeError, match="a client failed"):
            client.finish()
    finally:
        client.close()


def test_processor_time_is_told_apart() -> None:
    """What this process has used is its own and nobody else's."""
    accounts = Accounts({"me": time.process_time})
    accounts.begin()
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    used = accounts.end({"client": 0.0})
    assert used["client"] == 0.0
    assert 0.2 <= used["me"] < 5
    assert used[OTHERS] >= 0.0


def test_growth_is_compared_and_drawn(tmp_path: Path) -> None:
    """The largest against the smallest; every line is in the drawing, and slower is higher up."""
    report = report_of(tmp_path)
    growth = {"steady": {10: [1.0], 1000: [1.0]}, "<growing>": {10: [0.001], 1000: [0.1]}}
    report_growth(report, "Pages & more", growth, AtMost(2))
    assert [line["ratio"] for line in report.results if line["kind"] == "ratio"] == [1.0, 100.0]
    assert len(report.missed) == 1
    drawing = ET.fromstring((tmp_path / "pages-more.svg").read_text())  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert {"Pages & more", "steady", "<growing>"} <= {text.text for text in drawing.iter(f"{space}text")}
    points = [line.attrib["points"].split() for line in drawing.iter(f"{space}polyline")]
    (_, first), (_, last) = (point.split(",") for point in points[1])
    assert float(last) < float(first)


def test_a_chart_of_one_value_can_be_drawn() -> None:
    """An axis has some length even then."""
    assert "NaN" not in line_chart("one", "x", "y", {"a": [(10.0, 1.0)]})
