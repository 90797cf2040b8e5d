"""Read files of events for an import: lines of bounded length, and rows of a CSV turned into events.

Every line keeps its number in the file, because ids are derived from it: the same line of the same file is the same
event, however often it is imported (I4).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from ledger.domain.events import JsonObject
from ledger.domain.intake import EVENT_BYTES
from ledger.domain.strict_json import parse_json
from ledger.errors import Fault, InvalidError, LedgerError, MalformedError

LABEL_PREFIX: Final = "import:"
"""Stands before the source's label where ids are derived, so that no other use of labels gives the same ids."""

_LINE_BYTES: Final = EVENT_BYTES + 4096
"""A line is read up to here: an event may be followed by white space."""

_TOO_LONG: Final = b"x" * (EVENT_BYTES + 1)
_TEMPLATE: Final = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<column>[^{}]+)\}|(?P<text>[^{}]+)")
_TEXT_FIELDS: Final = frozenset(
    {
        "id", "stream", "stream_ref", "type", "subject", "subject_ref", "purpose", "actor", "actor_ref", "occurred_at",
        "correlation_id", "causation_id", "if_erased",
    }
)  # fmt: skip
_NUMBER_FIELDS: Final = frozenset({"expected_version", "schema_version"})
_OBJECT_FIELDS: Final = ("data", "nonpersonal", "actor.data")


class MappingError(Exception):
    """A mapping of columns to fields that cannot be meant. The message is for whoever typed it."""


class UnreadableFileError(Exception):
    """The file cannot be read on. What was recorded before stands, and the import can be run again."""


@dataclass(frozen=True, slots=True)
class FieldTemplate:
    """One ``FIELD=TEMPLATE``: the path of the field, and pieces of text (column None) and of columns."""

    path: tuple[str, ...]
    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template uses."""
        return tuple(column for _, column in self.pieces if column is not None)


@dataclass(frozen=True, slots=True)
class CsvLayout:
    """How a row becomes an event: the columns' names, the templates, and what goes into ``data`` under its name."""

    header: tuple[str, ...]
    templates: tuple[FieldTemplate, ...]
    data_columns: tuple[str, ...]
    json_columns: frozenset[str]


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file. Of one that is above the limit only so much is held that it is refused as too large."""
    while line := stream.readline(_LINE_BYTES):
        if len(line) < _LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        # What was read of it must not pass for a whole line: its end could be all that makes it wrong.
        while (rest := stream.readline(_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield _TOO_LONG


def parse_field_template(text: str) -> FieldTemplate:
    """Read ``FIELD=TEMPLATE``. Raises ``MappingError``.

    ``{column}`` stands for a cell, ``{{`` and ``}}`` for braces. Fields: those of an event that hold one value, and
    ``data.NAME``, ``nonpersonal.NAME``, ``actor.subject``, ``actor.data.NAME``.
    """
    field, equals, template = text.partition("=")
    if not equals or not template:
        raise MappingError("a mapping has the form FIELD=TEMPLATE, for example stream='patient-{case}'")
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for match in _TEMPLATE.finditer(template):
        if match.start() != end:
            break
        end = match.end()
        pieces.append((match["text"] or (match["brace"] or "")[:1], match["column"]))
    if end != len(template):
        raise MappingError(f"the template of {field} has a brace without its other one; write {{{{ or }}}} for a brace")
    return FieldTemplate(_path(field), tuple(pieces))


def _path(field: str) -> tuple[str, ...]:
    if field in _TEXT_FIELDS or field in _NUMBER_FIELDS:
        return (field,)
    if field in ("actor.subject", "actor.subject_ref"):
        return tuple(field.split("."))
    for parent in _OBJECT_FIELDS:
        # Whatever follows is the member's name, dots included: a column name may have them.
        if field.startswith(f"{parent}.") and len(field) > len(parent) + 1:
            return (*parent.split("."), field[len(parent) + 1 :])
    known = ", ".join(sorted(_TEXT_FIELDS | _NUMBER_FIELDS))
    raise MappingError(
        f"there is no field {field} to map to; there are: {known}, actor.subject, actor.data.NAME, data.NAME, "
        "nonpersonal.NAME"
    )


def plan_columns(
    header: Sequence[str],
    templates: Sequence[FieldTemplate],
    *,
    only_mapped: bool,
    json_columns: Collection[str] = (),
) -> CsvLayout:
    """Decide what becomes of each column. Raises ``MappingError``, which repeats nothing of the file."""
    _check_templates(templates)
    used = {column for template in templates for column in template.columns}
    for column in sorted(used | set(json_columns)):
        if column not in header:
            raise MappingError(
                f"the file has no column '{column}': its first line must hold the names of the columns "
                f"(it has {len(header)}; is the delimiter right?)"
            )
    for number, column in enumerate(header, 1):
        if column in header[: number - 1]:
            raise MappingError(f"columns {header.index(column) + 1} and {number} have the same name; rename one")
        if not column and not only_mapped:
            raise MappingError(f"column {number} has no name: give it one in the first line, or use --only-mapped")
    rest = () if only_mapped else tuple(column for column in header if column not in used)
    return CsvLayout(tuple(header), tuple(templates), rest, frozenset(json_columns))


def _check_templates(templates: Sequence[FieldTemplate]) -> None:
    paths = [template.path for template in templates]
    for path in paths:
        if paths.count(path) > 1:
            raise MappingError(f"{'.'.join(path)} is mapped twice")
    if ("actor",) in paths and any(path[0] == "actor" and len(path) > 1 for path in paths):
        raise MappingError("map either actor or the fields of actor (actor.subject, actor.data.NAME), not both")
    for needed in ("type", "stream"):
        if (needed,) not in paths and (f"{needed}_ref",) not in paths:
            raise MappingError(f"every event needs a {needed}: add --map {needed}=…")


def event_of_row(layout: CsvLayout, cells: Sequence[str]) -> JsonObject:
    """The JSON of an event from the cells of one row. An empty cell counts as absent, and so does every field whose
    template uses one. Raises ``MalformedError`` or ``InvalidError``, which repeat no cell."""
    if len(cells) != len(layout.header):
        raise MalformedError(f"has {len(cells)} cells where the first line has {len(layout.header)}")
    if any(not cell.isascii() and any("\ud800" <= letter <= "\udfff" for letter in cell) for cell in cells):
        raise MalformedError("is not UTF-8")
    row = {column: cell for column, cell in zip(layout.header, cells, strict=True) if cell}
    event: JsonObject = {}
    data = {column: _value(layout, column, row[column]) for column in layout.data_columns if column in row}
    for template in layout.templates:
        value = _fill(layout, template, row)
        if value is not None:
            _put(event, template.path, value)
    if data:
        event["data"] = {**data, **event.get("data", {})}
    elif "subject" in event or "subject_ref" in event:
        event.setdefault("data", {})
    return event


def _fill(layout: CsvLayout, template: FieldTemplate, row: dict[str, str]) -> object:
    if any(column not in row for column in template.columns):
        return None
    if len(template.path) > 1 and template.pieces[0][1] is not None and len(template.pieces) == 1:
        return _value(layout, template.pieces[0][1], row[template.pieces[0][1]])
    text = "".join(piece if column is None else row[column] for piece, column in template.pieces)
    if template.path[0] in _NUMBER_FIELDS and text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)
    if template.path == ("occurred_at",):
        # What most programs export, and ISO 8601 calls a mutual agreement, is a space between date and time.
        return text.replace(" ", "T", 1)
    return text


def _value(layout: CsvLayout, column: str, cell: str) -> object:
    if column not in layout.json_columns:
        return cell
    try:
        return parse_json(cell.encode())
    except MalformedError:
        number = layout.header.index(column) + 1
        raise InvalidError(
            "not JSON", [Fault("", f'column {number} must hold JSON, like 85, true or "text"')]
        ) from None


def _put(event: JsonObject, path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        event = event.setdefault(name, {})
    event[path[-1]] = value


def csv_delimiter(text: str) -> str:
    """The delimiter that somebody typed. Raises ``MappingError``."""
    delimiter = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise MappingError("the delimiter is one character, or the word tab")
    return delimiter


class CsvRows:
    """The rows of a CSV file (RFC 4180, UTF-8, a header line) for ``ingest_lines``.

    Iterating gives one item for each line of the file: a row's cells stand at its first line, as JSON, and what belongs
    to no row is empty. So rows keep the numbers of their lines, also where a cell holds line breaks.
    """

    def __init__(self, stream: BinaryIO, delimiter: str) -> None:
        self._lines = 0
        self._reader = csv.reader(self._texts(stream), delimiter=delimiter)
        # A quotation mark that is never closed must not take the rest of the file into memory.
        csv.field_size_limit(EVENT_BYTES)
        self.header = tuple(self._next() or ())
        if not self.header:
            raise UnreadableFileError("the file is empty: its first line must hold the names of the columns")

    def __iter__(self) -> Iterator[bytes]:
        yield from [b""] * self._lines
        first = self._lines
        while (cells := self._next()) is not None:
            yield json.dumps(cells).encode() if cells else b""
            yield from [b""] * (self._lines - first - 1)
            first = self._lines

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise UnreadableFileError(
                f"line {self._lines}: the CSV cannot be read on from here ({error}); is a quotation mark missing?"
            ) from None

    def _texts(self, stream: BinaryIO) -> Iterator[str]:
        for line in bounded_lines(stream):
            self._lines += 1
            if line is _TOO_LONG:
                raise UnreadableFileError(f"line {self._lines} is above 1 MiB; is this a CSV file?")
            # What is not UTF-8 becomes lone surrogates, for which its row alone is refused.
            yield line.decode("utf-8-sig" if self._lines == 1 else "utf-8", errors="surrogateescape")


def read_event(text: bytes) -> Any:
    """The ``LineReader`` of NDJSON: as ``parse_json``, with complaints that speak of a line."""
    try:
        return parse_json(text)
    except MalformedError as error:
        raise MalformedError(error.detail.removeprefix("the body ").replace("line 1, ", "")) from None


def read_row(layout: CsvLayout, text: bytes) -> Any:
    """The ``LineReader`` of ``CsvRows``: from a row's cells as JSON to the JSON of an event."""
    return event_of_row(layout, json.loads(text))


def explain(error: LedgerError) -> str:
    """What is wrong with a line, for a person who reads it beside the file."""
    if not error.faults:
        return error.detail
    return "; ".join(f"{fault.pointer} {fault.message}".strip() for fault in error.faults)
