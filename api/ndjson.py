"""Streams of lines: answers that are too long for memory, and the results of appended lines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, TypeVar

from flask import Response

from api.json_text import NDJSON, json_line
from api.problems import SERVER_ERROR, kind_of, log_failure, problem_of
from api.rendering import event_json, proven_event_json, render_appended
from api.turns import Visit
from ledger.domain.events import OpenedEvent
from ledger.services.appending.ingest import LineResult
from ledger.services.proving.answers import ProvenEvent

SPOOL_BYTES: Final = 2**20
"""Results above this wait on disk. They hold ids, positions and times, and nobody's data."""

_CHUNK: Final = 64 * 1024

T = TypeVar("T")


def stream_events(pages: Iterator[Iterable[OpenedEvent]], visit: Visit) -> Response:
    """All events of an export, one a line. The first page is read before the status is sent; the others each take a
    place when it is their time, so that a client that reads slowly has none meanwhile."""
    return _stream(pages, visit, event_json, b"")


def stream_proven(checkpoint: str, pages: Iterator[Sequence[ProvenEvent]], visit: Visit) -> Response:
    """The same with proofs, behind a first line that has the checkpoint."""
    return _stream(pages, visit, proven_event_json, json_line({"checkpoint": checkpoint}))


def _stream(pages: Iterator[Iterable[T]], visit: Visit, text_of: Callable[[T], bytes], head: bytes) -> Response:
    first = next(pages, ())
    return Response(_event_lines(chain([first], pages), visit, text_of, head), mimetype=NDJSON)


def _event_lines(
    pages: Iterator[Iterable[T]], visit: Visit, text_of: Callable[[T], bytes], head: bytes
) -> Iterator[bytes]:
    count = 0
    try:
        if head:
            yield head
        while True:
            with visit.working():
                events = next(pages, None)
                text = bytearray()
                for event in events or ():
                    text += text_of(event)
                    text += b"\n"
                    count += 1
            if events is None:
                break
            del events
            # In pieces, since the server holds several of them for a client that reads slowly.
            for start in range(0, len(text), _CHUNK):
                yield bytes(text[start : start + _CHUNK])
    except Exception as error:  # noqa: BLE001 - the status is sent: what is left is to say that this is not the end
        log_failure(error)
        yield json_line({"end": False, "problem": problem_of(error)})
        return
    yield json_line({"end": True, "count": count})


class AppendReport:
    """What became of the lines of one append, kept until the whole input was read.

    Nothing is sent before: a client that sends everything before it reads anything would stop reading our answer, we
    would stop reading its lines, and both would hang.
    """

    def __init__(self) -> None:
        self.recorded = 0
        self.duplicates = 0
        self.refused = 0
        self._lines: IO[bytes] = SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - closed when it was sent

    def add(self, result: LineResult) -> None:
        """Note the result of one line."""
        if result.appended is not None:
            self.duplicates += result.duplicate
            self.recorded += not result.duplicate
            self._lines.write(json_line({"line": result.line, **render_appended(result.appended)}))
        elif result.error is not None:
            self.refused += 1
            self._lines.write(json_line({"line": result.line, "problem": problem_of(result.error)}))

    @property
    def _counts(self) -> dict[str, Any]:
        return {"recorded": self.recorded, "duplicates": self.duplicates, "refused": self.refused}

    def finish(self, error: Exception | None = None) -> Response:
        """The answer, once the input has ended or (``error``) could not be read on."""
        last: dict[str, Any] = {"end": error is None}
        if error is not None:
            if kind_of(error).status >= SERVER_ERROR:
                log_failure(error)
            last["problem"] = problem_of(error)
        self._lines.write(json_line({**last, **self._counts}))
        size = self._lines.tell()
        self._lines.seek(0)
        response = Response(self._chunks(), mimetype=NDJSON)
        response.content_length = size
        response.call_on_close(self.close)
        return response

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._lines.read(_CHUNK):
            yield chunk

    def close(self) -> None:
        """Throw the results away."""
        with contextlib.suppress(OSError):
            self._lines.close()
