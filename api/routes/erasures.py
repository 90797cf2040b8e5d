"""Erasures: forget a person, and prove that it was done."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response

from api.asking import needed
from api.auth import allowed, current_key
from api.context import open_service
from api.json_text import json_response
from api.rendering import render_erasure, render_outcome, render_receipt
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.ids import parse_uuid
from ledger.errors import NotFoundError
from ledger.services import erase
from ledger.services.receipts import get_receipt

blueprint = Endpoints("Erasures", __name__, description="Article 17: shred a subject's keys. The log itself stays.")

# What has failed may be done or not by what the vault says.
_DONE = {"erased": True, "shredding": False, "failed": None}


@blueprint.route("/v1/ledgers/<ledger>/erasures", methods=["POST"])
@allowed(AccessRole.PRIVACY)
@blueprint.takes(requests.ErasureOrder)
@blueprint.response(200, answers.DoneErasure, description="Erased before: that erasure")
@blueprint.response(201, answers.DoneErasure)
@blueprint.problems(400, 413, 415, 422, *LEDGER_PROBLEMS)
def create(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Erase a subject. When this answers, nothing serves its data any more, whatever past moment is asked for."""
    order = erase.ErasureOrder(
        subject=needed(body, "subject"),
        purposes=body["purposes"],
        ground=body["ground"],
        reference=body["reference"],
        block_unknown=body["block_unknown"],
        requested_by=current_key().key_id,
    )
    outcome = erase.erase_subject(open_service().deps, ledger.ledger_id, order)
    return json_response(render_outcome(outcome), 200 if outcome.repeated else 201)


@blueprint.route("/v1/ledgers/<ledger>/erasures")
@allowed(AccessRole.PRIVACY)
@blueprint.takes(requests.ErasureFilter, location="query")
@blueprint.response(200, answers.Erasures)
@blueprint.problems(422, *LEDGER_PROBLEMS)
def list_all(parameters: dict[str, Any], ledger: LedgerInfo) -> Response:
    """List erasures, oldest first."""
    state, limit = parameters.get("state"), parameters["limit"]
    found = []
    # No erasure waits for a second person yet, so the other states have none.
    if state is None or state in _DONE:
        found = list(
            erase.list_erasures(
                open_service().deps,
                ledger.ledger_id,
                reference=parameters.get("reference"),
                done=_DONE.get(state or ""),
                after=parameters.get("cursor"),
                limit=limit + 1,
            )
        )
    page = found[:limit]
    more = str(page[-1].entry.erasure_id) if len(found) > limit else None
    # Only the log tells what has failed: a page of one state can have fewer erasures than its limit.
    shown = [render_erasure(erasure) for erasure in page if state in (None, erasure.state)]
    return json_response({"erasures": shown, "next": more})


@blueprint.route("/v1/ledgers/<ledger>/erasures/<id>")
@allowed(AccessRole.PRIVACY)
@blueprint.response(200, answers.Erasure)
@blueprint.problems(*LEDGER_PROBLEMS)
def show(ledger: LedgerInfo, id: str) -> Response:
    """Show one erasure."""
    return json_response(render_erasure(erase.get_erasure(open_service().deps, ledger.ledger_id, _erasure_id(id))))


@blueprint.route("/v1/ledgers/<ledger>/erasures/<id>/receipt")
@allowed(AccessRole.PRIVACY)
@blueprint.response(200, answers.Receipt)
@blueprint.problems(*LEDGER_PROBLEMS)
def show_receipt(ledger: LedgerInfo, id: str) -> Response:
    """Show the receipt of an erasure: always the same payload and signature, and what was signed about it since."""
    return json_response(render_receipt(get_receipt(open_service().deps, ledger.ledger_id, _erasure_id(id))))


def _erasure_id(text: str) -> UUID:
    erasure_id = parse_uuid(text)
    if erasure_id is None:
        raise NotFoundError("there is no erasure of this id in this ledger")
    return erasure_id
