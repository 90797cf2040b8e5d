"""Snapshots: which one is taken, and that they never show more than the events would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import MERGE_PATCH, Fold, Folded, Folding
from ledger.domain.intake import parse_batch
from ledger.domain.query import AsOf
from ledger.domain.snapshot import EVERY
from ledger.domain.upcasting import Upcast, Upcasters
from ledger.errors import LeaseLostError, StoreUnavailableError
from ledger.services.appending.append import append_events
from ledger.services.evolution.current import open_current
from ledger.services.evolution.types import register_type
from ledger.services.timetravel.snapshotting import CURSOR, WINDOW, step
from ledger.services.timetravel.state import fold_stream, stream_state
from ledger.storage.tables import cursors, snapshots
from tests.support.ledgers import WRITER, Ledger, who

HOLDER = UUID(int=7)


def fill(ledger: Ledger, count: int, stream: str = "patient-A", subjects: Sequence[str] = ("patient:A",)) -> bytes:
    """Append so many events to a stream, its subjects in turn; gives its ref."""
    known = ledger.deps.vault.find_streams(ledger.ledger_id, [stream]).get(stream)
    done = ledger.deps.store.versions(ledger.ledger_id, [known.ref])[known.ref] if known is not None else 0
    events = [_filling(stream, subjects, number) for number in range(done + 1, done + count + 1)]
    parsed = parse_batch(json.loads(json.dumps({"events": events})))
    return append_events(ledger.deps, ledger.ledger_id, parsed, WRITER).events[0].stream_ref


def _filling(stream: str, subjects: Sequence[str], number: int) -> JsonObject:
    subject = subjects[number % len(subjects)]
    return {
        "stream": stream,
        "type": "Noted",
        "subject": subject,
        "data": {"last": number, f"field{number % 7}": {"by": subject, "at": number}},
        "nonpersonal": {"count": number},
    }


def from_zero(ledger: Ledger, ref: bytes, position: int = 2**62, fold: Fold = MERGE_PATCH) -> Folded:
    """The fold of the stream's events, without snapshots."""
    rows = [row for row in ledger.recorded() if row.envelope.stream_ref == ref and row.position <= position]
    folding = Folding(fold)
    folding.extend(open_current(ledger.deps, ledger.ledger_id, rows, fold.roles))
    return folding.result()


def stored(ledger: Ledger, ref: bytes, fold: str = MERGE_PATCH.label) -> list[int]:
    """The versions of which there are snapshots."""
    found = ledger.deps.derived.snapshots.snapshots_of(ledger.ledger_id, fold, ref, 2**62)
    return sorted(snapshot.stream_version for snapshot in found)


def work(ledger: Ledger) -> int:
    """Let a worker do all there is to do; gives how many steps it took."""
    steps = 0
    while step(ledger.deps, ledger.ledger_id, HOLDER):
        steps += 1
    return steps


class Opened:
    """Counts the events whose parts are opened, in front of the store that reads them."""

    def __init__(self, ledger: Ledger) -> None:
        self._store = ledger.deps.store
        self.events = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def stream_events(self, *arguments: object) -> object:
        """Read, and count."""
        rows = self._store.stream_events(*arguments)  # type: ignore[arg-type]  # handed on as they are
        self.events += len(rows)
        return rows


def test_a_read_leaves_the_last_snapshot_that_was_due(ledger: Ledger) -> None:
    """The next read begins there, and gives the same."""
    ref = fill(ledger, 2 * EVERY + 50)
    whole = from_zero(ledger, ref)

    first = fold_stream(ledger.deps, ledger.ledger_id, ref, ledger.size() - 1)
    counting = Opened(ledger)
    second = fold_stream(ledger.with_parts(store=counting).deps, ledger.ledger_id, ref, ledger.size() - 1)

    assert first == second == whole
    assert stored(ledger, ref) == [2 * EVERY]
    assert counting.events == 50


def test_a_short_stream_has_no_snapshot(ledger: Ledger) -> None:
    """It would save nothing."""
    ref = fill(ledger, EVERY - 1)

    fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)

    assert stored(ledger, ref) == []
    work(ledger)
    assert stored(ledger, ref) == []


def test_the_worker_keeps_one_every_so_many_events_and_any_moment_uses_them(ledger: Ledger) -> None:
    """State as of p is the fold of the events up to p, from whichever snapshot."""
    ref = fill(ledger, 3 * EVERY + 5, subjects=["patient:A", "patient:B"])
    fill(ledger, 30, "patient-B")
    work(ledger)

    assert stored(ledger, ref) == [EVERY, 2 * EVERY, 3 * EVERY]
    for position in (0, EVERY - 2, EVERY - 1, EVERY, 2 * EVERY - 1, 2 * EVERY + 7, 3 * EVERY + 4, 3 * EVERY + 20):
        counting = Opened(ledger)
        deps = ledger.with_parts(store=counting).deps
        assert fold_stream(deps, ledger.ledger_id, ref, position) == from_zero(ledger, ref, position)
        assert counting.events < EVERY
    assert work(ledger) == 0, "there is nothing left to do"


def test_a_stream_before_its_first_event_is_nothing(ledger: Ledger) -> None:
    """Version 0, and no error."""
    ref = fill(ledger, 5)

    assert fold_stream(ledger.deps, ledger.ledger_id, ref, -1) == Folded()
    assert fold_stream(ledger.deps, ledger.ledger_id, b"?" * 16, 2**62) == Folded()


def names(state: JsonObject, event: OpenedEvent) -> JsonObject:
    """Another fold: how many events each person is the subject of."""
    name = event.subject.subject if event.subject is not None else None
    return {**state, name: state.get(name, 0) + 1} if name is not None else state


NAMES = Fold("names", 1, names)


def test_each_fold_and_version_has_snapshots_of_its_own(ledger: Ledger) -> None:
    """A fold that does something else now never starts from what it did before."""
    ref = fill(ledger, EVERY + 1)
    newer = Fold("names", 2, lambda state, event: {**state, "all": state.get("all", 0) + 1})
    for fold in (MERGE_PATCH, NAMES, newer):
        assert fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62, fold) == from_zero(ledger, ref, fold=fold)
        assert stored(ledger, ref, fold.label) == [EVERY]
    assert fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62, newer).state == {"all": EVERY + 1}


def bodies(ledger: Ledger) -> list[bytes]:
    """The sealed bytes of all snapshots of a ledger."""
    statement = sa.select(snapshots.c.sealed).where(snapshots.c.ledger_id == ledger.ledger_id)
    with ledger.backend.engine.connect() as connection:
        return list(connection.execute(statement).scalars())


def test_an_erasure_makes_every_snapshot_with_the_subject_useless_at_once(ledger: Ledger) -> None:
    """Before any worker has dropped it: the state says erased, is not complete, and keeps what others said (I7)."""
    ref = fill(ledger, 2 * EVERY + 10, "ward-1", ["patient:A", "patient:B"])
    work(ledger)
    before = bodies(ledger)

    ledger.erase("patient:A")
    answer = stream_state(ledger.deps, ledger.ledger_id, who(ref), AsOf(position=2 * EVERY + 9)).state

    assert len(before) == 2
    assert not answer.complete
    assert {hidden.redaction.reason for hidden in answer.hidden} == {"erased"}
    assert "patient:A" not in json.dumps(answer.state)
    assert "patient:B" in json.dumps(answer.state)
    assert answer == from_zero(ledger, ref, 2 * EVERY + 9)
    assert all(b"patient:" not in body for body in before)


def test_the_worker_drops_what_lost_a_key_and_what_is_rebuilt_says_erased(ledger: Ledger) -> None:
    """Snapshots of others stay, and those of the stream come back without the subject."""
    ref = fill(ledger, EVERY + 10, "ward-1", ["patient:A", "patient:B"])
    other = fill(ledger, EVERY + 10, "patient-C", ["patient:C"])
    work(ledger)
    fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62, NAMES)
    dead = set(bodies(ledger))

    ledger.erase("patient:A")
    work(ledger)

    assert (stored(ledger, ref), stored(ledger, ref, NAMES.label), stored(ledger, other)) == ([], [], [EVERY])
    rebuilt = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)
    assert stored(ledger, ref) == [EVERY]
    again = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)
    assert again == rebuilt == from_zero(ledger, ref)
    assert not again.complete
    assert "patient:A" not in json.dumps(again.state)
    assert len(dead & set(bodies(ledger))) == 1, "of the dead ones only that of the other stream is there"


def test_an_older_snapshot_without_the_subject_is_still_used(ledger: Ledger) -> None:
    """Only what came after the subject's first event has to be folded again."""
    ref = fill(ledger, EVERY, "ward-1", ["patient:B"])
    fill(ledger, EVERY + 3, "ward-1", ["patient:A"])
    work(ledger)
    ledger.erase("patient:A")

    counting = Opened(ledger)
    state = fold_stream(ledger.with_parts(store=counting).deps, ledger.ledger_id, ref, 2**62)

    assert state == from_zero(ledger, ref)
    assert counting.events == EVERY + 3


def test_what_is_restricted_is_folded_from_the_events_and_not_kept(ledger: Ledger) -> None:
    """When the restriction is lifted the old snapshots open again, and nothing of in between is left."""
    ref = fill(ledger, 2 * EVERY + 5)
    work(ledger)
    whole = from_zero(ledger, ref)
    subject = ledger.subject_ref("patient:A")
    before = sorted(bodies(ledger))

    ledger.deps.vault.restrict(ledger.ledger_id, subject, ledger.deps.clock())
    restricted = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)
    fill(ledger, EVERY, "patient-B", ["patient:B"])
    work(ledger)

    assert not restricted.complete
    assert restricted.state == {"count": 2 * EVERY + 5}
    assert set(before) <= set(bodies(ledger))
    ledger.deps.vault.lift_restriction(ledger.ledger_id, subject, ledger.deps.clock())
    assert fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62) == whole


def test_a_snapshot_that_was_altered_by_hand_is_folded_again_and_replaced(ledger: Ledger) -> None:
    """Whatever was done to its row: its bytes, its place, its keys, its stream's version."""
    ref = fill(ledger, 2 * EVERY + 1, subjects=["patient:A", "patient:B"])
    whole = from_zero(ledger, ref)
    changes: list[JsonObject] = [
        {"sealed": b"\x01" + bytes(100)},
        {"sealed": b""},
        {"position": EVERY},
        {"key_ids": b""},
        {"key_ids": b"x" * 31},
        {"stream_version": 2 * EVERY + 1},
    ]
    for change in changes:
        work(ledger)
        fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)
        newest = (snapshots.c.ledger_id == ledger.ledger_id, snapshots.c.stream_version == 2 * EVERY)
        ledger.backend.execute(sa.update(snapshots).where(*newest).values(**change))

        assert fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62) == whole, change
        ledger.backend.execute(sa.delete(snapshots).where(snapshots.c.ledger_id == ledger.ledger_id))
    ledger.assert_intact()


def test_a_snapshot_of_another_log_is_not_taken(ledger: Ledger) -> None:
    """It is bound to the leaf at its position, as the log has it now."""
    ref = fill(ledger, EVERY + 1)
    work(ledger)
    ledger.edit(EVERY - 1, leaf_hash=bytes(32))

    state = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)

    assert {hidden.redaction.reason for hidden in state.hidden} == {"unreadable"}
    assert state == from_zero(ledger, ref)


def test_a_new_version_of_a_type_makes_older_snapshots_useless(ledger: Ledger) -> None:
    """Their events would be folded in another shape now; a version of another type does not matter."""
    ref = fill(ledger, EVERY + 5)
    work(ledger)
    register(ledger, "Noted", 1)
    before = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)
    counting = Opened(ledger)
    register(ledger, "Moved", 1)
    fold_stream(ledger.with_parts(store=counting).deps, ledger.ledger_id, ref, 2**62)
    assert counting.events == 5

    register(ledger, "Noted", 2, [{"rename": {"from": "/last", "to": "/newest"}}])
    after = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)

    assert (before.state["last"], after.state["newest"]) == (EVERY + 5, EVERY + 5)
    assert "last" not in after.state
    assert after == fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62) == from_zero(ledger, ref)


def test_a_version_that_code_led_to_makes_older_snapshots_useless_when_it_is_registered(ledger: Ledger) -> None:
    """Its number stays, and its shape does not: what is registered goes before what is in code."""
    in_euros = Upcast("Noted", 1, 2, data=lambda data: {**data, "unit": "EUR"})
    code = replace(ledger, deps=replace(ledger.deps, upcasters=Upcasters.of(in_euros)))
    ref = fill(code, EVERY + 5)
    work(code)
    assert fold_stream(code.deps, code.ledger_id, ref, 2**62).state["unit"] == "EUR"
    assert stored(code, ref) == [EVERY]

    register(code, "Noted", 1)
    register(code, "Noted", 2, [{"default": {"path": "/currency", "value": "EUR"}}])
    after = fold_stream(code.deps, code.ledger_id, ref, 2**62)

    assert (after.state["currency"], "unit" in after.state) == ("EUR", False)
    assert after == fold_stream(code.deps, code.ledger_id, ref, 2**62) == from_zero(code, ref)


def test_a_snapshot_that_code_has_led_to_is_not_used_without_the_code(ledger: Ledger) -> None:
    """A process that does not have it shows the events as recorded, and says so; whatever another has put aside."""
    register(ledger, "Noted", 1)
    in_euros = Upcast("Noted", 1, 2, data=lambda data: {**data, "unit": "EUR"})
    code = replace(ledger, deps=replace(ledger.deps, upcasters=Upcasters.of(in_euros)))
    ref = fill(code, EVERY + 5)
    register(code, "Noted", 2)
    work(code)
    assert stored(code, ref) == [EVERY]

    without = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)

    assert (without.unknown_versions, "unit" in without.state) == (EVERY + 5, False)
    assert without == from_zero(ledger, ref)


def test_events_of_an_unknown_version_are_counted_and_leave_no_snapshot(ledger: Ledger) -> None:
    """The way from their version may be written tomorrow."""
    fill(ledger, EVERY)
    ledger.append_one({**_filling("patient-A", ["patient:A"], 1), "schema_version": 7, "type": "Odd"})
    ref = fill(ledger, EVERY)
    register(ledger, "Odd", 1)

    state = fold_stream(ledger.deps, ledger.ledger_id, ref, 2**62)
    work(ledger)

    assert (state.unknown_versions, state.complete) == (1, True)
    assert stored(ledger, ref) == [EVERY]


def register(ledger: Ledger, event_type: str, version: int, upcast: Sequence[JsonObject] | None = None) -> None:
    """Register a version of a type."""
    draft = TypeDraft(event_type, version, None, None, upcast, closes_stream=False)
    register_type(ledger.deps, ledger.ledger_id, draft, WRITER)


class Refusing:
    """In front of the store of snapshots: nothing can be written."""

    def __init__(self, ledger: Ledger) -> None:
        self._kept = ledger.deps.derived.snapshots

    def __getattr__(self, name: str) -> object:
        return getattr(self._kept, name)

    def add_snapshots(self, *_: object) -> None:
        """As on a full disk."""
        raise StoreUnavailableError("the disk is full")


def test_a_read_does_not_fail_because_a_snapshot_cannot_be_written(ledger: Ledger) -> None:
    """It only saves time; a worker says so instead."""
    ref = fill(ledger, EVERY + 1)
    derived = replace(ledger.deps.derived, snapshots=Refusing(ledger))  # type: ignore[arg-type]  # hands all else on
    deps = replace(ledger.deps, derived=derived)

    assert fold_stream(deps, ledger.ledger_id, ref, 2**62) == from_zero(ledger, ref)
    with pytest.raises(StoreUnavailableError):
        step(deps, ledger.ledger_id, HOLDER)
    assert stored(ledger, ref) == []


class CrashError(Exception):
    """The process is gone."""


class Dying:
    """In front of a store: dies at the n-th call that writes, before it or right after it."""

    def __init__(self, behind: object, calls: list[str], at: int, *, after: bool) -> None:
        self._behind, self._calls, self._at, self._after = behind, calls, at, after

    def __getattr__(self, name: str) -> object:
        method = getattr(self._behind, name)
        if name not in ("add_snapshots", "drop_snapshots", "move_cursor", "add_cursor", "take_cursor"):
            return method

        def call(*arguments: object, **options: object) -> object:
            self._calls.append(name)
            due = len(self._calls) == self._at
            if due and not self._after:
                raise CrashError
            result = method(*arguments, **options)
            if due:
                raise CrashError
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_worker_that_is_killed_anywhere_is_followed_by_one_that_finishes(ledger: Ledger, after: bool) -> None:
    """All snapshots that are due, none that lost a key, and every state is right (I12)."""
    ref = fill(ledger, EVERY + 5, "ward-1", ["patient:A", "patient:B"])
    work(ledger)
    fill(ledger, EVERY, "ward-1", ["patient:B"])
    other = fill(ledger, EVERY, "patient-C", ["patient:C"])
    ledger.erase("patient:A")

    deaths = 0
    while True:
        calls: list[str] = []
        derived = ledger.deps.derived
        dying = replace(
            derived,
            snapshots=Dying(derived.snapshots, calls, deaths + 1, after=after),  # type: ignore[arg-type]
            cursors=Dying(derived.cursors, calls, deaths + 1, after=after),  # type: ignore[arg-type]
        )
        ledger.backend.clock.now += 10_000_000  # the dead one's lease is over
        holder = uuid4()
        try:
            while step(replace(ledger.deps, derived=dying), ledger.ledger_id, holder):
                pass
            break
        except CrashError:
            deaths += 1

    assert deaths >= 3
    assert stored(ledger, ref) == [EVERY, 2 * EVERY]
    assert stored(ledger, other) == [EVERY]
    for stream in (ref, other):
        assert fold_stream(ledger.deps, ledger.ledger_id, stream, 2**62) == from_zero(ledger, stream)


def test_only_one_worker_at_a_time_and_the_late_one_changes_no_place(ledger: Ledger) -> None:
    """Whoever lost the lease leaves the cursor alone."""
    fill(ledger, 20)
    cursors_ = ledger.deps.derived.cursors
    cursors_.add_cursor(ledger.ledger_id, CURSOR, 1, "running", -1)
    now = ledger.deps.clock()
    assert cursors_.take_cursor(ledger.ledger_id, CURSOR, uuid4(), now, now + 1_000_000) is not None

    assert not step(ledger.deps, ledger.ledger_id, HOLDER)
    ledger.backend.clock.now += 2_000_000
    assert step(ledger.deps, ledger.ledger_id, HOLDER)

    class Losing:
        def __getattr__(self, name: str) -> object:
            return getattr(cursors_, name)

        def move_cursor(self, *_: object) -> None:
            raise LeaseLostError("taken over")

    fill(ledger, 5)
    losing = replace(ledger.deps.derived, cursors=Losing())  # type: ignore[arg-type]  # hands all else on
    assert not step(replace(ledger.deps, derived=losing), ledger.ledger_id, HOLDER)
    (cursor,) = cursors_.cursors(ledger.ledger_id, CURSOR.kind)
    assert cursor.position == 19


def test_a_step_looks_at_a_bounded_piece_of_the_log(ledger: Ledger) -> None:
    """However long it is; and a ledger without events gives nothing to do."""
    assert not step(ledger.deps, ledger.ledger_id, HOLDER)
    ref = fill(ledger, WINDOW + 200)

    assert step(ledger.deps, ledger.ledger_id, HOLDER)
    assert stored(ledger, ref) == list(range(EVERY, WINDOW + 1, EVERY))
    assert work(ledger) == 1
    assert stored(ledger, ref) == list(range(EVERY, WINDOW + 201, EVERY))


def test_nothing_personal_is_in_the_rows(ledger: Ledger) -> None:
    """No name and no value in any column, sealed or not (I5)."""
    fill(ledger, EVERY, "patient-Q", ["patient:Quirrenbach"])
    work(ledger)

    with ledger.backend.engine.connect() as connection:
        rows = [
            row
            for table in (snapshots, cursors)
            for row in connection.execute(sa.select(table).where(table.c.ledger_id == ledger.ledger_id))
        ]

    assert len(rows) == 2
    assert not any(word in repr(row) for row in rows for word in ("Quirrenbach", "patient", "field"))
