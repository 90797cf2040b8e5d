"""Durable subscriptions: define them, consume them, look after what has failed."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from api.auth import allowed, current_key
from api.context import open_service
from api.json_text import json_response
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.routes.following import Waiting
from api.schemas import subscriptions as schemas
from api.subscription_rendering import render_delivery, render_failure, render_parked, render_subscription
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.errors import Fault, InvalidError
from ledger.services.following import delivery
from ledger.services.following.subscriptions import (
    SubscriptionStatus,
    create_subscription,
    describe_subscription,
    list_parked,
    list_subscriptions,
    remove_subscription,
    replay_parked,
    restart_subscription,
)

blueprint = Endpoints(
    "Subscriptions",
    __name__,
    description="Consumers that share the events of a ledger: each event at least once, every stream in order.",
)

_PATH: Final = "/v1/ledgers/<ledger>/subscriptions"
_BODY_PROBLEMS: Final = (400, 413, 415, 422)


@blueprint.route(_PATH, methods=["POST"])
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.takes(schemas.NewSubscription)
@blueprint.response(201, schemas.Subscription)
@blueprint.problems(409, *_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def create(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Begin a subscription."""
    deps = open_service().deps
    after = body["after"]
    if after != "end" and (not isinstance(after, int) or isinstance(after, bool)):
        raise InvalidError("the subscription is not valid", [Fault("/after", "must be a position, -1, or 'end'")])
    create_subscription(
        deps,
        ledger.ledger_id,
        body["name"],
        created_by=current_key().key_id,
        category=body["category"],
        types=body["type"] or (),
        after=after,
        partitions=body["partitions"],
        max_tries=body["max_tries"],
        on_failure=body["on_failure"],
    )
    return json_response(_rendered(describe_subscription(deps, ledger.ledger_id, body["name"])), 201)


@blueprint.route(_PATH)
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.response(200, schemas.Subscriptions)
@blueprint.problems(*LEDGER_PROBLEMS)
def list_all(ledger: LedgerInfo) -> Response:
    """List the subscriptions, and how far each partition has come."""
    found = list_subscriptions(open_service().deps, ledger.ledger_id)
    return json_response({"subscriptions": [_rendered(status) for status in found]})


@blueprint.route(f"{_PATH}/<name>")
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.response(200, schemas.Subscription)
@blueprint.problems(*LEDGER_PROBLEMS)
def describe(ledger: LedgerInfo, name: str) -> Response:
    """Show a subscription, and how far each partition has come."""
    return json_response(_rendered(describe_subscription(open_service().deps, ledger.ledger_id, name)))


@blueprint.route(f"{_PATH}/<name>", methods=["DELETE"])
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.response(204)
@blueprint.problems(*LEDGER_PROBLEMS)
def remove(ledger: LedgerInfo, name: str) -> Response:
    """Remove a subscription, its place and what it has parked. No event is touched."""
    remove_subscription(open_service().deps, ledger.ledger_id, name)
    return Response(status=204)


@blueprint.route(f"{_PATH}/<name>/fetch", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.Fetch)
@blueprint.response(200, schemas.Delivery)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def fetch(body: dict[str, Any], ledger: LedgerInfo, name: str) -> Response:
    """Lease the partition that is furthest behind, with its next events.

    What is not acknowledged before `until` is delivered to whoever asks next. With `wait` the answer waits for events,
    but may come sooner without: then ask again.
    """
    deps = open_service().deps

    def look() -> delivery.Batch | None:
        return delivery.fetch(
            deps, ledger.ledger_id, name, body["consumer"], limit=body["limit"], lease=body["lease_seconds"]
        )

    # The size first: what comes between the two is not waited for.
    size, batch = deps.store.head(ledger.ledger_id).size, look()
    if batch is None and body["wait"]:
        wait = Waiting(deps, ledger, body["wait"])
        while batch is None and (left := wait.left()) > 0:
            # Growth or not: leases run out, too.
            size, batch = wait.for_growth(size, left), look()
    return json_response(render_delivery(batch))


@blueprint.route(f"{_PATH}/<name>/acknowledge", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.Acknowledgement)
@blueprint.response(204)
@blueprint.problems(409, *_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def acknowledge(body: dict[str, Any], ledger: LedgerInfo, name: str) -> Response:
    """Say that everything of a lease up to a position was handled.

    Counts when the lease is over, too, as long as nobody else has leased the partition since.
    """
    delivery.acknowledge(
        open_service().deps,
        ledger.ledger_id,
        name,
        body["consumer"],
        body["partition"],
        body["position"],
        replay=body["replay"],
        lease=body["lease_seconds"] or 0,
    )
    return Response(status=204)


@blueprint.route(f"{_PATH}/<name>/fail", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.FailureReport)
@blueprint.response(200, schemas.FailureOutcome)
@blueprint.problems(409, *_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def fail(body: dict[str, Any], ledger: LedgerInfo, name: str) -> Response:
    """Say that an event of a lease could not be handled: it is tried again later, then parked, or its partition stops.

    What was delivered before it counts as handled; the lease ends.
    """
    failure = delivery.fail(
        open_service().deps,
        ledger.ledger_id,
        name,
        body["consumer"],
        body["partition"],
        body["position"],
        body["error"],
        replay=body["replay"],
    )
    return json_response(render_failure(failure))


@blueprint.route(f"{_PATH}/<name>/parked")
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.takes(schemas.ParkedPage, location="query")
@blueprint.response(200, schemas.ParkedMessages)
@blueprint.problems(422, *LEDGER_PROBLEMS)
def parked(parameters: dict[str, Any], ledger: LedgerInfo, name: str) -> Response:
    """List what is parked: references, not what the events say."""
    page = list_parked(
        open_service().deps, ledger.ledger_id, name, cursor=parameters.get("cursor"), limit=parameters["limit"]
    )
    return json_response({"parked": [render_parked(message) for message in page.messages], "next": page.next})


@blueprint.route(f"{_PATH}/<name>/replay", methods=["POST"])
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.takes(schemas.ReplayOrder)
@blueprint.response(200, schemas.Replayed)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def replay(body: dict[str, Any], ledger: LedgerInfo, name: str) -> Response:
    """Deliver parked messages again, each stream from its first parked one on."""
    count = replay_parked(open_service().deps, ledger.ledger_id, name, body["positions"])
    return json_response({"replayed": count})


@blueprint.route(f"{_PATH}/<name>/restart", methods=["POST"])
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.response(200, schemas.Restarted)
@blueprint.problems(*LEDGER_PROBLEMS)
def restart(ledger: LedgerInfo, name: str) -> Response:
    """Let partitions that have stopped go on with the events that stopped them."""
    return json_response({"restarted": restart_subscription(open_service().deps, ledger.ledger_id, name)})


def _rendered(status: SubscriptionStatus) -> dict[str, Any]:
    return render_subscription(status, open_service().deps.clock())
