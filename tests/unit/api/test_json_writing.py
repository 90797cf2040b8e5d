"""What is quickly written is byte for byte what Python's own writer writes, and what the document promises."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.json_writing import json_bytes, quick_json_bytes
from api.rendering import event_json, page_json, proven_event_json, proven_page_json, render_event, render_page
from api.schemas import answers
from ledger.domain.encoding import decode_plaintext, encode_plaintext
from ledger.domain.events import (
    DisclosedPart,
    Envelope,
    OpenedEvent,
    OpenedPart,
    RecordedEvent,
    Redaction,
    RedactionReason,
    SchemaStatus,
)
from ledger.domain.query import Moment
from ledger.domain.strict_json import LARGEST_INTEGER, SMALLEST_INTEGER, value_faults
from ledger.domain.times import format_time, parse_time
from ledger.services.opening import members_of
from ledger.services.proving.answers import ProvenEvent, ProvenPage
from ledger.services.read import Page

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers(SMALLEST_INTEGER, LARGEST_INTEGER)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# Near to where the spelling changes, on both sides.
EDGES = st.sampled_from([1e-5, 9.9e-5, 1e-4, 1.1e-4, 1e15, 9.999999999999998e15, 1e16, 1e17, 1e22, 5e-324, -0.0, 0.1])
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | EDGES | EDGES.map(lambda number: -number) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)
IDS = st.uuids()
REFS = st.binary(min_size=16, max_size=16)
WORDS = st.text(string.ascii_letters + string.digits + "_.", min_size=1, max_size=20)
TIMES = st.integers(parse_time("0001-01-01T00:00:00Z"), parse_time("9999-12-31T23:59:59.999999Z"))
NAMES = st.none() | TEXTS
PARTS = st.builds(OpenedPart, NAMES, st.none() | REFS, NAMES, st.none() | OBJECTS, st.booleans())
EVENTS = st.builds(
    OpenedEvent,
    recorded=st.builds(
        RecordedEvent,
        envelope=st.builds(
            Envelope,
            IDS,
            IDS,
            REFS,
            WORDS,
            WORDS,
            st.integers(0, 2**31 - 1),
            st.none() | TIMES,
            st.none() | IDS,
            st.none() | IDS,
        ),
        parts=st.just(()),
        recorded_by=IDS,
        position=st.integers(0, 2**63 - 1),
        stream_version=st.integers(1, 2**63 - 1),
        recorded_at=TIMES,
        leaf_hash=st.binary(min_size=32, max_size=32),
    ),
    stream=st.none() | TEXTS,
    subject=st.none() | PARTS,
    actor=st.none() | PARTS,
    further=st.lists(PARTS, max_size=3).map(tuple),
    nonpersonal=st.none() | OBJECTS,
    redactions=st.lists(
        st.builds(
            Redaction,
            st.sampled_from(["", "/data", "/parts/0"]),
            st.none() | REFS,
            st.none() | TEXTS,
            st.sampled_from(get_args(RedactionReason)),
            st.none() | TIMES,
            st.none() | IDS,
        ),
        max_size=2,
    ).map(tuple),
    schema_status=st.sampled_from(get_args(SchemaStatus)),
    shown_version=st.integers(0, 2**31 - 1),
)
PROVEN = st.builds(
    ProvenEvent,
    EVENTS.map(lambda event: replace(event, disclosed=(DisclosedPart(0, b"sealed", bytes(32)),))),
    st.lists(st.binary(min_size=32, max_size=32), max_size=2),
    st.sampled_from(["placed", "opened"]),
    st.none() | st.binary(max_size=20),
)


def pythons(value: object) -> bytes:
    """As Python's own writer writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str).encode()


@given(VALUES)
def test_both_writers_write_the_same(value: Any) -> None:
    """Whatever can be recorded: order of keys, numbers of every size, characters of every plane, control characters."""
    said = {"data": value}
    assert quick_json_bytes(said, [said]) == json_bytes(said) == pythons(said)


@pytest.mark.parametrize("value", [1e-5, 2.5e-7, -3e-9])
def test_a_small_number_keeps_its_exponent(value: float) -> None:
    """Orjson alone would spell it in another way."""
    assert orjson.dumps(value) != pythons(value)
    assert quick_json_bytes([{"n": value}], [{"n": value}]) == b'[{"n":%b}]' % repr(value).encode()
    assert quick_json_bytes([{"n": [{"m": value}]}], [{"n": [{"m": value}]}]) == b'[{"n":[{"m":%b}]}]' % (
        repr(value).encode()
    )


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**40])
def test_an_integer_above_64_bits_is_written_in_full(value: int) -> None:
    """None is ever recorded, but code that leads an old shape to a new one can make one."""
    assert value_faults({"n": value}, "")
    assert quick_json_bytes({"n": value}, [{"n": value}]) == b'{"n":%d}' % value


def test_what_is_no_json_is_refused_by_both() -> None:
    """A lone surrogate, what is not a number, a value of any other kind: never written in some way or other."""
    for value, error in (("\ud800", UnicodeEncodeError), (float("nan"), ValueError), (float("inf"), ValueError)):
        for write in (json_bytes, lambda value: quick_json_bytes(value, [value])):
            with pytest.raises(error):
                write({"a": value})
    for write in (json_bytes, lambda value: quick_json_bytes(value, [value])):
        with pytest.raises(TypeError):
            write({"a": {1, 2}})


@given(OBJECTS, st.none() | TEXTS, st.none() | TEXTS)
def test_a_part_is_read_as_it_was_written(data: dict[str, Any], subject: str | None, stream: str | None) -> None:
    """Quickly or not: every number of the same type and value, members in their order."""
    plaintext = encode_plaintext(subject=subject, stream=stream, data=data)
    assert pythons(members_of(plaintext)) == pythons(decode_plaintext(plaintext)) == plaintext.rstrip(b" ")


@pytest.mark.parametrize("plaintext", [b"", b"[]", b"{", b'{"data":NaN}', b'{"data":{}} x', b"\xff", b'"\\ud800"'])
def test_what_is_no_part_is_refused(plaintext: bytes) -> None:
    """So that it is shown as unreadable, and raises the alarm."""
    with pytest.raises(ValueError):  # noqa: PT011 - there are several reasons, and each is one
        members_of(plaintext)


@given(EVENTS)
def test_an_event_is_what_the_document_says(event: OpenedEvent) -> None:
    """The schema of the answer takes its JSON, knows every member of it, and reads in each what the event has there."""
    text = event_json(event)
    assert text == pythons(render_event(event))
    read = answers.Event().load(json.loads(text))
    recorded, envelope, subject = event.recorded, event.recorded.envelope, event.subject
    expected = {
        "position": recorded.position,
        "id": envelope.event_id,
        "type": envelope.event_type,
        "schema_version": envelope.schema_version,
        "stream": event.stream,
        "stream_ref": envelope.stream_ref,
        "stream_version": recorded.stream_version,
        "category": envelope.category,
        "recorded_at": recorded.recorded_at,
        "occurred_at": envelope.occurred_at,
        "recorded_by": recorded.recorded_by,
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.causation_id,
        "subject": subject.subject if subject else None,
        "subject_ref": subject.subject_ref if subject else None,
        "purpose": subject.purpose if subject else None,
        "data": subject.data if subject else None,
        "actor": _part(event.actor, "subject", "subject_ref") if event.actor else None,
        "parts": [_part(part, "subject", "subject_ref", "purpose") for part in event.further],
        "nonpersonal": event.nonpersonal,
        "redactions": [
            {name: getattr(redaction, name) for name in Redaction.__dataclass_fields__}
            for redaction in event.redactions
        ],
        "shown_version": event.shown_version,
        "schema_status": event.schema_status,
    }
    assert read == expected
    assert list(json.loads(text)) == list(expected)


def _part(part: OpenedPart, *names: str) -> dict[str, Any]:
    data = {} if part.data is None and part.readable else part.data
    return {**{name: getattr(part, name) for name in names}, "data": data}


@given(PROVEN)
def test_a_proven_event_is_the_event_and_its_proof(proven: ProvenEvent) -> None:
    """Its text begins as the event's, and the schema of the answer knows the rest."""
    text = proven_event_json(proven)
    assert text.startswith(event_json(proven.event)[:-1] + b',"proof":{')
    assert answers.EventWithProof().validate(json.loads(text)) == {}


@given(st.lists(PROVEN, max_size=3), st.none() | TEXTS)
def test_a_page_is_its_events(events: list[ProvenEvent], following: str | None) -> None:
    """One after another, none left out, and nothing else between them."""
    moment = Moment(7, 1_000_000)
    page = Page(moment, [proven.event for proven in events], following)
    assert page_json(page) == pythons(render_page(page))
    proven_page = ProvenPage(moment, following, "note\n", events)
    shown = json.loads(proven_page_json(proven_page))
    assert shown == {
        "as_of": {"position": 7, "recorded_at": "1970-01-01T00:00:01.000000Z"},
        "next": following,
        "checkpoint": "note\n",
        "events": [json.loads(proven_event_json(proven)) for proven in events],
    }


@given(TIMES)
def test_a_time_is_shown_with_all_its_digits(time: int) -> None:
    """And read back as the same."""
    shown = format_time(time)
    assert (len(shown), parse_time(shown)) == (len("2014-10-22T11:15:41.000000Z"), time)
