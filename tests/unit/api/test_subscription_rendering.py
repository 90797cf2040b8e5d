"""Answers about subscriptions have the members that the OpenAPI document promises, in its order."""

from __future__ import annotations

import json
from uuid import UUID

from marshmallow import Schema

from api.schemas import subscriptions as schemas
from api.subscription_rendering import render_delivery, render_failure, render_parked, render_subscription
from ledger.ports import Cursor, CursorKey, ParkedEvent, Subscription
from ledger.services.following.delivery import Batch, Failure
from ledger.services.following.subscriptions import PartitionStatus, SubscriptionStatus

ID = UUID("0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b")
SECOND = 1_000_000
NOW = 10 * SECOND


def members(schema: type[Schema]) -> list[str]:
    """What the document promises."""
    return list(schema().fields)


def partition(number: int, behind: int, lease_until: int) -> PartitionStatus:
    """A partition that somebody has leased once."""
    key = CursorKey("subscription", "mailer", number)
    return PartitionStatus(
        Cursor(key, 1, "running", 5, ID, lease_until, 1, 2 * NOW, "Timeout", 0), behind, behind * SECOND
    )


def test_a_subscription_has_what_the_document_promises() -> None:
    """It is as far behind as the partition that is furthest."""
    subscription = Subscription("mailer", None, ("Noted",), 2, 5, "park", -1, 0, ID)
    status = SubscriptionStatus(subscription, [partition(0, 3, 2 * NOW), partition(1, 7, NOW)], 4)

    rendered = render_subscription(status, NOW)

    assert list(rendered) == members(schemas.Subscription)
    assert [list(part) for part in rendered["progress"]] == [members(schemas.PartitionProgress)] * 2
    assert (rendered["behind"], rendered["age_seconds"], rendered["parked"]) == (7, 7.0, 4)
    # A lease that is over is nobody's.
    assert [part["consumer"] for part in rendered["progress"]] == [str(ID), None]
    assert rendered["progress"][0]["retry_at"] == "1970-01-01T00:00:20.000000Z"


def test_the_other_answers_have_what_the_document_promises() -> None:
    """One by one."""
    delivery = render_delivery(Batch(1, 4, 9, NOW, replay=False, events=()))
    parked = render_parked(ParkedEvent(3, bytes(16), 0, "", NOW, replay=True))

    assert list(delivery) == list(render_delivery(None)) == members(schemas.Delivery)
    assert list(delivery["lease"]) == members(schemas.Lease)
    assert render_delivery(None) == {"lease": None, "events": []}
    assert list(parked) == members(schemas.ParkedMessage)
    assert (parked["error"], parked["tries"]) == (None, 0)
    assert list(render_failure(Failure("retry", 1, NOW))) == members(schemas.FailureOutcome)
    json.dumps([delivery, parked], allow_nan=False)
