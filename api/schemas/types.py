"""Event types, the policy, and copies of streams: the requests and the answers."""

from __future__ import annotations

from marshmallow import Schema, fields

from api.fields import DaysOrNever, Flag, Identifier, Items, Name, Ref, Text, Time, WholeNumber
from api.schemas.requests import OneOfPair, Request
from ledger.domain.catalogue import DEFAULT_UNLINK_DAYS, MOST_UNLINK_DAYS, NEVER
from ledger.domain.intake import LARGEST_SCHEMA_VERSION
from ledger.domain.names import name_fault, word_fault
from ledger.domain.upcasting import STEPS

_STEPS = {
    "description": "Declarative steps, each an object with one of `rename`, `move`, `default`, `drop`, `template`, and "
    "perhaps `in`: see docs/how-to/schema-evolution.md."
}


class NewType(Request):
    """A version of an event type to register."""

    type = Text(word_fault, required=True, metadata={"example": "ERRegistration"})
    version = WholeNumber(1, LARGEST_SCHEMA_VERSION, required=True)
    schema = fields.Dict(allow_none=True, load_default=None, metadata={"description": "JSON Schema of `data`."})
    nonpersonal_schema = fields.Dict(
        allow_none=True, load_default=None, metadata={"description": "JSON Schema of `nonpersonal`."}
    )
    upcast = Items(fields.Raw(), 0, STEPS, allow_none=True, load_default=None, metadata=_STEPS)
    closes_stream = Flag(
        load_default=False,
        metadata={"default": False, "description": "Nothing can be appended to a stream behind such an event."},
    )


class TypeVersion(Schema):
    """A registered version of an event type."""

    type = fields.String(required=True)
    version = fields.Integer(required=True)
    schema = fields.Dict(required=True, allow_none=True)
    nonpersonal_schema = fields.Dict(required=True, allow_none=True)
    upcast = fields.List(fields.Dict(), required=True, allow_none=True)
    closes_stream = fields.Boolean(required=True)
    registered_at = Time(required=True)
    registered_by = Identifier(required=True)


class EventType(Schema):
    """An event type with its versions, oldest first."""

    type = fields.String(required=True)
    newest_version = fields.Integer(required=True)
    closes_stream = fields.Boolean(required=True)
    versions = fields.List(fields.Nested(TypeVersion), required=True)


class TypeSummary(Schema):
    """An event type."""

    type = fields.String(required=True)
    newest_version = fields.Integer(required=True)
    closes_stream = fields.Boolean(required=True)


class EventTypes(Schema):
    """The event types of a ledger, in order of their names."""

    types = fields.List(fields.Nested(TypeSummary), required=True)


class NewPolicy(Request):
    """What a ledger insists on. What is left out is as it is by default."""

    strict_types = Flag(
        load_default=False,
        metadata={"default": False, "description": "Refuse events of types that are not registered."},
    )
    unlink_after = DaysOrNever(
        MOST_UNLINK_DAYS,
        NEVER,
        load_default=DEFAULT_UNLINK_DAYS,
        metadata={
            "default": DEFAULT_UNLINK_DAYS,
            "description": "How many days after a person was erased the name is forgotten: from then on nothing leads "
            "from it to what is left. 0: with the erasure.",
        },
    )
    public_checkpoints = Flag(
        load_default=False,
        metadata={
            "default": False,
            "description": "Let everybody read checkpoints and tiles of hashes, without an API key. Log entries are "
            "never public: their times and types can tell something about somebody.",
        },
    )


class Policy(Schema):
    """What a ledger insists on."""

    strict_types = fields.Boolean(required=True)
    unlink_after = DaysOrNever(MOST_UNLINK_DAYS, NEVER, required=True)
    public_checkpoints = fields.Boolean(required=True)


class CopyOrder(OneOfPair):
    """A stream to copy, and what to change on the way."""

    pairs = ("stream",)

    stream = Name(allow_none=True)
    stream_ref = Ref("str", allow_none=True)
    target = Text(name_fault, required=True, metadata={"description": "The name of the new stream, `category-id`."})
    transforms = fields.Dict(
        load_default=dict,
        metadata={
            "description": "By event type: what becomes of its events. Those of other types are copied as shown.",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "The type of the copies."},
                    "version": {"type": "integer", "minimum": 1, "description": "Their schema version."},
                    "steps": {"type": "array", "maxItems": STEPS, **_STEPS},
                },
                "additionalProperties": False,
            },
        },
    )


class Copy(Schema):
    """A finished copy."""

    stream_ref = Ref("str", required=True, metadata={"description": "The new stream."})
    events = fields.Integer(required=True, metadata={"description": "Events of the old stream that the new one has."})
    copied = fields.Integer(required=True, metadata={"description": "Those of them that this request has copied."})
    parts_left_out = fields.Integer(required=True, metadata={"description": "Erased parts of what was copied now."})
    superseded_at = fields.Integer(required=True, metadata={"description": "Position of `StreamSuperseded`."})
