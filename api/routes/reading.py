"""Ask about events: queries, single events, streams."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, request

from api.asking import asks_something, needed, query_of
from api.auth import allowed
from api.context import current_visit, open_service
from api.json_text import JSON, NDJSON, json_response
from api.ndjson import stream_events, stream_proven
from api.rendering import event_json, page_json, proven_page_json, render_proven_event, render_stream
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.ids import parse_uuid
from ledger.errors import Fault, InvalidError, NotFoundError
from ledger.services.proving.answers import export_proven, query_proven, show_proven
from ledger.services.read import export_each, find_stream, get_event, query_events

blueprint = Endpoints("Reading", __name__, description="What was recorded, as of any moment, less what is erased.")

_BODY_PROBLEMS: Final = (400, 413, 415, 422)


@blueprint.route("/v1/ledgers/<ledger>/query", methods=["POST"])
@allowed(AccessRole.AUDITOR)
@blueprint.takes(requests.Query)
@blueprint.response(200, answers.EventWithProof, content_type=NDJSON)
@blueprint.response(
    200, answers.PageWithProofs, description="A page; or, with `Accept: application/x-ndjson`, all events"
)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def query(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Ask for events.

    With `Accept: application/x-ndjson` the whole answer comes as a stream, one event a line, without paging (`limit`
    does not apply), and ends with `{"end":true,"count":n}`; a stream without that line broke off.

    With `"proof": true` each event has the proof of its place under one checkpoint, which the page has beside its
    events and a stream in a first line, `{"checkpoint":"…"}`. `"opened"` adds what shows that the text is the recorded
    one: `audit-ledger opened verify` checks that offline.
    """
    deps = open_service().deps
    cursor, proof, as_recorded = body.get("cursor"), body["proof"], body["as_recorded"]
    if request.accept_mimetypes.best_match([JSON, NDJSON]) == NDJSON:
        if cursor is not None:
            raise InvalidError("a stream has no pages", [Fault("/cursor", "must be null in a stream")])
        visit = current_visit()
        visit.stay()
        visit.hold(visit.limits.downloads)
        if proof is not None:
            note, proven = export_proven(deps, ledger.ledger_id, query_of(body), proof, as_recorded=as_recorded)
            return stream_proven(note, proven, visit)
        return stream_events(export_each(deps, ledger.ledger_id, query_of(body), as_recorded=as_recorded), visit)
    asked = query_of(body) if cursor is None or asks_something(body) else None
    paging = {"cursor": cursor, "limit": body["limit"], "as_recorded": as_recorded}
    if proof is not None:
        return json_response(proven_page_json(query_proven(deps, ledger.ledger_id, asked, proof, **paging)))
    return json_response(page_json(query_events(deps, ledger.ledger_id, asked, **paging)))


@blueprint.route("/v1/ledgers/<ledger>/events/<id>")
@allowed(AccessRole.AUDITOR)
@blueprint.takes(requests.ShowingOne, location="query")
@blueprint.response(200, answers.SingleEvent)
@blueprint.problems(422, *LEDGER_PROBLEMS)
def show(parameters: dict[str, Any], ledger: LedgerInfo, id: str) -> Response:
    """Show one event."""
    event_id = parse_uuid(id)
    if event_id is None:
        raise NotFoundError("there is no event of this id in this ledger")
    deps, proof, as_recorded = open_service().deps, parameters["proof"], parameters["as_recorded"]
    if proof is None:
        return json_response(event_json(get_event(deps, ledger.ledger_id, event_id, as_recorded=as_recorded)))
    note, proven = show_proven(deps, ledger.ledger_id, event_id, proof, as_recorded=as_recorded)
    return json_response({**render_proven_event(proven), "checkpoint": note})


@blueprint.route("/v1/ledgers/<ledger>/streams/lookup", methods=["POST"])
@allowed(AccessRole.WRITER, AccessRole.AUDITOR)
@blueprint.takes(requests.StreamLookup)
@blueprint.response(200, answers.Stream)
@blueprint.problems(*_BODY_PROBLEMS, *LEDGER_PROBLEMS)
def look_up_stream(body: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Find the ref and the version of a stream."""
    ref, version = find_stream(open_service().deps, ledger.ledger_id, needed(body, "stream"))
    return json_response(render_stream(ref, version))
