"""Read models: what follows from the events, kept ready; and the projections that keep them."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, current_app

from api.asking import who
from api.auth import allowed
from api.context import STOPPING, current_visit, open_service
from api.json_text import json_response
from api.read_model_rendering import render_projections, render_read_model
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import read_models as schemas
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.partition import BY_DAY, BY_STREAM, BY_SUBJECT, Partition
from ledger.domain.projection import Projection
from ledger.errors import Fault, InvalidError, NotFoundError
from ledger.services.projecting.generations import rebuild, restart
from ledger.services.projecting.read_models import (
    ReadModelAnswer,
    key_of_stream,
    key_of_subject,
    list_documents,
    read_document,
)
from ledger.services.projecting.shipped import SHIPPED
from ledger.services.projecting.status import projection_statuses, wait_for

blueprint = Endpoints(
    "Read models", __name__, description="What follows from the events, kept ready, less what is erased."
)

WAIT_SECONDS: Final = 10.0
"""How long a request waits for a read model to come as far as it asks for."""

_BODY_PROBLEMS: Final = (400, 413, 415, 422)
_ASKED_BY: Final[dict[Partition, tuple[str, ...]]] = {
    BY_STREAM: ("stream", "stream_ref", "category"),
    BY_SUBJECT: ("subject", "subject_ref"),
    BY_DAY: ("day", "month"),
}


@blueprint.route("/v1/ledgers/<ledger>/read-models/<name>", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.ReadModelQuestion)
@blueprint.response(200, schemas.ReadModel)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def read(body: dict[str, Any], ledger: LedgerInfo, name: str) -> Response:
    """Read `current_state`, `activity` or `daily_counts`: one document or a page of them.

    Without a stream, subject or day it is a page of all, or of those of a category or a month.

    A read model follows the ledger at a small distance; `position` says how far it has come. With `min_position` the
    answer holds that event, or it is a 503 `not-ready` after some seconds.
    """
    projection = SHIPPED.get(name)
    if projection is None:
        raise NotFoundError("there is no read model of this name")
    _check_question(projection, body)
    if body.get("min_position") is not None:
        _wait(ledger, name, body["min_position"])
    return json_response(render_read_model(projection, _read(ledger, projection, body)))


def _check_question(projection: Projection, body: dict[str, Any]) -> None:
    asked_by = _ASKED_BY[projection.partition]
    every = {field for fields in _ASKED_BY.values() for field in fields}
    wrong = sorted(field for field in every.difference(asked_by) if body.get(field) is not None)
    if wrong:
        fault = Fault(f"/{wrong[0]}", f"is not what this read model is asked by: {', '.join(asked_by)}")
        raise InvalidError("the read model cannot be asked like this", [fault])


def _wait(ledger: LedgerInfo, name: str, position: int) -> None:
    visit = current_visit()
    visit.stay()
    # When too many wait already, the others only look: they just ask again.
    seconds = WAIT_SECONDS if visit.try_hold(visit.limits.own_writes) else 0.0
    stopping = current_app.extensions[STOPPING]
    with visit.resting():
        wait_for(open_service().deps, ledger.ledger_id, name, position, seconds, stopping=stopping)


def _read(ledger: LedgerInfo, projection: Projection, body: dict[str, Any]) -> ReadModelAnswer:
    deps = open_service().deps
    stream, subject, day = who(body, "stream"), who(body, "subject"), body.get("day")
    if stream is not None:
        return read_document(deps, ledger.ledger_id, projection, key_of_stream(deps, ledger.ledger_id, stream))
    if subject is not None:
        return read_document(deps, ledger.ledger_id, projection, key_of_subject(deps, ledger.ledger_id, subject))
    if day is not None:
        return read_document(deps, ledger.ledger_id, projection, day.encode())
    bucket = body.get("category") or body.get("month")
    return list_documents(deps, ledger.ledger_id, projection, bucket, cursor=body.get("cursor"), limit=body["limit"])


@blueprint.route("/v1/ledgers/<ledger>/projections")
@allowed(AccessRole.AUDITOR, AccessRole.ADMIN)
@blueprint.response(200, schemas.Projections)
@blueprint.problems(*LEDGER_PROBLEMS)
def list_all(ledger: LedgerInfo) -> Response:
    """List the projections: how far each has come, and whether a worker is at it."""
    return json_response(render_projections(projection_statuses(open_service().deps, ledger.ledger_id)))


@blueprint.route("/v1/ledgers/<ledger>/projections/<name>/rebuild", methods=["POST"])
@allowed(AccessRole.ADMIN)
@blueprint.response(202, schemas.Projections)
@blueprint.problems(*LEDGER_PROBLEMS)
def begin_rebuild(ledger: LedgerInfo, name: str) -> Response:
    """Build a read model anew, beside the one that readers see until the new one has caught up.

    Asking again while it is being built changes nothing.
    """
    rebuild(open_service().deps, ledger.ledger_id, name)
    return _statuses(ledger, name, 202)


@blueprint.route("/v1/ledgers/<ledger>/projections/<name>/restart", methods=["POST"])
@allowed(AccessRole.ADMIN)
@blueprint.response(200, schemas.Projections)
@blueprint.problems(*LEDGER_PROBLEMS)
def begin_again(ledger: LedgerInfo, name: str) -> Response:
    """Have a projection that has stopped go on where it stopped. One that runs is left alone."""
    restart(open_service().deps, ledger.ledger_id, name)
    return _statuses(ledger, name, 200)


def _statuses(ledger: LedgerInfo, name: str, status: int) -> Response:
    statuses = projection_statuses(open_service().deps, ledger.ledger_id)
    return json_response(render_projections([one for one in statuses if one.cursor.key.name == name]), status)
