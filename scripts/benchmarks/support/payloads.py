"""The events that everybody is given to record, the ledger and its peers alike: visits with about 250 bytes of data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

STREAMS: Final = 1_000
"""The streams of a ledger that is written to, each of one person: whoever writes comes back to them again and again."""

EVENT_TYPE: Final = "Visit"
_NOTE: Final = (
    "Admitted with fever and shortness of breath; blood drawn, lactate to be repeated in four hours. "
    "Seen by the ward round at noon; antibiotics started, fluids given."
)


def visit(number: int) -> dict[str, Any]:
    """The data of one event: about 250 bytes as JSON."""
    return {
        "visit": number % 1_000_000,
        "ward": "ER",
        "crp": number % 50,
        "lactate": 2.1,
        "urgent": True,
        "note": _NOTE,
    }


def stream_name(number: int, category: str = "patient") -> str:
    """The stream of the event of this number."""
    return f"{category}-{number}"


def new_event(number: int, stream: int, event_id: str | None = None) -> dict[str, Any]:
    """One event as a client sends it, of the person whose stream it is."""
    event = {"stream": stream_name(stream), "type": EVENT_TYPE, "subject": f"patient:{stream}", "data": visit(number)}
    return event if event_id is None else {"id": event_id, **event}


class EventIds:
    """Ids that are all different and cost nothing: UUIDs of version 7 that count. Every instance begins elsewhere."""

    def __init__(self) -> None:
        start = os.urandom(6).hex()
        self._head = f"01930000-{start[:4]}-7{start[4:7]}-8{start[7:10]}-"
        self._count = 0

    def next(self) -> str:
        """The next one."""
        self._count += 1
        return f"{self._head}{self._count:012x}"


def lines_of(numbers: Sequence[int], ids: EventIds, first_stream: int = 0, streams: int = STREAMS) -> bytes:
    """These events as NDJSON, each with an id, as who may have to send them again gives them. They go round the
    streams."""
    return b"".join(
        json.dumps(new_event(number, first_stream + number % streams, ids.next())).encode() + b"\n"
        for number in numbers
    )


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is ready to be sent, again and again: only the id of its event is put in (where there is one)."""

    head: bytes
    tail: bytes = b""

    def filled(self, ids: EventIds) -> bytes:
        """The bytes to send."""
        return self.head + ids.next().encode() + self.tail if self.tail else self.head


def request_of(path: str, key: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A POST on a connection that is kept."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def single_appends(path: str, key: str, streams: int = STREAMS) -> Iterator[Request]:
    """One append to each stream of a ledger."""
    for stream in range(streams):
        mark = "00000000-0000-7000-8000-000000000000"
        head, _, tail = request_of(
            f"{path}/events", key, json.dumps(new_event(stream, stream, mark)).encode()
        ).partition(mark.encode())
        yield Request(head, tail)


def nothing(path: str, key: str) -> Request:
    """What an HTTP request of the service costs that does nothing: an empty batch. The server finds the key, its role
    and the ledger, reads the body as JSON, and refuses it (422) before it has asked for anything else."""
    return Request(request_of(f"{path}/events", key, b'{"events":[]}'))
