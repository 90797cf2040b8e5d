"""Follow a ledger: in pages, by long poll, or as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from flask import Response, current_app, request

from api.asking import feed_asks_something, feed_of
from api.auth import allowed, current_key
from api.context import STOPPING, current_visit, open_service
from api.json_text import JSON, json_response
from api.problems import SlowDownError
from api.rendering import page_json
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from api.sse import EVENT_STREAM, event_stream
from api.turns import Visit
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.query import EventQuery
from ledger.errors import Fault, InvalidError, UnauthenticatedError
from ledger.services.dependencies import Dependencies
from ledger.services.following.follow import QUIET_SECONDS, FollowedPage, check_after, follow_pages
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
@blueprint.problems(422, *LEDGER_PROBLEMS)
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
        return json_response(page_json(page))
    asked = feed_of(parameters)
    check_after(deps, ledger.ledger_id, asked.after_position)

    def ask(question: EventQuery, limit: int = parameters["limit"]) -> Page:
        return query_events(deps, ledger.ledger_id, question, cursor=None, limit=limit, as_recorded=as_recorded)

    page = ask(asked)
    if parameters["wait"] and asked.as_of is None and not page.events:
        page = _awaited(deps, ledger, ask, asked, page, parameters["wait"])
    return json_response(page_json(page))


def _awaited(
    deps: Dependencies, ledger: LedgerInfo, ask: Callable[..., Page], asked: EventQuery, page: Page, seconds: float
) -> Page:
    """Wait until there is a page with events, or the time is up."""
    wait = Waiting(deps, ledger, seconds)
    while (left := wait.left()) > 0:
        seen = page.as_of.position
        if wait.for_growth(seen + 1, left) <= seen + 1:
            continue
        # Up to there nothing matched, so only what is new is looked through.
        page = ask(replace(asked, after_position=seen), 1)
        if page.events:
            return ask(asked)
    return page


class Waiting:
    """A request that waits, at most so many seconds, for events to come; it has no place meanwhile.

    When too many wait it is patient for a moment and looks once: who just asks again must not come by the thousand.
    Raises ``SlowDownError`` when there is no thread to spare either.
    """

    def __init__(self, deps: Dependencies, ledger: LedgerInfo, seconds: float) -> None:
        self._deps = deps
        self._ledger_id = ledger.ledger_id
        self._deadline = time.monotonic() + seconds
        self._visit = current_visit()
        self._visit.stay()
        self._granted = self._visit.try_hold(self._visit.limits.polls)
        self._stopping: Callable[[], bool] = current_app.extensions[STOPPING]

    def left(self) -> float:
        """The seconds that are left; 0 when the service is shutting down, too."""
        return 0.0 if self._stopping() else max(0.0, self._deadline - time.monotonic())

    def for_growth(self, size: int, seconds: float) -> int:
        """Wait for a while until the ledger is larger than this; gives its size. Raises ``UnauthenticatedError`` when
        the API key may not read any more: what is recorded now is not for it."""
        seconds = min(seconds, _SLICE_SECONDS)
        with self._visit.resting():
            if not self._granted:
                time.sleep(seconds)
                self._deadline = 0.0
            size = self._deps.store.wait_for_growth(self._ledger_id, size, seconds if self._granted else 0.0)
        check_key()
        return size


def _streamed(parameters: dict[str, Any], ledger: LedgerInfo) -> Response:
    for name in ("as_of", "cursor"):
        if parameters.get(name) is not None:
            message = "must not be given for a stream of events, which begins behind 'after' and has no end"
            raise InvalidError("a stream of events has no pages and no end", [Fault(f"/{name}", message)])
    last_event_id = request.headers.get("Last-Event-ID")
    if last_event_id:
        parameters = {**parameters, "after": _position(ledger, last_event_id)}
    visit = current_visit()
    visit.stay()
    if not visit.try_hold(visit.limits.followers):
        raise SlowDownError("as many clients follow this process as may; come again, or ask for pages")
    deps, asked, as_recorded = open_service().deps, feed_of(parameters), parameters["as_recorded"]
    pages = follow_pages(deps, ledger.ledger_id, asked, stop=_until_stopped(), quiet=0, as_recorded=as_recorded)
    response = Response(event_stream(_paced(pages, deps, ledger, visit)), mimetype=EVENT_STREAM)
    # Proxies that collect answers before they pass them on are asked not to.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _paced(
    pages: Iterator[FollowedPage], deps: Dependencies, ledger: LedgerInfo, visit: Visit
) -> Iterator[FollowedPage]:
    """The same pages, with a place for each while it is made, and none while nothing comes or the client reads."""
    while True:
        with visit.working():
            page = next(pages, None)
        if page is None:
            return
        yield page
        if not page.events:
            deps.store.wait_for_growth(ledger.ledger_id, page.position + 1, QUIET_SECONDS)


def _position(ledger: LedgerInfo, last_event_id: str) -> int:
    digits = last_event_id if len(last_event_id) <= 20 and last_event_id.isascii() else ""
    # A position that is not there yet is of another ledger, or of one that was restored from an old backup since.
    if not digits.isdecimal() or int(digits) >= open_service().deps.store.head(ledger.ledger_id).size:
        fault = Fault("", "the header Last-Event-ID must be the id of a message of this stream: a position")
        raise InvalidError("the header Last-Event-ID is not valid", [fault])
    return int(digits)


def check_key() -> None:
    """Raise ``UnauthenticatedError`` when the API key of this request has been revoked, or has expired, meanwhile."""
    if not _usable(open_service().deps, current_key().key_id):
        raise UnauthenticatedError("the API key was revoked or has expired")


def _usable(deps: Dependencies, key_id: UUID) -> bool:
    key = deps.store.api_key(key_id)
    return key is not None and key.usable_at(deps.clock())


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
        return not _usable(deps, key_id)

    return stop
