"""Ask how things stood, what changed, and what a field ever was."""

from __future__ import annotations

from typing import Any

from flask import Response

from api.asking import needed, who
from api.auth import allowed
from api.context import open_service
from api.json_text import json_response
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import timetravel as schemas
from api.timetravel_rendering import render_diff, render_history, render_state, render_states
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.services.timetravel.diff import DiffPage, Moments, diff_category, diff_stream
from ledger.services.timetravel.history import field_history
from ledger.services.timetravel.state import stream_state
from ledger.services.timetravel.states import stream_states

blueprint = Endpoints(
    "Time travel", __name__, description="How things stood at any moment, as it was known then, less what is erased."
)

_BODY_PROBLEMS = (400, 413, 415, 422)


@blueprint.route("/v1/ledgers/<ledger>/state", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.StateQuestion)
@blueprint.response(200, schemas.State)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def state(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Tell what was known at a moment (`as_of`) of how a stream stood at another (`occurred_as_of`)."""
    answer = stream_state(
        open_service().deps, ledger.ledger_id, needed(body, "stream"), body.get("as_of"), body.get("occurred_as_of")
    )
    return json_response(render_state(answer))


@blueprint.route("/v1/ledgers/<ledger>/states", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.StatesQuestion)
@blueprint.response(200, schemas.States)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def states(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Tell the same of every stream of a category, or of every stream of a subject.

    A stream that had not begun at `as_of`, or of which nothing had occurred by `occurred_as_of`, is left out.
    """
    page = stream_states(
        open_service().deps,
        ledger.ledger_id,
        category=body.get("category"),
        subject=who(body, "subject"),
        as_of=body.get("as_of"),
        occurred_as_of=body.get("occurred_as_of"),
        cursor=body.get("cursor"),
        limit=body["limit"],
    )
    return json_response(render_states(page))


@blueprint.route("/v1/ledgers/<ledger>/diff", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.DiffQuestion)
@blueprint.response(200, schemas.Diff)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def diff(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Tell what changed between two moments in a stream or in a category, and by which event.

    `limit` counts streams. Each change names the last event that changed the value.
    """
    return json_response(render_diff(_diff(body, ledger)))


def _diff(body: dict[str, Any], ledger: LedgerInfo) -> DiffPage:
    deps = open_service().deps
    moments = None
    if body.get("old_as_of") is not None:
        moments = Moments(
            old_as_of=body["old_as_of"],
            new_as_of=body.get("new_as_of"),
            old_occurred_as_of=body.get("old_occurred_as_of"),
            new_occurred_as_of=body.get("new_occurred_as_of"),
        )
    stream = who(body, "stream")
    if stream is not None and moments is not None:
        return diff_stream(deps, ledger.ledger_id, stream, moments)
    return diff_category(
        deps, ledger.ledger_id, body.get("category"), moments, cursor=body.get("cursor"), limit=body["limit"]
    )


@blueprint.route("/v1/ledgers/<ledger>/history", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(schemas.HistoryQuestion)
@blueprint.response(200, schemas.History)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def history(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Tell every value that a field of a stream's state ever had, and which event gave it.

    An event of which something is hidden that could have changed the field is listed with its redactions.
    """
    page = field_history(
        open_service().deps,
        ledger.ledger_id,
        needed(body, "stream"),
        body["path"],
        as_of=body.get("as_of"),
        occurred_as_of=body.get("occurred_as_of"),
        cursor=body.get("cursor"),
        limit=body["limit"],
    )
    return json_response(render_history(page))
