"""The policy of a ledger: what it insists on."""

from __future__ import annotations

from typing import Any

from flask import Response

from api.auth import allowed
from api.context import open_service
from api.json_text import json_response
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import types
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.catalogue import policy_json
from ledger.services.evolution.types import get_policy, set_policy

blueprint = Endpoints("Policy", __name__, description="What a ledger insists on.")


@blueprint.route("/v1/ledgers/<ledger>/policy")
@allowed(AccessRole.ADMIN)
@blueprint.response(200, types.Policy)
@blueprint.problems(*LEDGER_PROBLEMS)
def show(ledger: LedgerInfo) -> Response:
    """Show the policy of a ledger."""
    return json_response(policy_json(get_policy(open_service().deps, ledger.ledger_id)))


@blueprint.route("/v1/ledgers/<ledger>/policy", methods=["PUT"])
@allowed(AccessRole.ADMIN)
@blueprint.takes(types.NewPolicy)
@blueprint.response(200, types.Policy)
@blueprint.problems(400, 413, 415, 422, *LEDGER_PROBLEMS)
def replace(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Replace the policy of a ledger. It holds for every append that begins after the answer."""
    return json_response(policy_json(set_policy(open_service().deps, ledger.ledger_id, body)))
