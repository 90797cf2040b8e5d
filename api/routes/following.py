"""Follow a ledger: in pages, by long poll, or as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from flask import Response, current_app, request

from api.asking import feed_asks_something, feed_of
from api.auth import allowed, current_key
from api.context import STOPPING, open_service, waiters
from api.json_text import JSON, json_response
from api.problems import SlowDownError
from api.rendering import render_page
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from api.sse import EVENT_STREAM, event_stream
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.query import EventQuery
from ledger.errors import Fault, InvalidError
from ledger.services.dependencies import Dependencies
from ledger.services.following.follow import check_after, follow_pages
from ledger.services.read import Page, query_events

blueprint = Endpoints("Following", __name__, description="What is recorded, as it is recorded.")

RECHECK_SECONDS: Final = 5.0
"""How long a stream goes on, at most, after its API key was revoked or has expired."""

_SLICE_SECONDS: Final = 1.0
"""How often whoever waits looks whether the service is shutting down."""


@blueprint.route("/v1/ledgers/<ledger>/events")
@allowed(AccessRole.AUDITOR)
@blueprint.takes(requests.Follow, location="query")
@blueprint.response(200, answers.Event, content_type=EVENT_STREAM)
@blueprint.response(200, answers.Page, description="A page; or, with `Accept: text/event-stream`, events without end")
@blueprint.problems(422, 429, *LEDGER_PROBLEMS)
def follow(parameters: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Follow the ledger: the events after a position.

    With `wait`, the answer waits for the first one to come, but no longer than that, and may come sooner with no
    events: then ask again.

    With `Accept: text/event-stream` it has no end: each event is a message whose id is its position. The header
    `Last-Event-ID` goes on behind a position and wins over `after`; `limit` and `wait` do not apply.
    """
    if request.accept_mimetypes.best_match([JSON, EVENT_STREAM]) == EVENT_STREAM:
        return _streamed(parameters, ledger)
    deps, as_recorded = open_service().deps, parameters["as_recorded"]
    cursor = parameters.get("cursor")
    if cursor is not None:
        again = feed_of(parameters) if feed_asks_something(parameters) else None
        page = query_events(
            deps, ledger.ledger_id, again, cursor=cursor, limit=parameters["limit"], as_recorded=as_recorded
        )
        return json_response(render_page(page))
    asked = feed_of(parameters)
    check_after(deps, ledger.ledger_id, asked.after_position)

    def ask(question: EventQuery, limit: int = parameters["limit"]) -> Page:
        return query_events(deps, ledger.ledger_id, question, cursor=None, limit=limit, as_recorded=as_recorded)

    page = ask(asked)
    if parameters["wait"] and asked.as_of is None and not page.events:
        page = _awaited(deps, ledger, ask, asked, page, parameters["wait"])
    return json_response(render_page(page))


def _awaited(
    deps: Dependencies, ledger: LedgerInfo, ask: Callable[..., Page], asked: EventQuery, page: Page, seconds: float
) -> Page:
    """Wait until there is a page with events, or the time is up."""
    deadline = time.monotonic() + seconds
    stopping: Callable[[], bool] = current_app.extensions[STOPPING]
    with waiting_turn() as granted:
        # When too many wait, the others are answered at once: they just ask again.
        while granted and not stopping() and (left := deadline - time.monotonic()) > 0:
            seen = page.as_of.position
            if deps.store.wait_for_growth(ledger.ledger_id, seen + 1, min(left, _SLICE_SECONDS)) <= seen + 1:
                continue
            # Up to there nothing matched, so only what is new is looked through.
            page = ask(replace(asked, after_position=seen), 1)
            if page.events:
                return ask(asked)
    return page


@contextmanager
def waiting_turn() -> Iterator[bool]:
    """A turn for a request that waits, which takes up a thread; False when as many wait as may."""
    turns = waiters()
    granted = turns.acquire(blocking=False)
    try:
        yield granted
    finally:
        if granted:
            turns.release()


def _streamed(parameters: dict[str, Any], ledger: LedgerInfo) -> Response:
    for name in ("as_of", "cursor"):
        if parameters.get(name) is not None:
            message = "must not be given for a stream of events, which begins behind 'after' and has no end"
            raise InvalidError("a stream of events has no pages and no end", [Fault(f"/{name}", message)])
    last_event_id = request.headers.get("Last-Event-ID")
    if last_event_id:
        parameters = {**parameters, "after": _position(ledger, last_event_id)}
    turns = waiters()
    if not turns.acquire(blocking=False):
        raise SlowDownError("as many clients follow this process as may; come again, or ask for pages")
    try:
        stop = _until_stopped()
        deps, asked, as_recorded = open_service().deps, feed_of(parameters), parameters["as_recorded"]
        pages = follow_pages(deps, ledger.ledger_id, asked, stop=stop, as_recorded=as_recorded)
        response = Response(event_stream(pages), mimetype=EVENT_STREAM)
    except BaseException:
        turns.release()
        raise
    response.call_on_close(turns.release)
    # Proxies that collect answers before they pass them on are asked not to.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _position(ledger: LedgerInfo, last_event_id: str) -> int:
    digits = last_event_id if len(last_event_id) <= 20 and last_event_id.isascii() else ""
    # A position that is not there yet is of another ledger, or of one that was restored from an old backup since.
    if not digits.isdecimal() or int(digits) >= open_service().deps.store.head(ledger.ledger_id).size:
        fault = Fault("", "the header Last-Event-ID must be the id of a message of this stream: a position")
        raise InvalidError("the header Last-Event-ID is not valid", [fault])
    return int(digits)


def _until_stopped() -> Callable[[], bool]:
    """Whether a stream has to end: the service shuts down, or the API key may not read any more."""
    deps, key_id = open_service().deps, current_key().key_id
    stopping: Callable[[], bool] = current_app.extensions[STOPPING]
    looked_at = time.monotonic()

    def stop() -> bool:
        nonlocal looked_at
        if stopping():
            return True
        if time.monotonic() - looked_at < RECHECK_SECONDS:
            return False
        looked_at = time.monotonic()
        key = deps.store.api_key(key_id)
        return key is None or not key.usable_at(deps.clock())

    return stop
