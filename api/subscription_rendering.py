"""Durable subscriptions as the JSON of the contract. Pure."""

from __future__ import annotations

from typing import Any

from api.rendering import render_event
from ledger.domain.ids import format_ref
from ledger.domain.times import format_time
from ledger.ports import ParkedEvent
from ledger.services.following.delivery import Batch, Failure
from ledger.services.following.subscriptions import PartitionStatus, SubscriptionStatus

_SECOND = 1_000_000


def render_subscription(status: SubscriptionStatus, now: int) -> dict[str, Any]:
    """A subscription and how far it has come."""
    subscription = status.subscription
    return {
        "name": subscription.name,
        "category": subscription.category,
        "type": list(subscription.types),
        "after": subscription.after,
        "partitions": subscription.partitions,
        "max_tries": subscription.max_tries,
        "on_failure": subscription.on_failure,
        "created_at": format_time(subscription.created_at),
        "created_by": str(subscription.created_by),
        "parked": status.parked,
        "behind": max(partition.behind for partition in status.partitions),
        "age_seconds": max(partition.age for partition in status.partitions) / _SECOND,
        "progress": [_progress(partition, now) for partition in status.partitions],
    }


def _progress(partition: PartitionStatus, now: int) -> dict[str, Any]:
    cursor = partition.cursor
    leased = cursor.holder is not None and cursor.lease_until > now
    return {
        "partition": cursor.key.number,
        "state": cursor.state,
        "position": cursor.position,
        "behind": partition.behind,
        "age_seconds": partition.age / _SECOND,
        "consumer": str(cursor.holder) if leased else None,
        "leased_until": format_time(cursor.lease_until) if leased else None,
        "tries": cursor.tries,
        "retry_at": format_time(cursor.retry_at) if cursor.retry_at > now else None,
        "error": cursor.error,
    }


def render_delivery(batch: Batch | None) -> dict[str, Any]:
    """Events with their lease, or nothing."""
    if batch is None:
        return {"lease": None, "events": []}
    lease = {
        "partition": batch.partition,
        "after": batch.after,
        "position": batch.position,
        "until": format_time(batch.until),
        "replay": batch.replay,
    }
    return {"lease": lease, "events": [render_event(event) for event in batch.events]}


def render_failure(failure: Failure) -> dict[str, Any]:
    """What became of an event that failed."""
    return {
        "outcome": failure.outcome,
        "tries": failure.tries,
        "retry_at": format_time(failure.retry_at) if failure.retry_at is not None else None,
    }


def render_parked(message: ParkedEvent) -> dict[str, Any]:
    """A parked message."""
    return {
        "position": message.position,
        "stream_ref": format_ref("str", message.stream_ref),
        "tries": message.tries,
        "error": message.error or None,
        "parked_at": format_time(message.parked_at),
        "replay": message.replay,
    }
