"""Append events: one, a batch, or any number of lines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from flask import Response, request

from api.auth import allowed, current_key
from api.bodies import body_of, check_media_type
from api.context import current_visit, open_service, trace_id
from api.importing import bounded_lines
from api.json_text import JSON, NDJSON, json_response
from api.ndjson import AppendReport
from api.rendering import render_appended
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.events import NewEvent
from ledger.domain.intake import BATCH_BYTES, BATCH_EVENTS, EVENT_BYTES, parse_batch
from ledger.domain.strict_json import parse_json
from ledger.errors import Fault, InvalidError, TooLargeError
from ledger.services.appending.append import append_events
from ledger.services.appending.ingest import Source, ingest_lines

blueprint = Endpoints("Appending", __name__, description="Record what happened.")

LABEL_PREFIX: Final = "idempotency-key"
"""Stands first in the label that ids are derived from, so that no other use of labels gives the same ids."""

_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_REFERENCE: Final = "#/components/schemas/"


@blueprint.route("/v1/ledgers/<ledger>/events", methods=["POST"])
@allowed(AccessRole.WRITER)
@blueprint.doc(
    requestBody={
        "required": True,
        "content": {
            JSON: {"schema": {"oneOf": [{"$ref": f"{_REFERENCE}NewEvent"}, {"$ref": f"{_REFERENCE}Batch"}]}},
            NDJSON: {"schema": {"$ref": f"{_REFERENCE}NewEvent"}},
        },
    },
    parameters=[
        {
            "in": "header",
            "name": "Idempotency-Key",
            "description": "Ids for events that have none are derived from it and from the event's index or line.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
    ],
)
@blueprint.response(200, answers.AppendedLine, content_type=NDJSON)
@blueprint.response(200, answers.Appended, description="Recorded before (JSON); one result for each line (NDJSON)")
@blueprint.response(201, answers.Appended)
@blueprint.problems(400, 409, 410, 413, 415, 422, *LEDGER_PROBLEMS)
def append(ledger: LedgerInfo) -> Response:
    """Append one event, a batch, or lines of events.

    JSON: one event, or `{"events":[…]}`, all or nothing. NDJSON: one event a line, any number of lines, recorded in
    order in atomic batches; a bad line does not lose the good ones; the answer comes when the input has ended, one line
    for each, and last `{"end":true,"recorded":n,"duplicates":n,"refused":n}`.
    """
    label = _id_label()
    if check_media_type(request, JSON, NDJSON) == NDJSON:
        return _append_lines(ledger, label)
    events = parse_batch(_batch(), default_correlation=trace_id())
    deps = open_service().deps
    if label is not None and any(event.event_id is None for event in events):
        derived = deps.vault.derive_ids(ledger.ledger_id, label, range(len(events)))
        events = [
            event if event.event_id is not None else replace(event, event_id=event_id)
            for event, event_id in zip(events, derived, strict=True)
        ]
    return _append_batch(ledger, events)


def _append_batch(ledger: LedgerInfo, events: list[NewEvent]) -> Response:
    with current_visit().appending():
        result = append_events(open_service().deps, ledger.ledger_id, events, current_key().key_id)
    answer = {"events": [render_appended(place) for place in result.events], "duplicate": result.duplicate}
    return json_response(answer, 200 if result.duplicate else 201)


def _batch() -> Any:
    """The JSON of the body, within the limits: a batch of 32 MiB and 10,000 events, an event of 1 MiB."""
    text = body_of(request).read_all(BATCH_BYTES, "the batch is above 32 MiB")
    raw = parse_json(text)
    events = raw.get("events") if isinstance(raw, dict) else None
    if isinstance(events, list) and len(events) > BATCH_EVENTS:
        message = f"must hold at most {BATCH_EVENTS} events"
        raise TooLargeError("the batch is above 10,000 events", [Fault("/events", message)])
    if len(text) > EVENT_BYTES:
        _check_sizes(raw, events)
    return raw


def _check_sizes(raw: Any, events: Any) -> None:
    detail, message = "an event is above 1 MiB; nothing was recorded", "must be at most 1 MiB"
    if not isinstance(events, list):
        raise TooLargeError(detail, [Fault("", message)])
    faults = [
        Fault(f"/events/{index}", message, index) for index, event in enumerate(events) if _size(event) > EVENT_BYTES
    ]
    if faults:
        raise TooLargeError(detail, faults)


def _size(event: Any) -> int:
    # Lone surrogates pass here and are refused by the intake.
    return len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def _append_lines(ledger: LedgerInfo, label: str | None) -> Response:
    source = Source(current_key().key_id, label, trace_id())
    report = AppendReport()
    try:
        lines = bounded_lines(body_of(request).lines())
        for result in ingest_lines(open_service().deps, ledger.ledger_id, lines, source):
            report.add(result)
    except Exception as error:
        # What was acknowledged to nobody yet but is recorded must be told (I11); if there is none, a status says more.
        if report.recorded + report.duplicates == 0:
            report.close()
            raise
        return report.finish(error)
    return report.finish()


def _id_label() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise InvalidError("the Idempotency-Key must be 1 to 255 visible ASCII characters")
    return id_label(current_key().principal, key)


def id_label(principal: str, key: str) -> str:
    """What the ids of one principal's Idempotency-Key are derived from; two principals never get the same.

    Bound to the principal and not to the API key, so that a retry after a change of keys is still a retry; and not to
    the ledger's clients together, or two of them who both count from 1 would each take the other's events for
    repeats (docs/adr/0006-idempotency-keys-of-principals.md). The length keeps name and key apart.
    """
    return f"{LABEL_PREFIX}:{len(principal)}:{principal}:{key}"
