"""Projections and read models: what the endpoints take, and what they answer."""

from __future__ import annotations

import re
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validates_schema

from api.fields import Choice, Name, PlainText, Ref, Text, WholeNumber
from api.schemas.answers import HiddenParts
from api.schemas.requests import Request
from ledger.domain.intake import LARGEST_VERSION
from ledger.domain.names import word_fault
from ledger.domain.query import DEFAULT_LIMIT, LIMIT
from ledger.domain.times import parse_time

_MONTH: Final = re.compile(r"\d{4}-\d{2}", re.ASCII)
_QUESTIONS: Final = ("stream", "stream_ref", "category", "subject", "subject_ref", "day", "month")


def day_fault(value: object) -> str | None:
    """Say what is wrong with a day, or None."""
    if not isinstance(value, str) or len(value) != 10 or parse_time(f"{value}T00:00:00Z") is None:
        return "must be a day, like 2026-03-15"
    return None


def month_fault(value: object) -> str | None:
    """Say what is wrong with a month, or None."""
    if not isinstance(value, str) or _MONTH.fullmatch(value) is None or day_fault(f"{value}-01") is not None:
        return "must be a month, like 2026-03"
    return None


class ReadModelQuestion(Request):
    """Which documents: one of a stream, a subject or a day, those of a category or a month, or all."""

    body_optional = True
    pairs = ("stream", "subject")

    stream = Name(allow_none=True, metadata={"description": "Of `current_state`.", "example": "patient-A"})
    stream_ref = Ref("str", allow_none=True)
    category = Text(word_fault, allow_none=True, metadata={"description": "Of `current_state`."})
    subject = Name(allow_none=True, metadata={"description": "Of `activity`."})
    subject_ref = Ref("sub", allow_none=True)
    day = Text(day_fault, allow_none=True, metadata={"description": "Of `daily_counts`; UTC.", "example": "2026-03-15"})
    month = Text(month_fault, allow_none=True, metadata={"description": "Of `daily_counts`.", "example": "2026-03"})
    min_position = WholeNumber(
        0,
        LARGEST_VERSION,
        allow_none=True,
        metadata={"description": "Wait (some seconds) until the read model holds the event at this position."},
    )
    limit = WholeNumber(1, LIMIT, load_default=DEFAULT_LIMIT, metadata={"default": DEFAULT_LIMIT})
    cursor = PlainText(
        allow_none=True, metadata={"description": "The `next` of the page before; alone, or with the same question."}
    )

    @validates_schema
    def _one_question(self, data: dict[str, Any], **_: Any) -> None:
        asked = [name for name in _QUESTIONS if data.get(name) is not None]
        if len(asked) > 1:
            raise ValidationError({asked[-1]: [f"must not stand beside '{asked[0]}'"]})
        if asked and asked[0] not in ("category", "month") and data.get("cursor") is not None:
            raise ValidationError({"cursor": ["must be null: one document comes in one page"]})


class ReadModelDocument(Schema):
    """One document. `complete` is false when a hidden part could have changed it; `unknown_versions` counts events that
    are shown as recorded because nobody knows the way from their schema version."""

    key = fields.String(
        required=True,
        metadata={"description": "What it is about: `str_…`, `sub_…`, or a day.", "example": "2026-03-15"},
    )
    bucket = fields.String(
        required=True, allow_none=True, metadata={"description": "What it is listed under: a category, or a month."}
    )
    position = fields.Integer(required=True, metadata={"description": "Of the last event that went into it."})
    events = fields.Integer(required=True, metadata={"description": "How many events went into it."})
    document = fields.Dict(required=True)
    complete = fields.Boolean(required=True)
    redactions = fields.List(fields.Nested(HiddenParts), required=True)
    unknown_versions = fields.Integer(required=True)


class ReadModel(Schema):
    """Documents of a read model, all as they are with the events up to `position`."""

    name = fields.String(required=True)
    version = fields.Integer(required=True)
    generation = fields.Integer(required=True)
    position = fields.Integer(required=True)
    next = fields.String(required=True, allow_none=True)
    documents = fields.List(fields.Nested(ReadModelDocument), required=True)


class Projection(Schema):
    """One generation of a projection, and how far it has come. If it is behind and nobody holds it, nobody runs it."""

    name = fields.String(required=True)
    version = fields.Integer(required=True)
    generation = fields.Integer(required=True)
    state = Choice("building", "running", "stopped", required=True)
    current = fields.Boolean(required=True, metadata={"description": "Whether it is the one that readers see."})
    position = fields.Integer(required=True)
    behind = fields.Integer(required=True, metadata={"description": "Events between it and the end of the ledger."})
    age_seconds = fields.Float(
        required=True, allow_none=True, metadata={"description": "Since the oldest of these was recorded."}
    )
    held = fields.Boolean(required=True, metadata={"description": "Whether a worker has its lease now."})
    error = fields.String(
        required=True, allow_none=True, metadata={"description": "The class of what stopped it, and nothing more."}
    )


class Projections(Schema):
    """The projections of a ledger: of each the generation that readers see, and those that are being built."""

    projections = fields.List(fields.Nested(Projection), required=True)
