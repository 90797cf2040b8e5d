"""The ledger as a transparency log: checkpoints, tiles, proofs (https://c2sp.org/tlog-tiles)."""

from __future__ import annotations

import gzip
from typing import Any, Final

from flask import Response, request

from api.auth import allowed
from api.context import open_service
from api.json_text import json_response
from api.routes.blueprint import LEDGER_PROBLEMS, Endpoints
from api.schemas import answers, requests
from ledger.domain.access import AccessRole, LedgerInfo
from ledger.domain.ids import parse_uuid
from ledger.domain.notes import to_base64
from ledger.domain.tiles import parse_tile_path
from ledger.errors import NotFoundError
from ledger.services.evolution.types import get_policy
from ledger.services.proving.entries import entry_bundle
from ledger.services.proving.proofs import prove_event, prove_growth, published_tile
from ledger.services.proving.publishing import note_of, publish

blueprint = Endpoints(
    "Proof", __name__, description="What shows, to anyone who has the ledger's public key, what was recorded."
)

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
_TEXT_SCHEMA: Final = {"type": "string"}
_BYTES_SCHEMA: Final = {"type": "string", "format": "binary"}
_SECONDS: Final = 1
_FOR_GOOD: Final = "max-age=31536000, immutable"


@blueprint.route("/v1/ledgers/<ledger>/checkpoint")
@allowed(AccessRole.AUDITOR, or_public=True)
@blueprint.response(200, _TEXT_SCHEMA, content_type="text/plain")
@blueprint.problems(*LEDGER_PROBLEMS)
def checkpoint(ledger: LedgerInfo) -> Response:
    """Give the newest checkpoint (C2SP tlog-checkpoint), with the cosignatures of witnesses.

    A ledger that grows is published once a second at most.
    """
    deps = open_service().deps
    text = note_of(deps, publish(deps, ledger.ledger_id))
    return _cached(Response(text, content_type=TEXT), ledger, f"max-age={_SECONDS}")


@blueprint.route("/v1/ledgers/<ledger>/tile/entries/<path:number>")
@allowed(AccessRole.AUDITOR)
@blueprint.response(200, _BYTES_SCHEMA, content_type=BYTES)
@blueprint.problems(*LEDGER_PROBLEMS)
def entries(ledger: LedgerInfo, number: str) -> Response:
    """Give 256 leaves, each behind its length in two bytes; `number` as in C2SP tlog-tiles, as `x001/x234/067.p/12`.

    A leaf commits to the sealed event and holds its envelope: types, times, refs.
    """
    try:
        tile = parse_tile_path("0", number)
    except ValueError:
        raise NotFoundError("there are no such entries") from None
    body = entry_bundle(open_service().deps, ledger.ledger_id, tile)
    response = Response(body, content_type=BYTES)
    if request.accept_encodings["gzip"]:
        response.set_data(gzip.compress(body, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = f"private, {_FOR_GOOD}"
    return response


@blueprint.route("/v1/ledgers/<ledger>/tile/<level>/<path:number>")
@allowed(AccessRole.AUDITOR, or_public=True)
@blueprint.response(200, _BYTES_SCHEMA, content_type=BYTES)
@blueprint.problems(*LEDGER_PROBLEMS)
def tile(ledger: LedgerInfo, level: str, number: str) -> Response:
    """Give a tile of the Merkle tree: 256 hashes, or fewer with `.p/<width>` behind the number (C2SP tlog-tiles)."""
    try:
        asked = parse_tile_path(level, number)
    except ValueError:
        raise NotFoundError("there is no such tile") from None
    body = published_tile(open_service().deps, ledger.ledger_id, asked)
    return _cached(Response(body, content_type=BYTES), ledger, _FOR_GOOD)


@blueprint.route("/v1/ledgers/<ledger>/events/<id>/proof")
@allowed(AccessRole.AUDITOR)
@blueprint.response(200, _TEXT_SCHEMA, content_type="text/plain")
@blueprint.problems(*LEDGER_PROBLEMS)
def proof(ledger: LedgerInfo, id: str) -> Response:
    """Prove that an event is recorded (C2SP tlog-proof); the leaf stands in the line `extra`."""
    event_id = parse_uuid(id)
    if event_id is None:
        raise NotFoundError("there is no event of this id in this ledger")
    text = str(prove_event(open_service().deps, ledger.ledger_id, event_id))
    return Response(text, content_type=TEXT)


@blueprint.route("/v1/ledgers/<ledger>/consistency")
@allowed(AccessRole.AUDITOR)
@blueprint.takes(requests.Sizes, location="query")
@blueprint.response(200, answers.Consistency)
@blueprint.problems(422, *LEDGER_PROBLEMS)
def consistency(parameters: dict[str, Any], ledger: LedgerInfo) -> Response:
    """Prove that the ledger of one size is the beginning of the ledger of another (RFC 6962 §2.1.2)."""
    growth = prove_growth(open_service().deps, ledger.ledger_id, parameters["old"], parameters["new"])
    hashes = [to_base64(node) for node in growth.hashes]
    return json_response({"from": growth.old, "to": growth.new, "proof": hashes})


def _cached(response: Response, ledger: LedgerInfo, how: str) -> Response:
    public = get_policy(open_service().deps, ledger.ledger_id).public_checkpoints
    response.headers["Cache-Control"] = f"{'public' if public else 'private'}, {how}"
    return response
