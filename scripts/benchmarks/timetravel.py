"""Time travel: what a state costs, how far apart snapshots should stand, and many states in one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from ledger.domain.fold import MERGE_PATCH, Fold, Folded
from ledger.domain.intake import parse_batch
from ledger.domain.query import AsOf, NameOrRef
from ledger.domain.snapshot import EVERY
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.timetravel import snapshots
from ledger.services.timetravel.folding import fold_onward
from ledger.services.timetravel.snapshotting import step
from ledger.services.timetravel.state import fold_stream, stream_state
from scripts.benchmarks.frame import AtLeast, AtMost, Engine, Report
from tests.support.server import Client
from tests.support.service import new_ledger

WRITER: Final = UUID(int=1)
WORKER: Final = UUID(int=2)
BATCH: Final = 1000
DISTANCES: Final = (10, 25, 50, 100, 200, 500, 1000)
SHORT: Final = 100
SEVERAL: Final = 5
"""How often a quick thing is done in one turn."""

COST_BAR: Final = AtMost(3)
STATES_BAR: Final = AtLeast(10)


def run(report: Report) -> None:
    """All of it, on each engine."""
    for engine in report.engines:
        report.heading(f"timetravel on {engine}")
        _measure_distances(report, engine)
        _measure_length(report, engine)
        _measure_over_http(report, engine)


def _an_event(stream: str, number: int) -> dict[str, Any]:
    """A visit as a hospital's ledger has it: a few fields of which most change now and then."""
    return {
        "stream": stream,
        "type": "Visit",
        "subject": f"patient:{stream}",
        "data": {"crp": number, f"field{number % 40}": {"value": number, "unit": "mg/l"}, "note": "x" * 80},
        "nonpersonal": {"ward": number % 7},
        "actor": "group:L",
    }


def _fill(deps: Dependencies, ledger_id: UUID, stream: str, count: int) -> bytes:
    """A stream of so many events; gives its ref."""
    ref = b""
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        batch = parse_batch({"events": [_an_event(stream, number) for number in numbers]})
        ref = append_events(deps, ledger_id, batch, WRITER).events[0].stream_ref
    return ref


def _measure_distances(report: Report, engine: Engine) -> None:
    """The time of a read against the distance of snapshots: at its worst, one event before the next would be due."""
    with report.fresh_service(engine) as service:
        deps, ledger_id = service.deps, new_ledger(service).ledger_id
        base = 1000
        ref = _fill(deps, ledger_id, "patient-1", base + max(DISTANCES))
        whole = fold_stream(deps, ledger_id, ref, base - 1)
        works = {}
        for distance in DISTANCES:
            fold = replace(MERGE_PATCH, name=f"every-{distance}")
            snapshots.keep(deps, ledger_id, fold, [(ref, whole)])
            works[f"every {distance}"] = partial(_read_often, deps, ledger_id, ref, base + distance - 2, fold)
        report.curve("the slowest read of a state, by how far apart snapshots stand", works)
        size = len(deps.derived.snapshots.nearest_snapshots(ledger_id, "every-100/1", [ref], base)[ref].sealed)
        shares = ", ".join(f"{size // distance} at {distance}" for distance in DISTANCES)
        report.note(f"a snapshot has {size} bytes here; bytes of snapshots for each event: {shares}")


def _read_often(deps: Dependencies, ledger_id: UUID, ref: bytes, position: int, fold: Fold) -> None:
    for _ in range(SEVERAL):
        fold_onward(deps, ledger_id, [ref], position, fold, _keep_nothing)


def _keep_nothing(_ref: bytes, _folded: Folded) -> None:
    """So that every turn finds what the first one found."""


def _measure_length(report: Report, engine: Engine) -> None:
    """A long stream against one of 100 events, at moments that are as far behind the nearest snapshot."""
    long = report.size(5_000, 100_000)
    with report.fresh_service(engine) as service:
        deps, ledger_id = service.deps, new_ledger(service).ledger_id
        short_ref = _fill(deps, ledger_id, "patient-short", SHORT)
        long_ref = _fill(deps, ledger_id, "patient-long", long)
        while step(deps, ledger_id, WORKER):
            pass
        for behind in (0, EVERY // 2, EVERY - 1):
            short_moment = (SHORT if behind == 0 else behind) - 1
            for name, version in (("early", EVERY), ("in the middle", long // 2), ("late", long - EVERY)):
                moment = SHORT + version + behind - 1
                report.ratio(
                    f"state of {long} events, {name}, {behind} behind a snapshot ÷ of {SHORT} events",
                    partial(_ask_often, deps, ledger_id, short_ref, short_moment),
                    partial(_ask_often, deps, ledger_id, long_ref, moment),
                    COST_BAR,
                )


def _ask_often(deps: Dependencies, ledger_id: UUID, ref: bytes, position: int) -> None:
    for _ in range(SEVERAL):
        stream_state(deps, ledger_id, NameOrRef(None, ref), AsOf(position=position))


def _measure_over_http(report: Report, engine: Engine) -> None:
    """What a client sees: moments of a long stream against the quickest of a short one, which is its newest state
    and a snapshot; and one question for many states against one question each."""
    long, count = report.size(5_000, 100_000), report.size(200, 1000)
    with report.served(engine) as server:
        client, path = server.client, server.make_ledger("bench")
        _send(client, path, [_an_event("lab-short", number) for number in range(SHORT)])
        _send(client, path, [_an_event("lab-long", number) for number in range(long)])
        newest, middle = [SHORT - 1] * SEVERAL, SHORT + long // 2 - 1
        spread = [middle + number * (EVERY - 1) // (SEVERAL - 1) for number in range(SEVERAL)]
        for name, moments, bar in (
            ("moments 0 to 99 behind a snapshot", spread, COST_BAR),
            ("its slowest moment", [middle + EVERY - 1] * SEVERAL, None),
        ):
            report.ratio(
                f"state of {long} events, {name} ÷ newest of {SHORT} events; over HTTP",
                partial(_ask_at, client, path, "lab-short", newest),
                partial(_ask_at, client, path, "lab-long", moments),
                bar,
            )
        _send(client, path, [_an_event(f"patient-{number % count}", number) for number in range(3 * count)])
        refs = [state["stream_ref"] for state in _ask_states(client, path, count)]
        report.ratio(
            f"{count} × state ÷ one page of {count} states; over HTTP",
            partial(_ask_states, client, path, count),
            partial(_ask_each, client, path, refs),
            STATES_BAR,
            rounds=report.size(3, 5),
        )


def _send(client: Client, path: str, events: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(events), BATCH):
        answer = client.post(f"{path}/events", {"events": events[start : start + BATCH]})
        if answer.status != 201:
            raise RuntimeError(f"the benchmark could not append: {answer.status}")


def _ask_at(client: Client, path: str, stream: str, positions: Sequence[int]) -> None:
    for position in positions:
        answer = client.post(f"{path}/state", {"stream": stream, "as_of": {"position": position}})
        if answer.status != 200:
            raise RuntimeError(f"the benchmark could not ask: {answer.status}")


def _ask_states(client: Client, path: str, count: int) -> Sequence[dict[str, Any]]:
    answer = client.post(f"{path}/states", {"category": "patient", "limit": count})
    states: Sequence[dict[str, Any]] = answer.json()["states"]
    if len(states) != count:
        raise RuntimeError(f"the benchmark expected {count} states and got {len(states)}")
    return states


def _ask_each(client: Client, path: str, refs: Sequence[str]) -> None:
    for ref in refs:
        answer = client.post(f"{path}/state", {"stream_ref": ref})
        if answer.status != 200:
            raise RuntimeError(f"the benchmark could not ask: {answer.status}")
