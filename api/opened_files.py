"""Files of opened events: read and checked offline, with nothing but the log's public key.

A file is one of three answers as they come: a page (``POST …/query``), a single event (``GET …/events/{id}``), or a
stream (NDJSON: the checkpoint, the events, the end). A stream is read line by line; what is kept of it is a bit for
each event of the log, at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final
from uuid import UUID

from keyvault.envelope import open_disclosed
from ledger.domain.checkpoints import Checkpoint
from ledger.domain.events import JsonObject
from ledger.domain.opened import OpenedError, ProvenEvent, members, text_of, verify_opened
from ledger.domain.strict_json import parse_spelled_json
from ledger.domain.times import parse_time
from ledger.errors import MalformedError

LONGEST_LINE: Final = 32 * 2**20
"""Bytes of a line of a stream, at most: an event of 1 MiB, shown, sealed and escaped, is far below."""

LARGEST_FILE: Final = 512 * 2**20
"""Bytes of a page or a single event, at most."""

OpenCheckpoint = Callable[[str], Checkpoint]
"""Reads a note; raises ``NoteError`` unless it is signed as it must be."""

_CHUNK: Final = 2048
"""Positions whose bits are kept together."""

_STREAM: Final = frozenset({"checkpoint"})
_PAGE: Final = frozenset({"as_of", "next", "checkpoint", "events"})
_AS_OF: Final = frozenset({"position", "recorded_at"})
_END: Final = frozenset({"end", "count"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event, counted from 1: it is proven, or what is wrong. ``position``: where the file says that
    it stands."""

    number: int
    position: int | None
    proven: ProvenEvent | None
    fault: str | None = None


def verify_file(file: IO[bytes], open_checkpoint: OpenCheckpoint) -> tuple[Checkpoint, Iterator[Outcome]]:
    """The checkpoint of a file, verified, and what becomes of each of its events.

    Raises ``OpenedError`` or ``NoteError`` for a file that is refused as a whole; the iterator does at its end, for a
    stream that broke off.
    """
    first = file.readline(LONGEST_LINE + 1)
    head = _parsed_or_none(first)
    if isinstance(head, dict) and head.keys() == _STREAM:
        checkpoint = open_checkpoint(text_of(head["checkpoint"], "the checkpoint"))
        return checkpoint, _outcomes(_stream(file), checkpoint, None)
    whole = _parsed(first + file.read(LARGEST_FILE + 1 - len(first)), LARGEST_FILE)
    if not isinstance(whole, dict) or "checkpoint" not in whole:
        raise OpenedError('this is not an answer with proofs: it has no checkpoint; ask with "proof": "opened"')
    checkpoint = open_checkpoint(text_of(whole["checkpoint"], "the checkpoint"))
    if "events" in whole:
        page = members(whole, _PAGE, "the page")
        return checkpoint, _outcomes(_listed(page), checkpoint, _last_position(page, checkpoint))
    del whole["checkpoint"]
    return checkpoint, _outcomes(iter([whole]), checkpoint, None)


def _listed(page: JsonObject) -> Iterator[Any]:
    if not isinstance(page["events"], list):
        raise OpenedError("the events of the page are not a list")
    return iter(page["events"])


def _last_position(page: JsonObject, checkpoint: Checkpoint) -> int:
    """Up to where the page says that it looked. Nothing proves that, but what it shows must lie there."""
    moment = members(page["as_of"], _AS_OF, "as_of of the page")
    position, recorded_at = moment["position"], moment["recorded_at"]
    if type(position) is not int or not -1 <= position < checkpoint.size:
        raise OpenedError("the page is of a moment that its checkpoint does not reach")
    if recorded_at is not None and parse_time(recorded_at) is None:
        raise OpenedError("as_of of the page has no time")
    if page["next"] is not None:
        text_of(page["next"], "next of the page")
    return position


def _stream(file: IO[bytes]) -> Iterator[Any]:
    count = 0
    while line := file.readline(LONGEST_LINE + 1):
        found = _parsed(line, LONGEST_LINE)
        if isinstance(found, dict) and "end" in found:
            end = members(found, _END, "the last line")
            if end["end"] is not True or type(end["count"]) is not int or end["count"] != count or file.read(1):
                raise OpenedError("the last line does not tell how many events the file has")
            return
        count += 1
        yield found
    raise OpenedError("the file broke off: its last line, with the number of events, is missing")


def _outcomes(events: Iterator[Any], checkpoint: Checkpoint, last: int | None) -> Iterator[Outcome]:
    ledger_id: UUID | None = None
    seen = _Positions()
    for number, shown in enumerate(events, 1):
        try:
            proven = verify_opened(shown, checkpoint, open_disclosed)
            ledger_id = ledger_id or proven.leaf.envelope.ledger_id
            if proven.leaf.envelope.ledger_id != ledger_id:
                raise OpenedError("it is of another ledger than the events before it")
            if last is not None and proven.leaf.position > last:
                raise OpenedError("it lies behind the moment that the page is of")
            if not seen.add(proven.leaf.position):
                raise OpenedError("it stands in the file before: it happened once, and must not be counted twice")
        except OpenedError as error:
            yield Outcome(number, _stated_position(shown), None, error.detail)
        else:
            yield Outcome(number, proven.leaf.position, proven)


class _Positions:
    """Positions of events that are proven: never more memory than their lines take, wherever they lie, and little where
    they lie side by side."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def add(self, position: int) -> bool:
        """Whether it is a new one."""
        number, offset = divmod(position, _CHUNK)
        chunk = self._chunks.setdefault(number, bytearray(_CHUNK // 8))
        bit = 1 << offset % 8
        new = not chunk[offset // 8] & bit
        chunk[offset // 8] |= bit
        return new


def _stated_position(shown: Any) -> int | None:
    position = shown.get("position") if isinstance(shown, dict) else None
    return position if type(position) is int else None


def _parsed_or_none(line: bytes) -> Any:
    try:
        return parse_spelled_json(line)
    except MalformedError:
        return None


def _parsed(text: bytes, largest: int) -> Any:
    if len(text) > largest:
        raise OpenedError("the file, or a line of it, is larger than any answer of the service")
    try:
        return parse_spelled_json(text)
    except MalformedError as error:
        # Its message is about a request's body, and says where and what without repeating anything.
        raise OpenedError(error.detail.replace("the body", "the file, or a line of it,")) from None
