"""Read models equal the fold of the log, for random histories with steps, crashes, erasures and rebuilds anywhere."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import SubjectErasedError
from ledger.services.dependencies import Dependencies
from ledger.services.projecting import runner
from ledger.services.projecting.generations import rebuild
from ledger.services.projecting.runner import LEASE, step
from ledger.services.projecting.shipped import SHIPPED
from tests.support.ledgers import Backend, Ledger, a_visit
from tests.support.projecting import assert_is_the_fold_of_the_log, run_all

PROJECTIONS = tuple(SHIPPED.values())
PEOPLE = ("A", "B", "C")


class CrashError(Exception):
    """The process is gone."""


class Crashing:
    """Read models of a process that dies at a commit: before it, or behind it and before anybody is told."""

    def __init__(self, models: Any, *, behind: bool) -> None:
        self._models = models
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def commit_documents(self, *arguments: Any) -> None:
        """Die."""
        if self._behind:
            self._models.commit_documents(*arguments)
        raise CrashError


visits = st.builds(
    lambda stream, field, value, actor, other: a_visit(
        stream,
        type=f"Set{field}",
        data={field: value},
        **({"actor": f"patient:{actor}"} if actor else {}),
        **({"parts": [{"subject": f"patient:{other}", "data": {"n": 1}}]} if other else {}),
        if_erased="omit",
    ),
    st.sampled_from(PEOPLE),
    st.sampled_from(("x", "y")),
    st.sampled_from((1, 2, None)),
    st.sampled_from((None, *PEOPLE)),
    st.sampled_from((None, *PEOPLE)),
)
steps = st.sampled_from((1, 2, 3, 500))
moves = st.one_of(
    st.tuples(st.just("append"), st.lists(visits, min_size=1, max_size=4)),
    st.tuples(st.just("step"), steps),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("rebuild"), st.sampled_from(sorted(SHIPPED))),
    st.tuples(st.sampled_from(("erase", "restrict", "lift")), st.sampled_from(PEOPLE)),
)


@settings(max_examples=25, deadline=None)
@given(history=st.lists(moves, max_size=14))
def test_read_models_are_the_fold_of_the_log(backend: Backend, history: list[tuple[str, Any]]) -> None:
    """At every moment up to their positions, and in the end up to the head."""
    ledger = backend.new_ledger()
    step(ledger.deps, ledger.ledger_id, PROJECTIONS, uuid4())
    for what, how in history:
        backend.clock.now += LEASE
        with pytest.MonkeyPatch.context() as patch:
            if what == "step":
                patch.setattr(runner, "BATCH_EVENTS", how)
                step(ledger.deps, ledger.ledger_id, PROJECTIONS, uuid4())
            else:
                MOVES[what](ledger, how)
        assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)
    backend.clock.now += LEASE
    run_all(ledger.deps, ledger.ledger_id, PROJECTIONS, UUID(int=7))
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)
    cursors = ledger.deps.derived.cursors.cursors(ledger.ledger_id, "projection")
    assert {(cursor.state, cursor.position) for cursor in cursors} == {("running", ledger.size() - 1)}
    assert ledger.alarms == []


def append(ledger: Ledger, events: list[dict[str, Any]]) -> None:
    """Record events, each for itself: nothing can be recorded in the stream of somebody who is erased."""
    for event in events:
        with contextlib.suppress(SubjectErasedError):
            ledger.append(event)


def crash(ledger: Ledger, behind: bool) -> None:
    """A step of a process that dies at its first commit."""
    crashing = Crashing(ledger.deps.derived.read_models, behind=behind)
    deps: Dependencies = replace(ledger.deps, derived=replace(ledger.deps.derived, read_models=crashing))
    with contextlib.suppress(CrashError):
        step(deps, ledger.ledger_id, PROJECTIONS, uuid4())


def erase(ledger: Ledger, person: str) -> None:
    """Erase somebody who is known, with what they did as an actor."""
    entry = ledger.deps.vault.find_subjects(ledger.ledger_id, [f"patient:{person}"]).get(f"patient:{person}")
    if entry is not None:
        ledger.erase(entry.ref, sorted({purpose for _, purpose in entry.key_ids}))


def restrict(ledger: Ledger, person: str, *, lift: bool = False) -> None:
    """Restrict somebody who is known, or lift it."""
    entry = ledger.deps.vault.find_subjects(ledger.ledger_id, [f"patient:{person}"]).get(f"patient:{person}")
    if entry is not None and entry.state in ("active", "restricted"):
        change = ledger.deps.vault.lift_restriction if lift else ledger.deps.vault.restrict
        change(ledger.ledger_id, entry.ref, ledger.deps.clock())


MOVES: dict[str, Any] = {
    "append": append,
    "crash": crash,
    "erase": erase,
    "restrict": restrict,
    "lift": lambda ledger, person: restrict(ledger, person, lift=True),
    "rebuild": lambda ledger, name: rebuild(ledger.deps, ledger.ledger_id, name),
}
