"""A fold can go on from any point, and says how far what it gives can be trusted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.catalogue import Catalogue, EventType, build_catalogue
from ledger.domain.events import JsonObject, OpenedEvent, Role
from ledger.domain.fold import MERGE_PATCH, NOTHING, Fold, Folded, Folding
from ledger.domain.shapes import still_fit
from ledger.domain.snapshot import EVERY, content_of, folded_from, is_due
from ledger.domain.upcasting import Upcast, Upcasters
from tests.support.streams import an_event, hidden, histories


def count_actors(state: JsonObject, event: OpenedEvent) -> JsonObject:
    """A fold that looks at nobody but those who act."""
    name = event.actor.subject if event.actor is not None else None
    return state if name is None else {**state, name: state.get(name, 0) + 1}


ACTORS = Fold("actors", 3, count_actors, frozenset({Role.ACTOR}))


def folded(fold: Fold, events: list[OpenedEvent], start: Folded = NOTHING) -> Folded:
    """All of them."""
    folding = Folding(fold, start)
    folding.extend(events)
    return folding.result()


@given(histories(), st.data(), st.sampled_from([MERGE_PATCH, ACTORS]))
def test_a_fold_goes_on_from_any_point_as_if_it_had_not_stopped(
    events: list[OpenedEvent], data: st.DataObject, fold: Fold
) -> None:
    """State, hidden parts, keys, versions and shapes are those of one fold from the first event."""
    cut = data.draw(st.integers(0, len(events)))
    start = folded(fold, events[:cut])

    assert folded(fold, events[cut:], start) == folded(fold, events)
    assert start == folded(fold, events[:cut]), "going on from it has changed it"


@given(histories(), st.sampled_from([MERGE_PATCH, ACTORS]))
def test_a_snapshot_gives_back_what_went_in(events: list[OpenedEvent], fold: Fold) -> None:
    """Through JSON and back, for all that may be kept."""
    kept = [event for event in events if folded(fold, [event]).final]
    whole = folded(fold, kept)

    content = json.loads(json.dumps(content_of(whole)))

    assert folded_from(content, whole.position, whole.leaf_hash, whole.key_ids) == whole


def test_a_label_names_the_fold_and_its_version() -> None:
    """So that a snapshot of another version is never taken."""
    assert ACTORS.label == "actors/3"
    assert MERGE_PATCH.label == "merge-patch/1"


@pytest.mark.parametrize(
    ("fold", "pointer", "counts"),
    [
        (MERGE_PATCH, "/data", True),
        (MERGE_PATCH, "/nonpersonal", True),
        (MERGE_PATCH, "", True),
        (MERGE_PATCH, "/actor", False),
        (MERGE_PATCH, "/parts/0", False),
        (MERGE_PATCH, "/stream", False),
        (ACTORS, "/actor", True),
        (ACTORS, "/data", False),
        (ACTORS, "", True),
        (replace(ACTORS, roles=frozenset({Role.FURTHER})), "/parts/12", True),
        (replace(ACTORS, roles=frozenset({Role.STREAM_NAME})), "/stream", True),
    ],
)
def test_only_what_the_fold_looks_at_makes_it_incomplete(fold: Fold, pointer: str, counts: bool) -> None:
    """A hidden actor changes no merge patch."""
    assert folded(fold, [an_event(1, redactions=(hidden(pointer),))]).complete is not counts


@pytest.mark.parametrize(
    ("event", "final"),
    [
        (an_event(1), True),
        (an_event(1, redactions=(hidden("/data", "erased"),)), True),
        (an_event(1, redactions=(hidden("/data", "restricted"),)), False),
        (an_event(1, redactions=(hidden("/data", "unreadable"),)), False),
        (an_event(1, redactions=(hidden("/actor", "restricted"),)), True),
        (an_event(1, schema_status="unknown-version"), False),
        (an_event(1, schema_status="failed"), False),
        (an_event(1, schema_status="upcast"), True),
    ],
)
def test_what_can_come_back_is_not_final(event: OpenedEvent, final: bool) -> None:
    """What is erased stays erased; a restriction can be lifted, and an upcaster written."""
    assert folded(MERGE_PATCH, [event]).final is final


def registered(**newest: int) -> Catalogue:
    """Types with all their versions, and steps from each to the next."""
    return build_catalogue(
        EventType(name, version, upcast=[] if version > 1 else None)
        for name, last in newest.items()
        for version in range(1, last + 1)
    )


def test_a_new_version_of_a_type_makes_a_snapshot_useless() -> None:
    """Its events would be folded in another shape now. Other types do not matter."""
    known = folded(MERGE_PATCH, [an_event(1, schema_status="upcast", shown_version=2), an_event(2, event_type="Moved")])

    def fits_now(**newest: int) -> bool:
        return still_fit(known.shapes, registered(**newest), Upcasters())

    assert fits_now(Visit=2)
    assert fits_now(Visit=2, Left=7)
    assert not fits_now(Visit=3)
    assert not fits_now(Visit=2, Moved=1), "it was not registered when it went in"
    assert not fits_now()


def test_another_way_to_the_same_version_makes_a_snapshot_useless() -> None:
    """What is registered goes before code; so the shape of a version changes while its number stays."""
    by_code = folded(
        MERGE_PATCH,
        [
            an_event(1, schema_status="upcast", shown_version=3, led_by_code=(2,)),
            an_event(2, schema_status="upcast", shown_version=3, led_by_code=(1, 2)),
            an_event(3, schema_status="current", shown_version=3),
        ],
    )
    code = Upcasters.of(Upcast("Visit", 1, 2), Upcast("Visit", 2, 3))
    registered_only = build_catalogue([EventType("Visit", version) for version in (1, 2, 3)])
    halfway = build_catalogue([EventType("Visit", 1), EventType("Visit", 2, upcast=[]), EventType("Visit", 3)])

    assert still_fit(by_code.shapes, Catalogue(), code)
    assert still_fit(by_code.shapes, registered_only, code), "registered without steps: code still leads"
    assert not still_fit(by_code.shapes, halfway, code)
    assert not still_fit(by_code.shapes, registered(Visit=3), code)
    assert not still_fit(by_code.shapes, registered_only, Upcasters()), "a process without the code"


@pytest.mark.parametrize("shapes", [{"Visit": 2}, {"Visit": []}, [], None, {"Visit": [2, [1]]}])
def test_a_snapshot_that_does_not_say_how_its_shapes_came_is_not_used(shapes: object) -> None:
    """An older program has written it; nobody can tell whether it still fits."""
    content = {**content_of(folded(MERGE_PATCH, [an_event(1)])), "shapes": shapes}
    with pytest.raises(ValueError, match="shapes"):
        folded_from(content, 0, b"", ())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (an_event(1), an_event(2, schema_status="upcast", shown_version=2)),
        (an_event(1, schema_status="current", shown_version=2), an_event(2, schema_status="upcast", shown_version=3)),
    ],
)
def test_a_type_that_changes_while_it_is_folded_leaves_no_snapshot(first: OpenedEvent, second: OpenedEvent) -> None:
    """The first events were shown in another shape than the last."""
    mixed = folded(MERGE_PATCH, [first, second])

    assert folded(MERGE_PATCH, [first]).final
    assert not mixed.final
    assert not still_fit(mixed.shapes, registered(Visit=second.shown_version), Upcasters())


def test_snapshots_are_due_at_multiples() -> None:
    """Never of a stream without events."""
    assert [version for version in range(3 * EVERY) if is_due(version)] == [EVERY, 2 * EVERY]


@pytest.mark.parametrize("value", [(1,), {1: 2}, float("nan"), float("inf"), b"x", {"a": [{"b": {1}}]}])
def test_a_state_that_is_not_json_is_refused(value: object) -> None:
    """Else it would come back as something else."""
    with pytest.raises(TypeError, match="not JSON"):
        content_of(Folded(1, state={"value": value}))
