"""Server-sent events: a ledger followed over one answer that has no end (HTML Living Standard, §9.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from api.json_text import json_bytes
from api.problems import log_failure, problem_of
from api.rendering import event_json
from ledger.domain.events import OpenedEvent
from ledger.services.following.follow import FollowedPage

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0
"""Silence, at most: so that neither proxy nor client takes the stream for dead, and we notice a client that is gone."""

RETRY_MILLISECONDS: Final = 1000
"""After how long a client comes back when the stream broke off."""

_BEGINNING: Final = b"retry: %d\n\n" % RETRY_MILLISECONDS
_COMMENT: Final = b": still here\n"


def event_stream(pages: Iterator[FollowedPage], clock: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
    """The text of a stream.

    Each event is a message of the default type, since its own would take a listener of its own; its id is its position.
    A heartbeat tells, as an id without a message, up to where nothing more has matched: who comes back with it
    (``Last-Event-ID``) does not go through that again.
    """
    yield _BEGINNING
    sent_at, told = clock(), -1
    try:
        for page in pages:
            if page.events:
                for event in page.events:
                    yield message(event)
                sent_at, told = clock(), page.events[-1].recorded.position
            elif clock() - sent_at >= HEARTBEAT_SECONDS:
                yield _COMMENT + (b"id: %d\n\n" % page.position if page.position > told else b"\n")
                sent_at, told = clock(), max(told, page.position)
            else:
                # Nothing is sent of it, but the server looks whether the client is still there: it holds a turn.
                yield b""
    except Exception as error:  # noqa: BLE001 - the status is sent: what is left is to say why the stream ends
        log_failure(error)
        yield b"event: problem\ndata: %b\n\n" % json_bytes(problem_of(error))


def message(event: OpenedEvent) -> bytes:
    """One event. Its JSON has no line breaks, so it is one line of data."""
    return b"id: %d\ndata: %b\n\n" % (event.recorded.position, event_json(event))
