"""Ask about events: queries, the feed, single events, streams."""

from __future__ import annotations

import time
from typing import Any, Final

from flask import Response, current_app, request

from api.asking import asks_something, feed_asks_something, feed_of, needed, query_of
from api.auth import allowed
from api.context import STOPPING, open_service, waiters
from api.json_text import JSON, NDJSON, json_response
from api.ndjson import stream_events
from api.rendering import render_event, render_page, render_stream
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.ids import parse_uuid
from ledger.domain.query import EventQuery
from ledger.errors import Fault, InvalidError, NotFoundError
from ledger.services.read import Page, export_events, find_stream, get_event, query_events

blueprint = Endpoints("Reading", __name__, description="What was recorded, as of any moment, less what is erased.")

POLL_SECONDS: Final = 0.05
_BODY_PROBLEMS: Final = (400, 413, 415, 422)


@blueprint.route("/v1/ledgers/<ledger>/query", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(requests.Query)
@blueprint.response(200, answers.Event, content_type=NDJSON)
@blueprint.response(200, answers.Page, description="A page; or, with `Accept: application/x-ndjson`, all events")
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def query(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Ask for events.

    With `Accept: application/x-ndjson` the whole answer comes as a stream, one event a line, without paging (`limit`
    does not apply), and ends with `{"end":true,"count":n}`; a stream without that line broke off.
    """
    deps = open_service().deps
    cursor = body.get("cursor")
    if request.accept_mimetypes.best_match([JSON, NDJSON]) == NDJSON:
        if cursor is not None:
            raise InvalidError("a stream has no pages", [Fault("/cursor", "must be null in a stream")])
        return stream_events(export_events(deps, ledger.ledger_id, query_of(body)))
    asked = query_of(body) if cursor is None or asks_something(body) else None
    return json_response(render_page(query_events(deps, ledger.ledger_id, asked, cursor=cursor, limit=body["limit"])))


@blueprint.route("/v1/ledgers/<ledger>/events")
@allowed(AccessRole.AUDITOR)
@blueprint.takes(requests.Follow, location="query")
@blueprint.response(200, answers.Page)
@blueprint.problems(422, *LEDGER_PROBLEMS)
def follow(parameters: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Follow the ledger: the events after a position.

    With `wait`, the answer waits for the first one to come, but no longer than that, and may come sooner with no
    events: then ask again.
    """
    cursor = parameters.get("cursor")
    if cursor is not None:
        again = feed_of(parameters) if feed_asks_something(parameters) else None
        deps = open_service().deps
        page = query_events(deps, ledger.ledger_id, again, cursor=cursor, limit=parameters["limit"])
        return json_response(render_page(page))
    asked = feed_of(parameters)
    page = _next_page(ledger, asked, parameters["limit"])
    if parameters["wait"] and asked.as_of is None and not page.events:
        page = _awaited(ledger, asked, parameters["limit"], page, time.monotonic() + parameters["wait"])
    return json_response(render_page(page))


def _next_page(ledger: LedgerInfo, asked: EventQuery, limit: int) -> Page:
    return query_events(open_service().deps, ledger.ledger_id, asked, cursor=None, limit=limit)


def _awaited(ledger: LedgerInfo, asked: EventQuery, limit: int, page: Page, deadline: float) -> Page:
    """Look at the head until there is a page with events, or the time is up. No connection is held meanwhile."""
    turn = waiters()
    # Who waits takes up a thread. When too many do, the others are answered at once: they just ask again.
    if not turn.acquire(blocking=False):
        return page
    store, stopping = open_service().deps.store, current_app.extensions[STOPPING]
    try:
        while not page.events and time.monotonic() < deadline and not stopping():
            time.sleep(POLL_SECONDS)
            if store.head(ledger.ledger_id).size - 1 > page.as_of.position:
                page = _next_page(ledger, asked, limit)
    finally:
        turn.release()
    return page


@blueprint.route("/v1/ledgers/<ledger>/events/<id>")
@allowed(AccessRole.AUDITOR)
@blueprint.response(200, answers.Event)
@blueprint.problems(*LEDGER_PROBLEMS)
def show(ledger: LedgerInfo, id: str) -> Response:
    """Show one event."""
    event_id = parse_uuid(id)
    if event_id is None:
        raise NotFoundError("there is no event of this id in this ledger")
    return json_response(render_event(get_event(open_service().deps, ledger.ledger_id, event_id)))


@blueprint.route("/v1/ledgers/<ledger>/streams/lookup", methods=["POST"])
@allowed(AccessRole.WRITER, AccessRole.AUDITOR)
@blueprint.takes(requests.StreamLookup)
@blueprint.response(200, answers.Stream)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def look_up_stream(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Find the ref and the version of a stream."""
    ref, version = find_stream(open_service().deps, ledger.ledger_id, needed(body, "stream"))
    return json_response(render_stream(ref, version))
