"""Documents on their way to the store and back, and which events a document is of. Pure."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.events import Envelope, OpenedEvent, RecordedEvent, Redaction, RedactionReason
from ledger.domain.partition import BY_DAY, PARTITIONS
from ledger.domain.projection import DocumentFold, Projection
from ledger.domain.query import PinnedQuery

ID = UUID("0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b")
EVERYTHING = Projection("everything", 1, PARTITIONS[0], lambda document, event: document)

reasons = st.sampled_from(("erased", "restricted", "unreadable"))
redactions = st.builds(
    Redaction,
    pointer=st.sampled_from(("", "/data", "/nonpersonal")),
    subject_ref=st.none() | st.binary(min_size=16, max_size=16),
    purpose=st.none() | st.text(),
    reason=reasons,
    at=st.none() | st.integers(0, 2**60),
    erasure_id=st.none() | st.uuids(),
)


def an_event(recorded_at: int = 0, position: int = 0, **fields: Any) -> OpenedEvent:
    """An event without parts."""
    envelope = Envelope(ID, ID, bytes(16), "ward", "Noted", 1, None, None, None)
    recorded = RecordedEvent(envelope, (), ID, position, 1, recorded_at, bytes(32))
    members = {"redactions": (), "opened_keys": (), **fields}
    return OpenedEvent(recorded, None, None, None, (), None, **members)


events = st.lists(
    st.builds(
        an_event,
        redactions=st.lists(redactions, max_size=3).map(tuple),
        opened_keys=st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple),
        schema_status=st.sampled_from(("unregistered", "current", "upcast", "unknown-version", "failed")),
        shown_version=st.integers(1, 3),
        led_by_code=st.sampled_from(((), (1,), (1, 2))),
    ),
    max_size=6,
)


@given(events)
def test_fold_comes_back_from_json_as_it_was(history: list[OpenedEvent]) -> None:
    """Nothing that later steps or readers need is lost: a document goes on as if it had never been stored."""
    fold = DocumentFold()
    for number, event in enumerate(history):
        fold.take(EVERYTHING, event, {"number": number})
    again = DocumentFold.from_json(
        json.loads(json.dumps(fold.to_json())),
        bucket=fold.bucket,
        position=fold.position,
        leaf_hash=fold.leaf_hash,
        key_ids=sorted(fold.key_ids),
    )
    assert vars(again) | {"_hidden": again.hidden} == vars(fold) | {"_hidden": fold.hidden}


@pytest.mark.parametrize(
    "content", [{}, {"document": 1}, {"document": {}, "events": "x"}, {"document": {}, "events": 1}]
)
def test_what_is_no_document_is_refused(content: dict[str, Any]) -> None:
    """The caller makes the document again; it must not be an error that nobody expects."""
    with pytest.raises(ValueError, match="not a document"):
        DocumentFold.from_json(content, bucket="", position=0, leaf_hash=b"", key_ids=())


@pytest.mark.parametrize(("reason", "provisional"), [("erased", False), ("restricted", True), ("unreadable", True)])
def test_only_what_is_erased_is_hidden_for_good(reason: RedactionReason, provisional: bool) -> None:
    """A document that hides anything is not complete; what may come back makes it provisional."""
    fold = DocumentFold()
    fold.take(EVERYTHING, an_event(redactions=(Redaction("/data", None, "", reason, None, None),)), {})
    assert (fold.complete, fold.provisional) == (False, provisional)


@given(st.integers(0, 4 * 10**15))
def test_query_of_a_day_finds_the_events_of_the_day(recorded_at: int) -> None:
    """The day that an event goes into is asked for by a range that the event is in."""
    ((key, _),) = BY_DAY.shares(an_event(recorded_at), frozenset())
    query = BY_DAY.query(key, PinnedQuery(as_of=0))
    assert query.recorded_from is not None
    assert query.recorded_to is not None
    assert query.recorded_from <= recorded_at < query.recorded_to
    assert BY_DAY.bucket(an_event(recorded_at)) == key.decode()[:7]
