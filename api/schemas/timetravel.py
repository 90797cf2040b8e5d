"""Time travel: what the endpoints take, and what they answer."""

from __future__ import annotations

from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validates_schema

from api.fields import Choice, Identifier, MomentField, Name, PlainText, Ref, Text, Time, WholeNumber
from api.schemas.answers import HiddenParts, Moment, Redaction
from api.schemas.requests import AS_OF, OneOfPair, Request
from ledger.domain.names import word_fault
from ledger.domain.pointers import pointer_fault
from ledger.domain.query import DEFAULT_LIMIT, LIMIT

_OCCURRED: Final = {"description": "Count what had occurred by then, in the order in which it occurred."}
_CURSOR: Final = {"description": "The `next` of the page before; alone, or with the same question."}


class StateQuestion(OneOfPair):
    """Which stream, and the moments on both time axes."""

    pairs = ("stream",)

    stream = Name(allow_none=True)
    stream_ref = Ref("str", allow_none=True)
    as_of = MomentField(allow_none=True, metadata=AS_OF)
    occurred_as_of = Time(allow_none=True, metadata=_OCCURRED)


class _Paged(Request):
    """A question whose answer comes in pages."""

    cursor = PlainText(allow_none=True, metadata=_CURSOR)
    limit = WholeNumber(1, LIMIT, load_default=DEFAULT_LIMIT, metadata={"default": DEFAULT_LIMIT})


class StatesQuestion(_Paged):
    """Whose states: those of a category's streams, or of the streams with events about a subject."""

    pairs = ("subject",)

    category = Text(word_fault, allow_none=True, metadata={"example": "patient"})
    subject = Name(allow_none=True)
    subject_ref = Ref("sub", allow_none=True)
    as_of = MomentField(allow_none=True, metadata=AS_OF)
    occurred_as_of = Time(allow_none=True, metadata=_OCCURRED)

    @validates_schema
    def _one_question(self, data: dict[str, Any], **_: Any) -> None:
        asked = [name for name in ("category", "subject", "subject_ref") if data.get(name) is not None]
        if "category" in asked and len(asked) > 1:
            raise ValidationError({asked[-1]: ["must not stand beside 'category'"]})
        if not asked and data.get("cursor") is None:
            raise ValidationError({"category": ["is required, or 'subject', 'subject_ref' or 'cursor'"]})


class DiffQuestion(_Paged):
    """What to compare, and the moments on both time axes. The two occurred times come together or not at all."""

    pairs = ("stream",)

    stream = Name(allow_none=True)
    stream_ref = Ref("str", allow_none=True)
    category = Text(word_fault, allow_none=True)
    old_as_of = MomentField(allow_none=True, metadata=AS_OF)
    new_as_of = MomentField(allow_none=True, metadata={**AS_OF, "description": "As old_as_of; null: now."})
    old_occurred_as_of = Time(allow_none=True, metadata=_OCCURRED)
    new_occurred_as_of = Time(allow_none=True, metadata=_OCCURRED)

    @validates_schema
    def _one_question(self, data: dict[str, Any], **_: Any) -> None:
        asked = [name for name in ("stream", "stream_ref", "category") if data.get(name) is not None]
        if "category" in asked and len(asked) > 1:
            raise ValidationError({asked[0]: ["must not stand beside 'category'"]})
        if data.get("cursor") is None:
            if not asked:
                raise ValidationError({"stream": ["is required, or 'stream_ref', 'category' or 'cursor'"]})
            if data.get("old_as_of") is None:
                raise ValidationError({"old_as_of": ["is required"]})
        elif asked and asked != ["category"]:
            raise ValidationError({"cursor": ["must be null: the changes of one stream come in one page"]})


class HistoryQuestion(_Paged, OneOfPair):
    """Whose history, and of which field. A cursor goes with the same stream and path."""

    pairs = ("stream",)

    stream = Name(allow_none=True)
    stream_ref = Ref("str", allow_none=True)
    path = Text(
        pointer_fault,
        required=True,
        metadata={"description": "RFC 6901, into the state.", "example": "/iban"},
    )
    as_of = MomentField(allow_none=True, metadata=AS_OF)
    occurred_as_of = Time(allow_none=True, metadata=_OCCURRED)
    cursor = PlainText(allow_none=True, metadata={"description": "The `next` of the page before."})


class StreamState(Schema):
    """What a stream amounts to. `complete` is false when a hidden part could have changed it; `unknown_versions` counts
    events shown as recorded because nobody knows the way from their schema version."""

    stream_ref = Ref("str", required=True)
    stream_version = fields.Integer(required=True)
    state = fields.Dict(required=True)
    complete = fields.Boolean(required=True)
    redactions = fields.List(fields.Nested(HiddenParts), required=True)
    unknown_versions = fields.Integer(required=True)


class State(StreamState):
    """The state of one stream."""

    as_of = fields.Nested(Moment, required=True)


class States(Schema):
    """One page of states, in order of stream refs; it can have fewer than `limit` and not be the last."""

    as_of = fields.Nested(Moment, required=True)
    next = fields.String(required=True, allow_none=True)
    states = fields.List(fields.Nested(StreamState), required=True)


class Cause(Schema):
    """The event behind a change, and who acted; null where that is hidden or nobody did."""

    id = Identifier(required=True)
    position = fields.Integer(required=True)
    type = fields.String(required=True)
    actor = fields.String(required=True, allow_none=True)
    actor_ref = Ref("sub", required=True, allow_none=True)
    recorded_at = Time(required=True)
    occurred_at = Time(required=True, allow_none=True)


class Change(Schema):
    """One difference: `old` is null for `add`, `new` for `remove`."""

    stream_ref = Ref("str", required=True)
    path = fields.String(required=True, metadata={"description": "RFC 6901"})
    op = Choice("add", "replace", "remove", required=True)
    old = fields.Raw(required=True, allow_none=True)
    new = fields.Raw(required=True, allow_none=True)
    event = fields.Nested(Cause, required=True)


class ComparedStream(Schema):
    """A stream with events between the two moments. What is hidden of it may have changed more."""

    stream_ref = Ref("str", required=True)
    old_version = fields.Integer(required=True)
    new_version = fields.Integer(required=True)
    complete = fields.Boolean(required=True)
    redactions = fields.List(fields.Nested(HiddenParts), required=True)
    unknown_versions = fields.Integer(required=True)


class Diff(Schema):
    """One page of what changed between two moments, in order of stream refs and paths."""

    old_as_of = fields.Nested(Moment, required=True)
    new_as_of = fields.Nested(Moment, required=True)
    next = fields.String(required=True, allow_none=True)
    streams = fields.List(fields.Nested(ComparedStream), required=True)
    changes = fields.List(fields.Nested(Change), required=True)


class FieldValue(Schema):
    """What an event made of a field. `absent` is null when that is hidden, and `redactions` says why."""

    value = fields.Raw(required=True, allow_none=True)
    absent = fields.Boolean(required=True, allow_none=True)
    redactions = fields.List(fields.Nested(Redaction), required=True)
    event = fields.Nested(Cause, required=True)


class History(Schema):
    """One page of the values of a field, in the order in which the events count."""

    as_of = fields.Nested(Moment, required=True)
    stream_ref = Ref("str", required=True)
    next = fields.String(required=True, allow_none=True)
    values = fields.List(fields.Nested(FieldValue), required=True)
