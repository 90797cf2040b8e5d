"""Projections: what keeping a read model costs, whether that grows with the ledger, and what reading it saves."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from ledger.domain.intake import parse_batch
from ledger.domain.projection import Projection
from ledger.domain.query import DEFAULT_LIMIT, EventQuery
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.projecting.read_models import list_documents
from ledger.services.projecting.runner import BATCH_EVENTS, step
from ledger.services.projecting.shipped import ACTIVITY, CURRENT_STATE, DAILY_COUNTS
from ledger.services.read import export_events
from ledger.services.timetravel.states import stream_states
from scripts.benchmarks.frame import AtMost, Engine, Report
from tests.support.service import new_ledger

WRITER: Final = UUID(int=1)
WORKER: Final = UUID(int=2)
EVENTS_OF_A_STREAM: Final = 5
ROUNDS: Final = 3
"""A round projects the whole ledger."""

COST_BAR: Final = AtMost(4)
GROWTH_BAR: Final = AtMost(1.5)
READ_BAR: Final = AtMost(1)


def run(report: Report) -> None:
    """All of it, on each engine."""
    streams = report.size(1_500, 10_000)
    for engine in report.engines:
        report.heading(f"projecting on {engine}: {streams} streams of {EVENTS_OF_A_STREAM} events")
        _measure(report, engine, streams)


def _measure(report: Report, engine: Engine, streams: int) -> None:
    with report.fresh_service(engine) as service:
        deps, ledger_id = service.deps, new_ledger(service).ledger_id
        _fill(deps, ledger_id, streams)
        numbers = itertools.count()
        for projection in (CURRENT_STATE, ACTIVITY, DAILY_COUNTS):
            report.ratio(
                f"{projection.name}: projecting a ledger ÷ reading all its events",
                partial(_read_all, deps, ledger_id),
                partial(_project_anew, deps, ledger_id, projection, numbers),
                COST_BAR,
                rounds=ROUNDS,
            )
        _measure_growth(report, deps, ledger_id, numbers)
        _run(deps, ledger_id, CURRENT_STATE)
        report.ratio(
            f"{DEFAULT_LIMIT} current states of a category, from the read model ÷ from the events",
            partial(stream_states, deps, ledger_id, category="patient", subject=None, as_of=None, occurred_as_of=None,
                    cursor=None, limit=DEFAULT_LIMIT),
            partial(list_documents, deps, ledger_id, CURRENT_STATE, "patient", cursor=None, limit=DEFAULT_LIMIT),
            READ_BAR,
        )  # fmt: skip


def _fill(deps: Dependencies, ledger_id: UUID, streams: int) -> None:
    """Every stream gets an event, then every stream the next one: so each batch is of as many streams as can be."""
    everything = (_an_event(stream, number) for number in range(EVENTS_OF_A_STREAM) for stream in range(streams))
    while batch := list(itertools.islice(everything, BATCH_EVENTS)):
        append_events(deps, ledger_id, parse_batch({"events": batch}), WRITER)


def _an_event(stream: int, number: int) -> dict[str, Any]:
    return {
        "stream": f"patient-{stream}",
        "type": f"Visit{number}",
        "subject": f"patient:{stream}",
        "data": {"crp": number, "note": "x" * 80},
        "actor": f"group:{stream % 20}",
    }


def _read_all(deps: Dependencies, ledger_id: UUID) -> None:
    for _ in export_events(deps, ledger_id, EventQuery()):
        pass


def _run(deps: Dependencies, ledger_id: UUID, projection: Projection) -> None:
    while step(deps, ledger_id, [projection], WORKER):
        pass


def _project_anew(deps: Dependencies, ledger_id: UUID, projection: Projection, numbers: itertools.count[int]) -> None:
    """Under another name each time, so that there is nothing to go on from."""
    _run(deps, ledger_id, replace(projection, name=f"{projection.name}_{next(numbers)}"))


def _measure_growth(report: Report, deps: Dependencies, ledger_id: UUID, numbers: itertools.count[int]) -> None:
    """A step late in the ledger against one as early as documents are gone on with and no longer begun."""
    early, late = [], []
    for _ in range(ROUNDS):
        projection = replace(CURRENT_STATE, name=f"growing_{next(numbers)}")
        times = []
        worked = True
        while worked:
            began = time.perf_counter()
            worked = step(deps, ledger_id, [projection], WORKER)
            times.append(time.perf_counter() - began)
        rest = times[len(times) // EVENTS_OF_A_STREAM + 1 : -1]
        few = max(1, len(rest) // 4)
        early += rest[:few]
        late += rest[-few:]
    report.ratio_of("a step at the end of the ledger ÷ a step near its beginning", early, late, GROWTH_BAR)
