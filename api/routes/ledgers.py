"""Ledgers: make and describe them."""

from __future__ import annotations

from typing import Any

from flask import Response

from api.auth import allowed, current_key, may_see
from api.context import open_service
from api.json_text import json_response
from api.rendering import render_ledger
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.errors import ForbiddenError
from ledger.services.ledgers import create_ledger, describe_ledger, list_ledgers

blueprint = Endpoints("Ledgers", __name__, description="A ledger is one tenant's append-only sequence of events.")


def _rendered(ledger: LedgerInfo) -> dict[str, Any]:
    service = open_service()
    return render_ledger(describe_ledger(service.deps, ledger), service.settings.origin)


@blueprint.route("/v1/ledgers", methods=["POST"])
@allowed(AccessRole.ADMIN)
@blueprint.takes(requests.NewLedger)
@blueprint.response(201, answers.Ledger)
@blueprint.problems(400, 401, 403, 409, 413, 415, 422, 500, 503)
def create(body: dict[str, Any]) -> Response:
    """Make an empty ledger."""
    if current_key().ledger_id is not None:
        raise ForbiddenError("this key is for one ledger, so it makes no other")
    return json_response(_rendered(create_ledger(open_service().deps, body["name"])), 201)


@blueprint.route("/v1/ledgers")
@allowed()
@blueprint.response(200, answers.Ledgers)
@blueprint.problems(401, 500, 503)
def list_all() -> Response:
    """List the ledgers that the key is for."""
    key = current_key()
    ledgers = [ledger for ledger in list_ledgers(open_service().deps) if may_see(key, ledger)]
    return json_response({"ledgers": [_rendered(ledger) for ledger in ledgers]})


@blueprint.route("/v1/ledgers/<ledger>")
@allowed()
@blueprint.response(200, answers.Ledger)
@blueprint.problems(*LEDGER_PROBLEMS)
def describe(ledger: LedgerInfo) -> Response:
    """Describe a ledger: its size, and the key that its statements verify under."""
    return json_response(_rendered(ledger))
