"""API keys: make, list and revoke them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response

from api.auth import allowed, current_key
from api.context import open_service
from api.json_text import json_response
from api.rendering import render_api_key
from api.routes.blueprint import Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, ApiKey
from ledger.domain.ids import parse_uuid
from ledger.errors import Fault, ForbiddenError, InvalidError, NotFoundError
from ledger.services.api_keys import create_api_key, list_api_keys, revoke_api_key
from ledger.services.ledgers import list_ledgers

blueprint = Endpoints("API keys", __name__, description="A key has roles on one ledger or on all.")


@blueprint.route("/v1/api-keys", methods=["POST"])
@allowed(AccessRole.ADMIN)
@blueprint.takes(requests.NewApiKey)
@blueprint.response(201, answers.IssuedApiKey)
@blueprint.problems(400, 401, 403, 413, 415, 422, 500, 503)
def create(body: dict[str, Any]) -> Response:
    """Make an API key. Its secret is shown this once."""
    ledger_id = _ledger_id(body["ledger"])
    deps = open_service().deps
    faults = []
    if body["expires_at"] is not None and body["expires_at"] <= deps.clock():
        faults.append(Fault("/expires_at", "must be in the future"))
    if len(set(body["roles"])) < len(body["roles"]):
        faults.append(Fault("/roles", "must not hold a role twice"))
    if faults:
        raise InvalidError("the API key is not valid", faults)
    issued = create_api_key(
        deps,
        name=body["name"],
        principal=body["principal"],
        roles=[AccessRole(role) for role in body["roles"]],
        ledger_id=ledger_id,
        expires_at=body["expires_at"],
    )
    return json_response({"id": str(issued.key.key_id), "secret": issued.secret}, 201)


@blueprint.route("/v1/api-keys")
@allowed(AccessRole.ADMIN)
@blueprint.response(200, answers.ApiKeys)
@blueprint.problems(401, 403, 500, 503)
def list_all() -> Response:
    """List API keys, revoked ones too, oldest first; with a key of one ledger: those of that ledger."""
    keys = [key for key in list_api_keys(open_service().deps) if _may_manage(key)]
    names = _ledger_names()
    return json_response({"api_keys": [render_api_key(key, names) for key in keys]})


@blueprint.route("/v1/api-keys/<id>", methods=["DELETE"])
@allowed(AccessRole.ADMIN)
@blueprint.response(204)
@blueprint.problems(401, 403, 404, 500, 503)
def revoke(id: str) -> Response:
    """Revoke an API key for good."""
    key_id = parse_uuid(id)
    deps = open_service().deps
    key = deps.store.api_key(key_id) if key_id is not None else None
    if key is None or not _may_manage(key):
        raise NotFoundError("there is no API key of this id")
    revoke_api_key(deps, key.key_id)
    return Response(status=204)


def _may_manage(key: ApiKey) -> bool:
    own = current_key().ledger_id
    return own is None or key.ledger_id == own


def _ledger_id(name: str | None) -> UUID | None:
    """The ledger that a new key shall be for. A key of one ledger makes none for others, or for all."""
    found = {ledger.name: ledger.ledger_id for ledger in list_ledgers(open_service().deps)}.get(name or "")
    own = current_key().ledger_id
    if own is not None and found != own:
        raise ForbiddenError("this key is for one ledger, so it makes keys for that one only")
    if name is not None and found is None:
        raise InvalidError("there is no ledger of this name", [Fault("/ledger", "is not the name of a ledger")])
    return found


def _ledger_names() -> Mapping[UUID, str]:
    return {ledger.ledger_id: ledger.name for ledger in list_ledgers(open_service().deps)}
