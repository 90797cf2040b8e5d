"""How things grow with a ledger: pages of every filter, a state of the past, an erasure, the memory of reading it all.

Several ledgers of different sizes stand in one database, and every question takes turns in all of them.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from api.config import Settings
from api.wiring import Service, open_service
from ledger.domain.query import DEFAULT_LIMIT, AsOf, EventQuery, NameOrRef
from ledger.services.counting import filling
from ledger.services.erase import ErasureOrder, ErasureOutcome, erase_subject
from ledger.services.proving.publishing import publish
from ledger.services.read import query_events
from ledger.services.timetravel.state import stream_state
from scripts.benchmarks.frame import AtMost, Engine, Report, in_turns
from scripts.benchmarks.support.growth import report_growth
from scripts.benchmarks.support.planting import BATCH, BEGAN, LONG, MANY, SPECIAL, STEP, Planter, correlation, writer
from scripts.benchmarks.verify import mebibytes, verify_as_a_command
from tests.support.server import NDJSON, ServedLedger

SIZES: Final = (20_000, 100_000)
FULL_SIZES: Final = (100_000, 1_000_000)
CROWDED: Final = (200_000, 160_000)
FULL_CROWDED: Final = (1_200_000, 1_000_000)
"""Events of a ledger, and how many of them the same few people take part in."""

ROUNDS: Final = 15
SEVERAL: Final = 3
"""How often a quick question is asked in one turn."""

PAGE_BAR: Final = AtMost(2)
STATE_BAR: Final = AtMost(1.3)
ERASURE_BAR: Final = AtMost(1.5)
MEMORY_BAR: Final = AtMost(1.2)

_WRITER: Final = UUID(int=1)
_KIBIBYTE: Final = 1024


@dataclass(frozen=True, slots=True)
class _Planted:
    """A ledger of so many events."""

    name: str
    ledger_id: UUID
    size: int


def run(report: Report) -> None:
    """On each engine."""
    sizes = report.scales or (FULL_SIZES if report.full else SIZES)
    for engine in report.engines:
        report.heading(f"scale on {engine}: ledgers of {' and '.join(f'{size:,}' for size in sizes)} events")
        # One worker, so that there is one whose memory counts.
        with report.served(engine, {"AUDIT_LEDGER_WORKERS": "1"}) as server:
            service = open_service(Settings.from_environment(server.environment))
            with closing(service):
                ledgers = [_planted(report, server, service, size) for size in sizes]
                _measure_pages(report, engine, service, ledgers)
                _measure_states(report, engine, service, ledgers)
                _measure_memory(report, server, ledgers)
                _measure_erasures(report, engine, service, ledgers)
                _measure_crowded(report, engine, server, service)


def _planted(report: Report, server: ServedLedger, service: Service, size: int, many: int = 0) -> _Planted:
    name = f"planted-{size}" if not many else f"crowded-{size}"
    ledger_id = UUID(server.client.get(server.make_ledger(name)).json()["id"])
    began = time.perf_counter()
    Planter(service.deps, service.engine, ledger_id, many=many).plant(size)
    # As a worker does beside; a proof of an erasure looks at what is published.
    publish(service.deps, ledger_id)
    report.note(f"{size:,} events were planted in {time.perf_counter() - began:.0f} s")
    return _Planted(name, ledger_id, size)


def _questions(size: int) -> Mapping[str, EventQuery]:
    """The first page of every filter of the query contract, about the middle of the ledger where there is a choice."""
    middle = size // 2
    moment = BEGAN + middle // BATCH * STEP
    return {
        "no filter": EventQuery(),
        "newest first": EventQuery(order="desc"),
        "stream": EventQuery(stream=NameOrRef("patient-long-0", None)),
        "stream, after a version": EventQuery(stream=NameOrRef("patient-long-0", None), after_version=LONG // 2),
        "category": EventQuery(category="lab"),
        "category that nobody uses": EventQuery(category="nothing"),
        "type": EventQuery(types=("Type3",)),
        "two types": EventQuery(types=("Type3", "Type4")),
        "type of 10 events": EventQuery(types=("Rare",)),
        "subject": EventQuery(subject=NameOrRef("long-1", None)),
        "actor": EventQuery(actor=NameOrRef("group:3", None)),
        "involving": EventQuery(involving=NameOrRef("long-1", None)),
        "subject and type of 10 events": EventQuery(subject=NameOrRef("long-1", None), types=("Rare",)),
        "correlation id": EventQuery(correlation_id=correlation(middle)),
        "recorded by": EventQuery(recorded_by=writer(3)),
        "recorded from … to": EventQuery(recorded_from=moment, recorded_to=moment + 2 * STEP),
        "occurred from … to": EventQuery(occurred_from=moment, occurred_to=moment + STEP),
        "in order of occurrence": EventQuery(order_by="occurred"),
        "as of a time": EventQuery(as_of=AsOf(time=moment)),
        "as of a position, newest first": EventQuery(as_of=AsOf(position=middle), order="desc"),
    }


def _measure_pages(report: Report, engine: Engine, service: Service, ledgers: list[_Planted]) -> None:
    def ask(ledger: _Planted, query: EventQuery) -> None:
        for _ in range(SEVERAL):
            query_events(service.deps, ledger.ledger_id, query, cursor=None, limit=DEFAULT_LIMIT)

    growth = {}
    for name in _questions(ledgers[0].size):
        works = [partial(ask, ledger, _questions(ledger.size)[name]) for ledger in ledgers]
        times = [[seconds / SEVERAL for seconds in rounds] for rounds in in_turns(works, ROUNDS)]
        growth[name] = _by_size(ledgers, times)
    report_growth(report, f"first pages of {DEFAULT_LIMIT} events on {engine}", growth, PAGE_BAR)


def _measure_states(report: Report, engine: Engine, service: Service, ledgers: list[_Planted]) -> None:
    """A stream of 1,000 events that are spread over the whole ledger, as it was when it had 500; without and with a
    snapshot on the way, which the first of them leaves behind."""

    def ask(ledger: _Planted) -> None:
        moment = AsOf(position=ledger.size // 2)
        stream_state(service.deps, ledger.ledger_id, NameOrRef("patient-long-0", None), moment)

    times = in_turns([partial(ask, ledger) for ledger in ledgers], ROUNDS)
    growth = {f"state of a stream of {LONG:,} events, at its middle": _by_size(ledgers, times)}
    report_growth(report, f"states on {engine}", growth, STATE_BAR)


def _measure_erasures(report: Report, engine: Engine, service: Service, ledgers: list[_Planted]) -> None:
    """Erase people with one event and with 1,000; each can be erased once."""
    few: dict[int, list[float]] = {ledger.size: [] for ledger in ledgers}
    many: dict[int, list[float]] = {ledger.size: [] for ledger in ledgers}
    for number in range(SPECIAL):
        # They take turns, so that what else the machine does falls on all of them.
        for ledger in ledgers if number % 2 else reversed(ledgers):
            for times, name in ((few, f"once-{number}"), (many, f"long-{number}")):
                times[ledger.size].append(_seconds(partial(_erase, service, ledger.ledger_id, name)))
    growth = {"of a person with one event": few, f"of a person with {LONG:,} events": many}
    report_growth(report, f"erasures on {engine}", growth, ERASURE_BAR)
    largest = ledgers[-1].size
    name = f"erasing a person with {LONG:,} events ÷ with one, among {largest:,}"
    report.ratio_of(name, few[largest], many[largest], ERASURE_BAR)


def _measure_crowded(report: Report, engine: Engine, server: ServedLedger, service: Service) -> None:
    """Erase people with one event, and with nearly all that a ledger has, when a worker has done its part."""
    size, many = FULL_CROWDED if report.full else CROWDED
    ledger = _planted(report, server, service, size, many)
    began, processor = time.perf_counter(), time.process_time()
    holder = service.deps.new_id()
    while filling.step(service.deps, ledger.ledger_id, holder):
        pass
    spent = (time.process_time() - processor) / size * 1e6
    report.note(
        f"the windows were made in {time.perf_counter() - began:.0f} s, {spent:.1f} µs of this processor an event"
    )
    # The first erasure fills caches and is not counted.
    _erase(service, ledger.ledger_id, f"once-{MANY}")
    few: list[float] = []
    most: list[float] = []
    for number in range(MANY):
        turns = [(few, f"once-{number}", 1), (most, f"many-{number}", many)]
        for times, name, expected in turns if number % 2 else reversed(turns):
            began = time.perf_counter()
            outcome = _erase(service, ledger.ledger_id, name)
            times.append(time.perf_counter() - began)
            if outcome.receipt.payload["events"] != expected:
                raise RuntimeError(f"an erasure of {expected} events says {outcome.receipt.payload['events']}")
    name = f"erasure of a person with {many:,} events of {size:,} ÷ with one, on {engine}"
    report.ratio_of(name, few, most, ERASURE_BAR)


def _erase(service: Service, ledger_id: UUID, name: str) -> ErasureOutcome:
    order = ErasureOrder(NameOrRef(name, None), None, None, None, False, _WRITER)
    return erase_subject(service.deps, ledger_id, order)


def _measure_memory(report: Report, server: ServedLedger, ledgers: list[_Planted]) -> None:
    small, large = ledgers[0], ledgers[-1]
    _export(server, small)
    least = _peak(server)
    count, seconds = _export(server, large)
    report.note(f"an export of {count:,} events took {seconds:.1f} s: {count / seconds:,.0f} a second")
    name = f"memory of the server after an export of {large.size:,} events ÷ of {small.size:,}"
    report.ratio_of(name, [least], [_peak(server)], MEMORY_BAR, shown=mebibytes)
    (_, least), (_, most) = (verify_as_a_command(server.environment, ledger.name, jobs=1) for ledger in (small, large))
    name = f"memory of verify for {large.size:,} events ÷ for {small.size:,}"
    report.ratio_of(name, [least], [most], MEMORY_BAR, shown=mebibytes)


def _export(server: ServedLedger, ledger: _Planted) -> tuple[int, float]:
    """Stream everything and count it, holding nothing."""
    headers = {
        "Authorization": f"Bearer {server.client.key}", "Content-Type": "application/json", "Accept": NDJSON,
    }  # fmt: skip
    began, lines, last = time.perf_counter(), 0, b""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)) as connection:
        connection.request("POST", f"/v1/ledgers/{ledger.name}/query", b"{}", headers)
        answer = connection.getresponse()
        while data := answer.read1(1 << 20):
            lines += data.count(b"\n")
            last = (last + data)[-200:]
    count = lines - 1
    if answer.status != 200 or b'"end":true' not in last or count != ledger.size:
        raise RuntimeError(f"an export of {ledger.size} events was answered {answer.status} with {count}")
    return count, time.perf_counter() - began


def _peak(server: ServedLedger) -> float:
    """The kibibytes that a process of the server has taken at most: of the one that took most (proc(5), "VmHWM")."""
    peaks = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields: dict[str, Any] = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "VmHWM" in fields and server.process_id in (int(fields["PPid"]), int(fields["Pid"])):
            peaks.append(float(fields["VmHWM"].split()[0]))
    return max(peaks)


def _by_size(ledgers: list[_Planted], times: list[list[float]]) -> dict[int, list[float]]:
    return {ledger.size: seconds for ledger, seconds in zip(ledgers, times, strict=True)}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
