"""The bodies and query parameters that the endpoints take. Unknown fields are refused, names are the domain's."""

from __future__ import annotations

import re
from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, validates_schema

from api.fields import (
    Choice,
    Flag,
    FlagText,
    Identifier,
    Items,
    MomentField,
    MomentText,
    Name,
    PlainText,
    Proof,
    ProofText,
    Ref,
    Text,
    Time,
    WholeNumber,
    Words,
)
from ledger.domain.access import AccessRole
from ledger.domain.intake import BATCH_EVENTS, LARGEST_SCHEMA_VERSION, LARGEST_VERSION
from ledger.domain.merkle import TREE_SIZES
from ledger.domain.names import (
    ACTOR_PURPOSE,
    ledger_name_fault,
    name_fault,
    purpose_fault,
    reference_fault,
    word_fault,
)
from ledger.domain.query import DEFAULT_LIMIT, LIMIT

MOST_TYPES: Final = 100
MOST_PURPOSES: Final = 64
LONGEST_WAIT: Final = 60
"""Seconds."""

LARGEST_SIZE: Final = TREE_SIZES - 1

ERASURE_STATES: Final = ("requested", "approved", "rejected", "shredding", "erased", "failed")

_GROUND: Final = re.compile(r"[A-Za-z0-9 ().,:;/_-]{1,128}", re.ASCII)
AS_OF: Final = {
    "description": "A time (every event recorded at or before it) or a position (that event included).",
    "oneOf": [
        {"type": "string", "format": "date-time"},
        {
            "type": "object",
            "properties": {"position": {"type": "integer", "minimum": 0}},
            "required": ["position"],
            "additionalProperties": False,
        },
        {"type": "null"},
    ],
}

AS_RECORDED: Final = {
    "default": False,
    "description": "Show events in the shape in which they were recorded, and not in the newest one of their types.",
}


PROOF: Final = {
    "description": "`true`: with the proof that each event is recorded, under one checkpoint. `opened`: also with what "
    "shows that the text is the recorded one (events are then shown as they were recorded)."
}


def purpose_to_erase_fault(value: object) -> str | None:
    """Say what is wrong with a purpose that is to be erased, or None. What a person did as an actor is one, too."""
    return None if value == ACTOR_PURPOSE else purpose_fault(value)


def ground_fault(value: object) -> str | None:
    """Say what is wrong with the ground of an erasure, or None. Free text could hold the name that is to go."""
    if not isinstance(value, str) or _GROUND.fullmatch(value) is None:
        return "must be 1 to 128 ASCII letters, digits, spaces or one of ( ) . , : ; / _ -, like 17(1)(b)"
    return None


class Request(Schema):
    """What all requests share. ``pairs``: fields that say the same by name and by ref."""

    class Meta:
        """Unknown fields are refused."""

        unknown = RAISE

    body_optional = False
    pairs: tuple[str, ...] = ()

    @validates_schema
    def _one_of_each_pair(self, data: dict[str, Any], **_: Any) -> None:
        both = {
            f"{name}_ref": [f"must not stand beside '{name}'"]
            for name in self.pairs
            if data.get(name) is not None and data.get(f"{name}_ref") is not None
        }
        if both:
            raise ValidationError(both)


class OneOfPair(Request):
    """A request that needs its first pair."""

    @validates_schema
    def _needed(self, data: dict[str, Any], **_: Any) -> None:
        name = self.pairs[0]
        if data.get(name) is None and data.get(f"{name}_ref") is None:
            raise ValidationError({name: [f"is required, or '{name}_ref'"]})


class NewLedger(Request):
    """A ledger to make."""

    name = Text(ledger_name_fault, required=True, metadata={"example": "hospital"})


class NewApiKey(Request):
    """An API key to make."""

    name = Text(name_fault, required=True, metadata={"description": "What the key is for."})
    principal = Text(name_fault, required=True, metadata={"description": "The person or service behind the key."})
    roles = Items(Choice(*(role.value for role in AccessRole)), 1, len(AccessRole), required=True)
    ledger = Text(
        ledger_name_fault, allow_none=True, load_default=None, metadata={"description": "null: for all ledgers."}
    )
    expires_at = Time(allow_none=True, load_default=None)


class Person(Request):
    """A person with data, in an event."""

    subject = Name(allow_none=True)
    subject_ref = Ref("sub", allow_none=True)
    data = fields.Dict(allow_none=True)


class Part(Person):
    """A part of an event's payload that belongs to a further person."""

    purpose = Text(purpose_fault, metadata={"default": ""})


class NewEvent(Request):
    """An event to record. Needs `data` (with a subject) or `nonpersonal`, and a stream by name or ref."""

    id = Identifier(allow_none=True, metadata={"description": "Best a UUID version 7; versions 3 and 5 are refused."})
    stream = Name(allow_none=True, metadata={"description": "`category-id`", "example": "patient-A"})
    stream_ref = Ref("str", allow_none=True)
    expected_version = fields.Raw(
        metadata={
            "description": "The version that the stream must have just before this event; 0: it must not exist.",
            "oneOf": [
                {"type": "integer", "minimum": 0, "maximum": LARGEST_VERSION},
                {"type": "string", "enum": ["any", "exists"]},
            ],
            "default": "any",
        }
    )
    type = Text(word_fault, required=True, metadata={"example": "ERRegistration"})
    schema_version = WholeNumber(1, LARGEST_SCHEMA_VERSION, metadata={"default": 1})
    subject = Name(allow_none=True, metadata={"example": "patient:A"})
    subject_ref = Ref("sub", allow_none=True)
    purpose = Text(purpose_fault, metadata={"default": ""})
    data = fields.Dict(allow_none=True, metadata={"description": "What the event says of its subject."})
    actor = fields.Raw(
        metadata={
            "description": "Who did it: a name, or a person with data.",
            "oneOf": [{"type": "string"}, {"$ref": "#/components/schemas/Person"}, {"type": "null"}],
        }
    )
    actor_ref = Ref("sub", allow_none=True)
    parts = fields.List(fields.Nested(Part), allow_none=True)
    nonpersonal = fields.Dict(allow_none=True, metadata={"description": "What concerns no person."})
    occurred_at = Time(allow_none=True)
    correlation_id = Identifier(allow_none=True)
    causation_id = Identifier(allow_none=True)
    if_erased = Choice("refuse", "omit", metadata={"default": "refuse"})


class Batch(Request):
    """Events to record in this order, all or nothing."""

    events = fields.List(fields.Nested(NewEvent), required=True, metadata={"minItems": 1, "maxItems": BATCH_EVENTS})


class Query(Request):
    """A question about events. All fields are optional; those that are given must all hold."""

    body_optional = True
    pairs = ("stream", "subject", "actor", "involving")

    stream = Name(allow_none=True)
    stream_ref = Ref("str", allow_none=True)
    after_version = WholeNumber(0, LARGEST_VERSION, load_default=0)
    category = Text(word_fault, allow_none=True)
    type = Items(Text(word_fault), 0, MOST_TYPES, allow_none=True)
    subject = Name(allow_none=True, metadata={"description": "The event's main subject."})
    subject_ref = Ref("sub", allow_none=True)
    actor = Name(allow_none=True)
    actor_ref = Ref("sub", allow_none=True)
    involving = Name(allow_none=True, metadata={"description": "A person in any role."})
    involving_ref = Ref("sub", allow_none=True)
    correlation_id = Identifier(allow_none=True)
    recorded_by = Identifier(allow_none=True, metadata={"description": "The id of the API key that recorded it."})
    recorded_from = Time(allow_none=True)
    recorded_to = Time(allow_none=True)
    occurred_from = Time(allow_none=True)
    occurred_to = Time(allow_none=True)
    as_of = MomentField(allow_none=True, metadata=AS_OF)
    order_by = Choice("recorded", "occurred", load_default="recorded", metadata={"default": "recorded"})
    order = Choice("asc", "desc", load_default="asc", metadata={"default": "asc"})
    limit = WholeNumber(1, LIMIT, load_default=DEFAULT_LIMIT, metadata={"default": DEFAULT_LIMIT})
    cursor = PlainText(allow_none=True, metadata={"description": "The `next` of the page before."})
    proof = Proof(load_default=None, allow_none=False, metadata={**PROOF, "default": False})
    as_recorded = Flag(load_default=False, metadata=AS_RECORDED)


class Showing(Request):
    """The query parameter of everything that shows events."""

    as_recorded = FlagText(load_default=False, metadata=AS_RECORDED)


class ShowingOne(Showing):
    """The query parameters of one event."""

    proof = ProofText(load_default=None, allow_none=False, metadata={**PROOF, "default": "false"})


class Follow(Showing):
    """The query parameters of the feed."""

    after = WholeNumber(-1, LARGEST_VERSION, digits=True, load_default=-1, metadata={"default": -1})
    limit = WholeNumber(1, LIMIT, digits=True, load_default=DEFAULT_LIMIT, metadata={"default": DEFAULT_LIMIT})
    category = Text(word_fault)
    type = Words(word_fault, MOST_TYPES, metadata={"description": "Repeated, or several with commas."})
    stream_ref = Ref("str")
    subject_ref = Ref("sub")
    as_of = MomentText(metadata={"description": "A time, or the digits of a position."})
    cursor = PlainText(metadata={"description": "The `next` of the page before; alone, or with the same parameters."})
    wait = WholeNumber(
        0,
        LONGEST_WAIT,
        digits=True,
        load_default=0,
        metadata={"default": 0, "description": "Seconds to wait, at most, for the first event when there is none yet."},
    )


class StreamLookup(OneOfPair):
    """A stream by name or ref."""

    pairs = ("stream",)

    stream = Name(allow_none=True)
    stream_ref = Ref("str", allow_none=True)


class SubjectLookup(OneOfPair):
    """A subject by name or ref."""

    pairs = ("subject",)

    subject = Name(allow_none=True)
    subject_ref = Ref("sub", allow_none=True)


_REASON_NOTE: Final = "A case number. It is recorded for good: no names, no sentence about the person."


class RestrictionOrder(OneOfPair):
    """Whom to restrict, or to restrict no longer, and why."""

    pairs = ("subject",)

    subject = Name(allow_none=True)
    subject_ref = Ref("sub", allow_none=True)
    reason = Text(
        reference_fault,
        allow_none=True,
        load_default=None,
        metadata={"example": "case 2026-114", "description": _REASON_NOTE},
    )


class ReinstatementOrder(Request):
    """Whose name begins anew, and why. By name only: a ref is one person's for good."""

    subject = Name(required=True)
    reason = Text(
        reference_fault,
        allow_none=True,
        load_default=None,
        metadata={"example": "case 2026-114", "description": _REASON_NOTE},
    )


class ErasureOrder(OneOfPair):
    """What to erase, and why."""

    pairs = ("subject",)

    subject = Name(allow_none=True)
    subject_ref = Ref("sub", allow_none=True)
    purposes = Items(
        Text(purpose_to_erase_fault),
        1,
        MOST_PURPOSES,
        allow_none=True,
        load_default=None,
        metadata={"description": "null: all of the subject's data except what the person did as an actor."},
    )
    ground = Text(ground_fault, allow_none=True, load_default=None, metadata={"example": "17(1)(b)"})
    reference = Text(reference_fault, allow_none=True, load_default=None, metadata={"example": "case 2026-114"})
    preview_hash = PlainText(allow_none=True, load_default=None)
    block_unknown = Flag(
        load_default=False,
        metadata={"default": False, "description": "Refuse late writers of a name that is not known yet."},
    )

    @validates_schema
    def _no_previews_yet(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("preview_hash") is not None:
            raise ValidationError({"preview_hash": ["must be null: this version gives no previews yet"]})


class ErasureFilter(Request):
    """The query parameters of the list of erasures."""

    reference = Text(reference_fault)
    state = Choice(*ERASURE_STATES)
    cursor = Identifier(metadata={"description": "The `next` of the page before."})
    limit = WholeNumber(1, LIMIT, digits=True, load_default=DEFAULT_LIMIT, metadata={"default": DEFAULT_LIMIT})


class Sizes(Request):
    """The query parameters of a consistency proof."""

    old = WholeNumber(0, LARGEST_SIZE, digits=True, required=True, data_key="from")
    new = WholeNumber(
        0,
        LARGEST_SIZE,
        digits=True,
        load_default=None,
        data_key="to",
        metadata={"description": "Without it the size of the newest checkpoint."},
    )
