"""Whether the service lives, and whether it can work."""

from __future__ import annotations

import logging
from typing import Final

from flask import Response

from api.context import counters, open_guard, open_service
from api.guard import NAME as GUARD_NAME
from api.json_text import json_response
from api.logs import LOGGER
from api.metrics import CONTENT_TYPE, metrics_text
from api.readiness import NotReadyError
from api.routes.blueprint import Endpoints
from api.schemas.answers import Health
from api.wiring import OK
from keyvault.errors import KeyVaultError
from ledger.errors import LedgerError

blueprint = Endpoints("Operations", __name__, description="For whoever runs the service. These take no key.")
LIVEZ: Final = "/livez"

_log = logging.getLogger(LOGGER)


@blueprint.route(LIVEZ)
@blueprint.response(200, Health)
def livez() -> Response:
    """Say that the process answers."""
    return json_response({"status": "alive"})


@blueprint.route("/readyz")
@blueprint.response(200, Health)
@blueprint.problems(503)
def readyz() -> Response:
    """Say whether everything that the service depends on is there, each by its name."""
    states = {**open_service().check(), GUARD_NAME: _guard_state()}
    if any(state != OK for state in states.values()):
        _log.warning("not-ready", extra={"dependencies": dict(states)})
        # Why, with its paths and addresses, is in the log: this endpoint is for everybody.
        shown = {name: OK if state == OK else "not available" for name, state in states.items()}
        raise NotReadyError({**shown, GUARD_NAME: states[GUARD_NAME]})
    return json_response({"status": "ready", "dependencies": {**states, **_witnesses_state()}})


def _witnesses_state() -> dict[str, str]:
    """Told and no more: without them everything goes on but the publishing."""
    witnesses = open_service().deps.witnesses
    if witnesses is None:
        return {}
    return {"witnesses": "publishing waits for their quorum" if witnesses.is_waited_for else OK}


def _guard_state() -> str:
    try:
        open_guard().require()
    except NotReadyError as error:
        return error.states[GUARD_NAME]
    except (KeyVaultError, LedgerError):
        return "cannot look as long as a dependency is not there"
    return OK


@blueprint.route("/metrics")
@blueprint.response(200, {"type": "string"}, content_type=CONTENT_TYPE.partition(";")[0])
def metrics() -> Response:
    """Tell what the service counts, in Prometheus' text format: nothing personal, but not for everybody either."""
    _guard_state()
    text = metrics_text(open_service(), counters(), len(open_guard().findings))
    return Response(text, content_type=CONTENT_TYPE)
