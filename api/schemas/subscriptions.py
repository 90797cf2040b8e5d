"""What the endpoints of durable subscriptions take and answer."""

from __future__ import annotations

from typing import Final

from marshmallow import Schema, fields

from api.fields import Choice, Flag, Identifier, Items, PlainText, Ref, Text, Time, WholeNumber
from api.schemas.answers import Event
from api.schemas.requests import LONGEST_WAIT, MOST_TYPES, Request
from ledger.domain.intake import LARGEST_VERSION
from ledger.domain.names import word_fault
from ledger.domain.query import DEFAULT_LIMIT, LIMIT
from ledger.domain.subscription import (
    DEFAULT_PARTITIONS,
    DEFAULT_TRIES,
    MOST_TRIES,
    PARTITIONS,
    subscription_name_fault,
)
from ledger.services.following.delivery import DEFAULT_LEASE

LONGEST_LEASE: Final = 3600
"""Seconds."""

_LIMIT: Final = {"default": DEFAULT_LIMIT}


class NewSubscription(Request):
    """A subscription to begin. Its name is stored and shown in clear."""

    name = Text(subscription_name_fault, required=True, metadata={"example": "mailer"})
    category = Text(word_fault, allow_none=True, load_default=None)
    type = Items(Text(word_fault), 0, MOST_TYPES, allow_none=True, load_default=None)
    after = fields.Raw(
        load_default=-1,
        metadata={
            "description": "The position behind which it begins; `end`: with what is recorded from now on.",
            "oneOf": [{"type": "integer", "minimum": -1}, {"type": "string", "enum": ["end"]}],
            "default": -1,
        },
    )
    partitions = WholeNumber(
        1,
        PARTITIONS,
        load_default=DEFAULT_PARTITIONS,
        metadata={"default": DEFAULT_PARTITIONS, "description": "How many consumers can share it at the same time."},
    )
    max_tries = WholeNumber(1, MOST_TRIES, load_default=DEFAULT_TRIES, metadata={"default": DEFAULT_TRIES})
    on_failure = Choice(
        "park",
        "stop",
        load_default="park",
        metadata={"default": "park", "description": "What becomes of an event that has failed `max_tries` times."},
    )


class Fetch(Request):
    """Who asks for events, and for how long it wants them."""

    consumer = Identifier(required=True, metadata={"description": "An id that this consumer alone uses."})
    limit = WholeNumber(1, LIMIT, load_default=DEFAULT_LIMIT, metadata=_LIMIT)
    wait = WholeNumber(
        0,
        LONGEST_WAIT,
        load_default=0,
        metadata={"default": 0, "description": "Seconds to wait, at most, for events when there are none."},
    )
    lease_seconds = WholeNumber(
        1, LONGEST_LEASE, load_default=int(DEFAULT_LEASE), metadata={"default": int(DEFAULT_LEASE)}
    )


class _OfLease(Request):
    consumer = Identifier(required=True)
    partition = WholeNumber(0, PARTITIONS - 1, required=True)
    position = WholeNumber(-1, LARGEST_VERSION, required=True)
    replay = Flag(load_default=False, metadata={"default": False, "description": "As the lease said."})


class Acknowledgement(_OfLease):
    """What was handled: everything of the lease up to a position."""

    lease_seconds = WholeNumber(
        1,
        LONGEST_LEASE,
        allow_none=True,
        load_default=None,
        metadata={"description": "Keep the lease for so long from now on; null: give it back."},
    )


class FailureReport(_OfLease):
    """What could not be handled: the event at a position. What was delivered before it was."""

    error = Text(
        word_fault,
        required=True,
        metadata={"description": "The class of what went wrong, and nothing of anybody's data.", "example": "Timeout"},
    )


class ReplayOrder(Request):
    """Which parked messages to deliver again, with all that is parked of their streams."""

    body_optional = True

    positions = Items(
        WholeNumber(0, LARGEST_VERSION),
        1,
        LIMIT,
        allow_none=True,
        load_default=None,
        metadata={"description": "null: all."},
    )


class ParkedPage(Request):
    """The query parameters of the list of parked messages."""

    cursor = PlainText(metadata={"description": "The `next` of the page before."})
    limit = WholeNumber(1, LIMIT, digits=True, load_default=DEFAULT_LIMIT, metadata=_LIMIT)


class PartitionProgress(Schema):
    """How far one partition has come. `behind` counts all events of the ledger behind it, whoever they are for."""

    partition = fields.Integer(required=True)
    state = Choice("running", "stopped", required=True)
    position = fields.Integer(required=True)
    behind = fields.Integer(required=True)
    age_seconds = fields.Float(required=True, metadata={"description": "Of the first event behind it."})
    consumer = Identifier(required=True, allow_none=True)
    leased_until = Time(required=True, allow_none=True)
    tries = fields.Integer(required=True)
    retry_at = Time(required=True, allow_none=True)
    error = fields.String(required=True, allow_none=True)


class Subscription(Schema):
    """A durable subscription."""

    name = fields.String(required=True)
    category = fields.String(required=True, allow_none=True)
    type = fields.List(fields.String(), required=True)
    after = fields.Integer(required=True)
    partitions = fields.Integer(required=True)
    max_tries = fields.Integer(required=True)
    on_failure = Choice("park", "stop", required=True)
    created_at = Time(required=True)
    created_by = Identifier(required=True)
    parked = fields.Integer(required=True)
    behind = fields.Integer(required=True, metadata={"description": "Of the partition that is furthest behind."})
    age_seconds = fields.Float(required=True)
    progress = fields.List(fields.Nested(PartitionProgress), required=True)


class Subscriptions(Schema):
    """All subscriptions of a ledger."""

    subscriptions = fields.List(fields.Nested(Subscription), required=True)


class Lease(Schema):
    """What a consumer has until `until`. Acknowledge `position` when all is handled."""

    partition = fields.Integer(required=True)
    after = fields.Integer(required=True, metadata={"description": "Up to there it was acknowledged before."})
    position = fields.Integer(required=True)
    until = Time(required=True)
    replay = fields.Boolean(required=True)


class Delivery(Schema):
    """Events with their lease; null and none when there are none, or others have leased them."""

    lease = fields.Nested(Lease, required=True, allow_none=True)
    events = fields.List(fields.Nested(Event), required=True)


class FailureOutcome(Schema):
    """What became of an event that failed."""

    outcome = Choice("retry", "parked", "stopped", required=True)
    tries = fields.Integer(required=True)
    retry_at = Time(required=True, allow_none=True)


class ParkedMessage(Schema):
    """A parked message: which event, not what it says. `error` is null for one that only comes after another."""

    position = fields.Integer(required=True)
    stream_ref = Ref("str", required=True)
    tries = fields.Integer(required=True)
    error = fields.String(required=True, allow_none=True)
    parked_at = Time(required=True)
    replay = fields.Boolean(required=True, metadata={"description": "Whether it waits to be delivered again."})


class ParkedMessages(Schema):
    """One page of parked messages, in order of positions."""

    parked = fields.List(fields.Nested(ParkedMessage), required=True)
    next = fields.String(required=True, allow_none=True)


class Replayed(Schema):
    """How many messages wait to be delivered again that did not before."""

    replayed = fields.Integer(required=True)


class Restarted(Schema):
    """How many partitions go on that had stopped."""

    restarted = fields.Integer(required=True)
