"""Event types: register versions of them, and look them up. Copies of streams, for what a new version cannot say."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from api.asking import needed
from api.auth import allowed, current_key
from api.context import open_service
from api.evolution_rendering import render_copy, render_type, render_types, render_version
from api.json_text import json_response
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import types
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.catalogue import TypeDraft
from ledger.services.evolution.copying import copy_stream, read_transforms
from ledger.services.evolution.types import get_type, list_types, register_type

blueprint = Endpoints("Event types", __name__, description="What events may say, and how they change over the years.")

_READERS: Final = (AccessRole.WRITER, AccessRole.AUDITOR, AccessRole.ADMIN)


@blueprint.route("/v1/ledgers/<ledger>/types", methods=["POST"])
@allowed(AccessRole.ADMIN)
@blueprint.takes(types.NewType)
@blueprint.response(200, types.TypeVersion, description="Registered before, as the same")
@blueprint.response(201, types.TypeVersion)
@blueprint.problems(400, 409, 413, 415, 422, *LEDGER_PROBLEMS)
def register(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Register a version of an event type.

    Versions begin with 1 and go up by one; each one after the first comes with the steps that lead to it from the one
    before. A registered version never changes: the same again is answered with 200, other content with 409.
    """
    draft = TypeDraft(
        body["type"],
        body["version"],
        body["schema"],
        body["nonpersonal_schema"],
        body["upcast"],
        body["closes_stream"],
    )
    result = register_type(open_service().deps, ledger.ledger_id, draft, current_key().key_id)
    return json_response(render_version(result.event_type), 200 if result.duplicate else 201)


@blueprint.route("/v1/ledgers/<ledger>/types")
@allowed(*_READERS)
@blueprint.response(200, types.EventTypes)
@blueprint.problems(*LEDGER_PROBLEMS)
def list_all(ledger: LedgerInfo) -> Response:
    """List the registered event types."""
    return json_response(render_types(list_types(open_service().deps, ledger.ledger_id)))


@blueprint.route("/v1/ledgers/<ledger>/types/<type>")
@allowed(*_READERS)
@blueprint.response(200, types.EventType)
@blueprint.problems(*LEDGER_PROBLEMS)
def describe(ledger: LedgerInfo, type: str) -> Response:
    """Describe an event type: all its versions, with their schemas and steps."""
    return json_response(render_type(get_type(open_service().deps, ledger.ledger_id, type)))


@blueprint.route("/v1/ledgers/<ledger>/streams/copy", methods=["POST"])
@allowed(AccessRole.ADMIN)
@blueprint.takes(types.CopyOrder)
@blueprint.response(200, types.Copy)
@blueprint.problems(400, 409, 413, 415, 422, *LEDGER_PROBLEMS)
def copy(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Copy a stream to a new one, changed on the way, and end the old one.

    May take long. One that was cut short goes on where it stopped when it is asked for again; one that is done changes
    nothing.
    """
    report = copy_stream(
        open_service().deps,
        ledger.ledger_id,
        needed(body, "stream"),
        body["target"],
        read_transforms(body["transforms"]),
        recorded_by=current_key().key_id,
    )
    return json_response(render_copy(report))
