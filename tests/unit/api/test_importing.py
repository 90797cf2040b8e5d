"""Files of events: every line keeps its number, no line loses another, and memory stays bounded."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.importing import (
    CsvLayout,
    CsvRows,
    MappingError,
    UnreadableFileError,
    bounded_lines,
    csv_delimiter,
    event_of_row,
    explain,
    parse_field_template,
    plan_columns,
    read_row,
)
from ledger.domain.intake import EVENT_BYTES, parse_event
from ledger.errors import CallerError, Fault, InvalidError, MalformedError

MAPS = ("stream=patient-{case}", "type={activity}", "subject=patient:{case}", "occurred_at={time}")
HEADER = ("case", "activity", "time", "age")


def layout(
    *maps: str, header: tuple[str, ...] = HEADER, only_mapped: bool = False, json_columns: tuple[str, ...] = ()
) -> CsvLayout:
    templates = [parse_field_template(text) for text in maps or MAPS]
    return plan_columns(header, templates, only_mapped=only_mapped, json_columns=json_columns)


def test_a_row_becomes_the_event_that_the_mapping_says() -> None:
    """Templates fill the fields; what no template uses goes into data under the column's name."""
    event = event_of_row(layout(), ["A", "CRP", "2014-10-22T11:15:41Z", "85"])
    assert event == {
        "stream": "patient-A",
        "type": "CRP",
        "subject": "patient:A",
        "occurred_at": "2014-10-22T11:15:41Z",
        "data": {"age": "85"},
    }
    parse_event(event)


def test_dotted_fields_reach_into_actor_data_and_nonpersonal() -> None:
    """Everything behind the parent is the member's name, dots included."""
    maps = (
        *MAPS[:3], "actor.subject=group:{time}", "actor.data.ip={age}", "nonpersonal.ward.name={activity}",
        "data.a.b={case}",
    )  # fmt: skip
    event = event_of_row(layout(*maps), ["A", "CRP", "L", "10.0.0.1"])
    assert event["actor"] == {"subject": "group:L", "data": {"ip": "10.0.0.1"}}
    assert event["nonpersonal"] == {"ward.name": "CRP"}
    assert event["data"] == {"a.b": "A"}


def test_empty_cells_are_left_out_with_the_fields_that_use_them() -> None:
    """A field without its cell is absent, so that the ledger and not an empty name says what is missing."""
    event = event_of_row(layout(), ["", "CRP", "", ""])
    assert event == {"type": "CRP"}
    event = event_of_row(layout(), ["A", "CRP", "", ""])
    assert event == {"stream": "patient-A", "type": "CRP", "subject": "patient:A", "data": {}}


def test_only_mapped_leaves_other_columns_out() -> None:
    """With --only-mapped nothing goes into data by itself."""
    assert event_of_row(layout(only_mapped=True), ["A", "CRP", "", "85"])["data"] == {}


def test_cells_are_text_unless_a_column_is_said_to_hold_json() -> None:
    """A house number 007 is never made a 7 by guessing; --as-json says where numbers and truth values are meant."""
    assert event_of_row(layout(), ["A", "CRP", "", "007"])["data"] == {"age": "007"}
    assert event_of_row(layout(json_columns=("age",)), ["A", "CRP", "", "85"])["data"] == {"age": 85}
    mapped = layout(*MAPS, "nonpersonal.adult={age}", json_columns=("age",))
    assert event_of_row(mapped, ["A", "CRP", "", "true"])["nonpersonal"] == {"adult": True}


def test_a_cell_that_is_not_the_json_it_should_be_is_refused_without_repeating_it() -> None:
    """The complaint names the column by its number and not its content."""
    with pytest.raises(InvalidError) as caught:
        event_of_row(layout(json_columns=("age",)), ["A", "CRP", "", "canary"])
    assert "column 4" in explain(caught.value)
    assert "canary" not in explain(caught.value)


def test_versions_are_numbers_and_a_space_before_the_time_of_day_is_accepted() -> None:
    """What a CSV cannot say otherwise: integers where the event has integers, and the common form of times."""
    maps = (*MAPS[:3], "occurred_at={time}Z", "schema_version={age}", "expected_version=exists")
    event = event_of_row(layout(*maps), ["A", "CRP", "2014-10-22 11:15:41", "2"])
    assert event["schema_version"] == 2
    assert event["expected_version"] == "exists"
    assert event["occurred_at"] == "2014-10-22T11:15:41Z"
    parse_event(event)


def test_column_names_with_colons_and_doubled_braces_are_understood() -> None:
    """Exports of process logs have columns like concept:name; {{ and }} stand for braces."""
    maps = ("stream=s-1", "type=T", "subject=p:1", "data.note={{{concept:name}}}")
    assert event_of_row(layout(*maps, header=("concept:name",)), ["x"])["data"] == {"note": "{x}"}


@pytest.mark.parametrize(
    "text",
    ["stream", "stream=", "=x", "nothing={a}", "data=x", "data.=x", "actor.data.=x", "stream={", "stream=}",
     "stream={}", "stream=a{b", "parts={a}", "actor.nothing=x"],
)  # fmt: skip
def test_a_mapping_that_cannot_be_meant_is_refused(text: str) -> None:
    """Each wrong mapping is a complaint to whoever typed it."""
    with pytest.raises(MappingError):
        parse_field_template(text)


@pytest.mark.parametrize(
    ("maps", "header", "words"),
    [
        (("stream=s-{no}", "type=T"), ("a",), "no column 'no'"),
        (("stream=s-{a}", "stream=t-{a}", "type=T"), ("a",), "mapped twice"),
        (("stream=s-{a}",), ("a",), "needs a type"),
        (("type={a}",), ("a",), "needs a stream"),
        (("stream=s-{a}", "type=T", "actor={a}", "actor.data.x={a}"), ("a",), "either actor"),
        (("stream=s-{a}", "type=T"), ("a", "canary", "canary"), "columns 2 and 3"),
        (("stream=s-{a}", "type=T"), ("a", ""), "column 2 has no name"),
    ],
)
def test_a_plan_that_does_not_fit_the_file_is_refused(
    maps: tuple[str, ...], header: tuple[str, ...], words: str
) -> None:
    """The complaint says what to do and repeats nothing of the file: a missing header line would be a person's data."""
    with pytest.raises(MappingError, match=words) as caught:
        layout(*maps, header=header)
    assert "canary" not in str(caught.value)


def test_a_row_of_another_length_or_encoding_is_refused_alone() -> None:
    """Wrong rows are errors of theirs, so the rows around them are recorded."""
    rows = CsvRows(io.BytesIO(b"case,activity,time,age\nA,CRP,,1\nB,CRP\n\xff,CRP,,1\nC,CRP,,1\n"), ",")
    plan = layout(header=rows.header)
    outcomes = []
    for line in rows:
        if line:
            try:
                outcomes.append(read_row(plan, line)["stream"])
            except CallerError as error:
                outcomes.append(error.detail)
    assert outcomes == ["patient-A", "has 2 cells where the first line has 4", "is not UTF-8", "patient-C"]


def test_rows_keep_the_number_of_their_first_line() -> None:
    """Line breaks in cells and empty lines do not shift numbers, from which ids are derived (I4)."""
    text = b'\xef\xbb\xbfcase,note\r\nA,"two\r\nlines"\r\n\r\nB,x\nC,y'
    rows = CsvRows(io.BytesIO(text), ",")
    numbered = {number: json.loads(line) for number, line in enumerate(rows, 1) if line}
    assert rows.header == ("case", "note")
    assert numbered == {2: ["A", "two\r\nlines"], 5: ["B", "x"], 6: ["C", "y"]}


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), max_size=8))
def test_what_a_csv_writer_writes_is_read_back_at_the_right_lines(table: list[list[str]]) -> None:
    """Round trip with the standard writer, whatever the cells hold."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    starts = []
    for row in [["a", "b"], *table]:
        starts.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    rows = CsvRows(io.BytesIO(buffer.getvalue().encode()), ",")
    read = {number: json.loads(line) for number, line in enumerate(rows, 1) if line}
    assert read == dict(zip(starts[1:], table, strict=True))


def test_a_quotation_mark_that_is_never_closed_stops_the_import_and_not_the_machine() -> None:
    """The rest of the file is never held as one cell."""
    text = b'a,b\n1,"' + b"x,y\n" * 400_000
    with pytest.raises(UnreadableFileError, match="quotation mark"):
        list(CsvRows(io.BytesIO(text), ","))


@pytest.mark.parametrize("text", [b"", b"\n"])
def test_a_csv_without_a_header_is_refused(text: bytes) -> None:
    """The first line must name the columns."""
    with pytest.raises(UnreadableFileError, match="first line"):
        CsvRows(io.BytesIO(text), ",")


def test_an_endless_line_is_held_only_so_far_that_it_is_refused() -> None:
    """It neither fills the memory nor passes for its own beginning, and the lines around it stand."""
    good = b'{"a":1}'
    endless = good + b" " * (3 * EVENT_BYTES) + b"canary"
    lines = list(bounded_lines(io.BytesIO(good + b"\n" + endless + b"\n" + good)))
    assert [lines[0].strip(), lines[2]] == [good, good]
    assert EVENT_BYTES < len(lines[1].strip()) < 2 * EVENT_BYTES


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))))
def test_lines_are_the_files_lines(lines: list[bytes]) -> None:
    """Nothing is lost, joined or cut below the limit."""
    assert b"".join(bounded_lines(io.BytesIO(b"\n".join(lines)))) == b"\n".join(lines)


@pytest.mark.parametrize(("typed", "meant"), [(";", ";"), ("tab", "\t"), ("\\t", "\t")])
def test_delimiters_can_be_typed(typed: str, meant: str) -> None:
    """A tab has a name, because shells make it hard to type."""
    assert csv_delimiter(typed) == meant


@pytest.mark.parametrize("typed", ["", ";;", '"', "\n"])
def test_what_cannot_delimit_is_refused(typed: str) -> None:
    """One character, and none that a CSV uses otherwise."""
    with pytest.raises(MappingError):
        csv_delimiter(typed)


def test_an_explanation_names_each_field_with_its_fault() -> None:
    """One line holds all that is wrong with an event."""
    error = InvalidError("the event is not valid", [Fault("/type", "is required"), Fault("", "needs 'data'")])
    assert explain(error) == "/type is required; needs 'data'"
    assert explain(MalformedError("is not UTF-8")) == "is not UTF-8"
