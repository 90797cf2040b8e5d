"""The answers, for the OpenAPI document. ``api/rendering.py`` makes what is really sent; a test compares the two."""

from __future__ import annotations

from typing import get_args

from marshmallow import Schema, fields

from api.fields import Choice, Identifier, Ref, Time
from api.schemas.requests import ERASURE_STATES
from ledger.domain.access import AccessRole
from ledger.domain.events import SchemaStatus
from ledger.ports import Pending
from ledger.services.unlinking import StillLinked


class ProblemPlace(Schema):
    """One thing that is wrong, and where; the code can add members, like `expected` and `actual`."""

    pointer = fields.String(required=True, metadata={"description": "RFC 6901, into the request."})
    message = fields.String(required=True)


class Problem(Schema):
    """RFC 9457"""

    type = fields.String(required=True, metadata={"description": "`urn:audit-ledger:problem:<code>`"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    errors = fields.List(fields.Nested(ProblemPlace))


class Health(Schema):
    """Whether the service is there."""

    status = fields.String(required=True)
    dependencies = fields.Dict(keys=fields.String(), values=fields.String())


class Ledger(Schema):
    """A ledger and its head."""

    name = fields.String(required=True)
    id = Identifier(required=True)
    size = fields.Integer(required=True)
    last_recorded_at = Time(required=True, allow_none=True)
    verifier_key = fields.String(required=True, metadata={"description": "C2SP vkey (signed-note)"})


class Ledgers(Schema):
    """The ledgers that the key may see."""

    ledgers = fields.List(fields.Nested(Ledger), required=True)


class IssuedApiKey(Schema):
    """A new API key; its secret is shown this once."""

    id = Identifier(required=True)
    secret = fields.String(required=True)


class ApiKey(Schema):
    """An API key, without its secret."""

    id = Identifier(required=True)
    name = fields.String(required=True)
    principal = fields.String(required=True)
    roles = fields.List(Choice(*(role.value for role in AccessRole)), required=True)
    ledger = fields.String(required=True, allow_none=True)
    created_at = Time(required=True)
    expires_at = Time(required=True, allow_none=True)
    revoked_at = Time(required=True, allow_none=True)
    last_used_at = Time(required=True, allow_none=True)


class ApiKeys(Schema):
    """The API keys that the key may see."""

    api_keys = fields.List(fields.Nested(ApiKey), required=True)


class AppendedEvent(Schema):
    """Where an event stands."""

    id = Identifier(required=True)
    position = fields.Integer(required=True)
    stream_ref = Ref("str", required=True)
    stream_version = fields.Integer(required=True)
    recorded_at = Time(required=True)


class Appended(Schema):
    """The places of the events, in their order."""

    events = fields.List(fields.Nested(AppendedEvent), required=True)
    duplicate = fields.Boolean(required=True, metadata={"description": "They had been recorded before."})


class AppendedLine(AppendedEvent):
    """One line of the answer to NDJSON. The last line is `{"end":true,"recorded":n,"duplicates":n,"refused":n}`."""

    line = fields.Integer(required=True)
    problem = fields.Nested(Problem)


class Moment(Schema):
    """What `as_of` resolved to. Position -1: before the first event."""

    position = fields.Integer(required=True)
    recorded_at = Time(required=True, allow_none=True)


class Redaction(Schema):
    """What stands in place of a part that may not or cannot be read."""

    pointer = fields.String(required=True)
    subject_ref = Ref("sub", required=True, allow_none=True)
    purpose = fields.String(required=True, allow_none=True)
    reason = Choice("erased", "restricted", "unreadable", required=True)
    at = Time(required=True, allow_none=True)
    erasure_id = Identifier(required=True, allow_none=True)


class HiddenParts(Redaction):
    """Parts that are hidden for the same reason."""

    events = fields.Integer(required=True)
    first_position = fields.Integer(required=True)
    last_position = fields.Integer(required=True)


class ActorPart(Schema):
    """Who did it."""

    subject = fields.String(required=True, allow_none=True)
    subject_ref = Ref("sub", required=True, allow_none=True)
    data = fields.Dict(required=True, allow_none=True)


class EventPart(ActorPart):
    """A part of a further person."""

    purpose = fields.String(required=True, allow_none=True)


class Event(Schema):
    """An event as it may be read now."""

    position = fields.Integer(required=True)
    id = Identifier(required=True)
    type = fields.String(required=True)
    schema_version = fields.Integer(required=True, metadata={"description": "As recorded."})
    stream = fields.String(required=True, allow_none=True)
    stream_ref = Ref("str", required=True)
    stream_version = fields.Integer(required=True)
    category = fields.String(required=True)
    recorded_at = Time(required=True)
    occurred_at = Time(required=True, allow_none=True)
    recorded_by = Identifier(required=True)
    correlation_id = Identifier(required=True, allow_none=True)
    causation_id = Identifier(required=True, allow_none=True)
    subject = fields.String(required=True, allow_none=True)
    subject_ref = Ref("sub", required=True, allow_none=True)
    purpose = fields.String(required=True, allow_none=True)
    data = fields.Dict(required=True, allow_none=True)
    actor = fields.Nested(ActorPart, required=True, allow_none=True)
    parts = fields.List(fields.Nested(EventPart), required=True)
    nonpersonal = fields.Dict(required=True, allow_none=True)
    redactions = fields.List(fields.Nested(Redaction), required=True)
    shown_version = fields.Integer(required=True, metadata={"description": "Whose shape the event is shown in."})
    schema_status = Choice(*get_args(SchemaStatus), required=True)


class Page(Schema):
    """One page of events."""

    as_of = fields.Nested(Moment, required=True)
    next = fields.String(required=True, allow_none=True)
    events = fields.List(fields.Nested(Event), required=True)


class OpenedPart(Schema):
    """A part as it was recorded, and the key that opens it and no other."""

    part = fields.Integer(required=True, metadata={"description": "Its number in the leaf, from 0."})
    sealed = fields.String(required=True, metadata={"format": "byte"})
    key = fields.String(required=True, metadata={"format": "byte"})


class EventProof(Schema):
    """That an event is recorded at this index; with `leaf` and `parts`, that it says what is shown."""

    index = fields.Integer(required=True)
    hashes = fields.List(
        fields.String(metadata={"format": "byte"}),
        required=True,
        metadata={"description": "The inclusion proof (RFC 6962), from the leaf's sibling up."},
    )
    leaf = fields.String(
        allow_none=True,
        metadata={"format": "byte", "description": "null only where the row was altered so that it has none."},
    )
    parts = fields.List(fields.Nested(OpenedPart))


class EventWithProof(Event):
    """An event, with its proof where that was asked for."""

    proof = fields.Nested(EventProof)


class SingleEvent(EventWithProof):
    """An event, with its proof and the checkpoint of that where they were asked for."""

    checkpoint = fields.String(metadata={"description": "C2SP tlog-checkpoint"})


class PageWithProofs(Page):
    """One page of events, with proofs where they were asked for, all of them under one checkpoint."""

    events = fields.List(fields.Nested(EventWithProof), required=True)
    checkpoint = fields.String(metadata={"description": "C2SP tlog-checkpoint"})


class Stream(Schema):
    """A stream."""

    stream_ref = Ref("str", required=True)
    stream_version = fields.Integer(required=True)


class Subject(Schema):
    """What the ledger holds of a subject."""

    subject_ref = Ref("sub", required=True)
    names = fields.Integer(required=True)
    state = Choice("active", "restricted", "erasing", "erased", required=True)
    events = fields.Integer(required=True)
    first_recorded_at = Time(required=True, allow_none=True)
    last_recorded_at = Time(required=True, allow_none=True)
    erased_at = Time(required=True, allow_none=True)
    final_at = Time(required=True, allow_none=True)
    unlinked_at = Time(required=True, allow_none=True)


class FinalPending(Schema):
    """Why an erasure is not final: a word that stays, and a sentence."""

    reason = Choice(*get_args(Pending), required=True)
    detail = fields.String(required=True)


class UnlinkPending(Schema):
    """Why the name still leads to what is left of the subject: a word that stays, and a sentence."""

    reason = Choice(*get_args(StillLinked), required=True)
    detail = fields.String(required=True)
    due_at = Time(required=True, allow_none=True)


class Erasure(Schema):
    """An erasure. `final_at` is null as long as a copy of a key could still be opened; `final_pending` says why.
    `unlinked_at` is null as long as the name leads to what is left; `unlink_pending` says why."""

    id = Identifier(required=True)
    state = Choice(*ERASURE_STATES, required=True)
    subject_ref = Ref("sub", required=True)
    purposes = fields.List(fields.String(), required=True, allow_none=True)
    ground = fields.String(required=True, allow_none=True)
    reference = fields.String(required=True, allow_none=True)
    requested_by = Identifier(required=True)
    events = fields.Integer(required=True)
    requested_at = Time(required=True)
    erased_at = Time(required=True, allow_none=True)
    final_at = Time(required=True, allow_none=True)
    final_pending = fields.Nested(FinalPending, required=True, allow_none=True)
    unlinked_at = Time(required=True, allow_none=True)
    unlink_pending = fields.Nested(UnlinkPending, required=True, allow_none=True)


class RootProof(Schema):
    """Links the leaf of a payload, and the roots before it and with it, to a checkpoint. Hashes in base64."""

    index = fields.Integer(required=True)
    hashes = fields.List(fields.String(metadata={"format": "byte"}), required=True)
    frontier = fields.List(fields.String(metadata={"format": "byte"}), required=True)
    consistency = fields.List(fields.String(metadata={"format": "byte"}), required=True)


class SignedStatement(Schema):
    """What was signed about an erasure after it was done, such as that it is final."""

    payload = fields.Dict(required=True)
    proof = fields.Nested(RootProof, required=True, allow_none=True)
    checkpoint = fields.String(required=True, allow_none=True, metadata={"description": "C2SP tlog-checkpoint"})
    signature = fields.String(required=True, metadata={"format": "byte"})


class Receipt(Schema):
    """The signed evidence of an erasure. `proof` and `checkpoint` are null while there is no checkpoint that has it."""

    payload = fields.Dict(required=True)
    proof = fields.Nested(RootProof, required=True, allow_none=True)
    checkpoint = fields.String(required=True, allow_none=True, metadata={"description": "C2SP tlog-checkpoint"})
    signature = fields.String(required=True, metadata={"format": "byte"})
    statements = fields.List(fields.Nested(SignedStatement), required=True)


class DoneErasure(Erasure):
    """An erasure with its receipt. `name_salt` opens the receipt's name commitment and is shown this once."""

    receipt = fields.Nested(Receipt, required=True)
    name_salt = fields.String(required=True, allow_none=True, metadata={"format": "byte"})


class Erasures(Schema):
    """One page of erasures, oldest first. `next` goes into `after`."""

    erasures = fields.List(fields.Nested(Erasure), required=True)
    next = Identifier(required=True, allow_none=True)


class Consistency(Schema):
    """That the tree of `from` events is the beginning of the tree of `to` events (RFC 6962 §2.1.2)."""

    old = fields.Integer(required=True, data_key="from")
    new = fields.Integer(required=True, data_key="to")
    proof = fields.List(fields.String(), required=True, metadata={"description": "Hashes in base64."})
