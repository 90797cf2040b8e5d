"""What belongs to one request: the service that answers it, its id, the trace that it is part of."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Final
from uuid import UUID, uuid4

from flask import current_app, g, has_request_context, request

from api.guard import Guard
from api.metrics import Counters
from api.turns import Limits, Visit
from api.wiring import Service

EXTENSION: Final = "audit-ledger"
GUARD: Final = "audit-ledger-guard"
COUNTERS: Final = "audit-ledger-counters"
LIMITS: Final = "audit-ledger-limits"
STOPPING: Final = "audit-ledger-stopping"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
# W3C Trace Context, §3.2.2: a version that is higher may have more behind the flags.
_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?", re.ASCII
)


def open_service() -> Service:
    """The service of the current application."""
    service: Service = current_app.extensions[EXTENSION]
    return service


def open_guard() -> Guard:
    """The restore guard of the current process."""
    guard: Guard = current_app.extensions[GUARD]
    return guard


def counters() -> Counters:
    """What this process counts."""
    own: Counters = current_app.extensions[COUNTERS]
    return own


def current_visit() -> Visit:
    """What the current request has taken of what all requests of this process share."""
    if "visit" not in g:
        limits: Limits = current_app.extensions[LIMITS]
        g.visit = Visit(limits)
    visit: Visit = g.visit
    visit.key = g.api_key.key_id if "api_key" in g else None
    return visit


def while_waiting() -> AbstractContextManager[None]:
    """What a thread does around the time in which it waits for other appends: its place is for others."""
    return current_visit().resting() if has_request_context() else nullcontext()


def request_id() -> str:
    """The id of the current request: the client's, if it has the form of one, else a fresh one."""
    if "request_id" not in g:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    known: str = g.request_id
    return known


def trace_id() -> UUID | None:
    """The trace of the current request, if it came with a valid ``traceparent``."""
    return parse_traceparent(request.headers.get("traceparent", ""))


def parse_traceparent(header: str) -> UUID | None:
    """The trace id of a ``traceparent`` header; None when the header is not valid."""
    match = _TRACEPARENT.fullmatch(header.strip(" "))
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["more"]):
        return None
    trace = UUID(hex=match["trace"])
    return trace if trace.int and int(match["parent"], 16) else None
