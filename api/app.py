"""The Flask application. Made by a function: nothing happens at import, and nothing is global."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, g, request
from flask_smorest import Api

from api.bodies import body_of
from api.context import (
    COUNTERS,
    EXTENSION,
    GUARD,
    LIMITS,
    STOPPING,
    counters,
    current_visit,
    open_guard,
    request_id,
    while_waiting,
)
from api.guard import Guard
from api.json_text import json_bytes
from api.logs import LOGGER
from api.metrics import Counters
from api.problems import register_problems
from api.routes import (
    api_keys,
    appending,
    documentation,
    erasures,
    following,
    health,
    ledgers,
    policy,
    proving,
    read_models,
    reading,
    subjects,
    subscriptions,
    timetravel,
    types,
)
from api.schemas import answers, requests
from api.turns import Limits
from api.wiring import Service
from ledger.domain.access import AccessRole

API_VERSION: Final = "1"
_GUARDED: Final = "/v1/"
_BLUEPRINTS: Final = (
    ledgers,
    appending,
    reading,
    following,
    subscriptions,
    timetravel,
    read_models,
    subjects,
    erasures,
    proving,
    types,
    policy,
    api_keys,
    health,
)
_DESCRIPTION: Final = """An append-only ledger that can prove its past, answer questions about any moment of it, and
still forget a person. Names never travel in URLs; an error never repeats personal data of the request."""

_log = logging.getLogger(LOGGER)


class _Api(Api):
    """flask-smorest without error handling of its own: ``api/problems.py`` answers."""

    ERROR_SCHEMA = answers.Problem
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        """Ours is in the bodies."""


def create_app(
    service: Service,
    *,
    stopping: Callable[[], bool] = lambda: False,
    counts: Counters | None = None,
    guard: Guard | None = None,
) -> Flask:
    """The application for a service. ``stopping``: whether this process is shutting down, so that nobody waits on;
    ``counts``: what this process has counted so far; ``guard``: the one that this process has already."""
    service = replace(service, deps=replace(service.deps, while_waiting=while_waiting))
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # Else an address with a doubled slash is redirected, and the redirection repeats it.
    app.url_map.merge_slashes = False
    app.extensions[EXTENSION] = service
    app.extensions[GUARD] = guard or Guard(service)
    app.extensions[COUNTERS] = counts or Counters()
    app.extensions[STOPPING] = stopping
    app.extensions[LIMITS] = Limits(service.settings.threads)
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_leave)
    register_problems(app)
    api = _api(app)
    for module in _BLUEPRINTS:
        api.register_blueprint(module.blueprint)
    app.register_blueprint(documentation.blueprint)
    app.extensions[documentation.DOCUMENT] = json_bytes(api.spec.to_dict())
    return app


def _api(app: Flask) -> Any:
    api = _Api(
        app,
        spec_kwargs={
            "title": "Audit ledger",
            "version": API_VERSION,
            "openapi_version": "3.1.0",
            "info": {"description": _DESCRIPTION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        },
    )
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    # These are referred to by name only.
    for schema in (requests.Person, requests.NewEvent, requests.Batch):
        api.spec.components.schema(schema.__name__, schema=schema)
    return api


def _begin() -> None:
    g.began = time.perf_counter()
    request_id()
    # That the process lives shows even when it has more to do than it can.
    if request.path != health.LIVEZ:
        current_visit().work()
    if request.path.startswith(_GUARDED) and request.path != documentation.DOCUMENT_PATH:
        open_guard().require()


def _finish(response: Response) -> Response:
    visit, body = current_visit(), body_of(request)
    g.answered = True
    response.call_on_close(visit.close)
    response.headers["X-Request-Id"] = request_id()
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    if not body.ended:
        response.headers["Connection"] = "close"
        # When the answer is on its way: a client that does not go on sending gets it, too.
        response.call_on_close(partial(body.drain, known_client="api_key" in g))
    _log_request(response)
    return response


def _leave(_: BaseException | None) -> None:
    """The place is for others while the answer is sent."""
    visit = current_visit()
    visit.rest()
    if "answered" not in g:
        visit.close()


def _log_request(response: Response) -> None:
    """One line when the answer is ready, or (a stream) when it was sent. Addresses without what stands in their
    places: somebody may have put a name there."""
    began: float = g.began
    line: dict[str, Any] = {
        "request_id": request_id(),
        "method": request.method,
        "route": request.url_rule.rule if request.url_rule is not None else None,
        "status": response.status_code,
        "key_id": str(g.api_key.key_id) if "api_key" in g else None,
    }

    question = AccessRole.AUDITOR in g.get("needed_roles", ()) and response.status_code < HTTPStatus.BAD_REQUEST
    counts, method = counters(), request.method

    def log() -> None:
        seconds = time.perf_counter() - began
        counts.request(method, line["route"], response.status_code, seconds, query=question)
        _log.info("request", extra={**line, "duration_ms": round(seconds * 1000, 1)})

    if response.is_streamed:
        response.call_on_close(log)
    else:
        log()
