"""Subjects: what the ledger holds of them, without opening any of it; restricting and reinstating them."""

from __future__ import annotations

from typing import Any

from flask import Response

from api.asking import needed
from api.auth import allowed, current_key
from api.context import open_service
from api.json_text import json_response
from api.rendering import render_subject
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.ids import parse_ref
from ledger.domain.query import NameOrRef
from ledger.errors import NotFoundError
from ledger.services.reinstating import reinstate_subject
from ledger.services.restricting import lift_restriction, restrict_subject
from ledger.services.subjects import describe_subject

blueprint = Endpoints("Subjects", __name__, description="The natural persons that events are about.")


@blueprint.route("/v1/ledgers/<ledger>/subjects/lookup", methods=["POST"])
@allowed(AccessRole.PRIVACY, AccessRole.AUDITOR)
@blueprint.takes(requests.SubjectLookup)
@blueprint.response(200, answers.Subject)
@blueprint.problems(400, 413, 415, 422, *LEDGER_PROBLEMS)
def look_up(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Find a subject by name."""
    return json_response(
        render_subject(describe_subject(open_service().deps, ledger.ledger_id, needed(body, "subject")))
    )


@blueprint.route("/v1/ledgers/<ledger>/subjects/<ref>")
@allowed(AccessRole.PRIVACY, AccessRole.AUDITOR)
@blueprint.response(200, answers.Subject)
@blueprint.problems(*LEDGER_PROBLEMS)
def show(ledger: LedgerInfo, ref: str) -> Response:
    """Show a subject by its ref."""
    subject_ref = parse_ref("sub", ref)
    if subject_ref is None:
        raise NotFoundError("there is no such subject in this ledger")
    who = NameOrRef(None, subject_ref)
    return json_response(render_subject(describe_subject(open_service().deps, ledger.ledger_id, who)))


@blueprint.route("/v1/ledgers/<ledger>/subjects/restrict", methods=["POST"])
@allowed(AccessRole.PRIVACY)
@blueprint.takes(requests.RestrictionOrder)
@blueprint.response(200, answers.Subject)
@blueprint.problems(400, 409, 413, 415, 422, *LEDGER_PROBLEMS)
def restrict(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Restrict a subject (Art. 18). When this answers, everything of the person reads as `restricted`, whatever past
    moment is asked for. Appends go on. Doing it again changes nothing."""
    who, reason = needed(body, "subject"), body["reason"]
    deps, by = open_service().deps, current_key().key_id
    summary = restrict_subject(deps, ledger.ledger_id, who, reason=reason, requested_by=by)
    return json_response(render_subject(summary))


@blueprint.route("/v1/ledgers/<ledger>/subjects/unrestrict", methods=["POST"])
@allowed(AccessRole.PRIVACY)
@blueprint.takes(requests.RestrictionOrder)
@blueprint.response(200, answers.Subject)
@blueprint.problems(400, 409, 413, 415, 422, *LEDGER_PROBLEMS)
def unrestrict(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Lift the restriction of a subject. Doing it again changes nothing."""
    who, reason = needed(body, "subject"), body["reason"]
    deps, by = open_service().deps, current_key().key_id
    summary = lift_restriction(deps, ledger.ledger_id, who, reason=reason, requested_by=by)
    return json_response(render_subject(summary))


@blueprint.route("/v1/ledgers/<ledger>/subjects/reinstate", methods=["POST"])
@allowed(AccessRole.PRIVACY)
@blueprint.takes(requests.ReinstatementOrder)
@blueprint.response(201, answers.Subject)
@blueprint.problems(400, 409, 413, 415, 422, *LEDGER_PROBLEMS)
def reinstate(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Let the name of an erased subject begin anew, with a new ref, new keys and new streams. What was erased stays so,
    and nothing leads there from the name."""
    deps, by = open_service().deps, current_key().key_id
    summary = reinstate_subject(deps, ledger.ledger_id, body["subject"], reason=body["reason"], requested_by=by)
    return json_response(render_subject(summary), 201)
