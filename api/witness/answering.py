"""What a witness answers to a request, without the sockets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from api.logs import LOGGER
from api.witness.state import WitnessState, WitnessStateError
from ledger.domain.notes import NoteSignature
from ledger.domain.witnessing import SIZE_TYPE, RefusalError, parse_add_checkpoint

TEXT: Final = "text/plain; charset=utf-8"
LIVEZ: Final = "/livez"
ADD_CHECKPOINT: Final = "/add-checkpoint"
RETRY_SECONDS: Final = 5

_CHECKPOINT: Final = re.compile(r"/([0-9a-f]{64})/checkpoint", re.ASCII)

_log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with all its headers but those of the connection."""

    status: HTTPStatus
    text: str
    media_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_to(state: WitnessState, method: str, path: str, body: bytes) -> Answer:
    """The answer to a request. Never raises for anything that a client sends, or that the disk does."""
    checkpoint = _CHECKPOINT.fullmatch(path)
    expected = "POST" if path == ADD_CHECKPOINT else "GET"
    if path not in (ADD_CHECKPOINT, LIVEZ) and checkpoint is None:
        return Answer(HTTPStatus.NOT_FOUND, "there is nothing at this address\n")
    if method != expected:
        refusal = f"only {expected} here\n"
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, refusal, headers={"Allow": expected})
    try:
        if checkpoint is not None:
            return _last(state, checkpoint[1])
        return _add(state, body) if path == ADD_CHECKPOINT else Answer(HTTPStatus.OK, "alive\n")
    except WitnessStateError as error:
        _log.error("witness-state-unavailable", exc_info=error)
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "the witness cannot use its state now\n", headers=headers)


def _last(state: WitnessState, origin_hash: str) -> Answer:
    note = state.last_note(origin_hash)
    if note is None:
        return Answer(HTTPStatus.NOT_FOUND, "nothing of this origin was cosigned\n")
    return Answer(HTTPStatus.OK, note)


def _add(state: WitnessState, body: bytes) -> Answer:
    try:
        request = parse_add_checkpoint(body)
        checkpoint = request.checkpoint
        line: NoteSignature = state.cosign(request, int(time.time()))
    except RefusalError as refusal:
        # Of two histories somebody has to know; who asks with another old size goes on with the right one.
        level = logging.WARNING if refusal.status == HTTPStatus.UNPROCESSABLE_ENTITY else logging.INFO
        _log.log(level, "checkpoint-refused", extra={"status": int(refusal.status), "why": refusal.detail})
        if refusal.size is not None:
            return Answer(refusal.status, f"{refusal.size}\n", SIZE_TYPE)
        return Answer(refusal.status, f"{refusal.detail}\n")
    _log.info("checkpoint-cosigned", extra={"origin": checkpoint.origin, "size": checkpoint.size})
    return Answer(HTTPStatus.OK, line.line)
