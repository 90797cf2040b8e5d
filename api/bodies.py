"""Read request bodies: bounded, counted, and strict about what JSON is.

The server's own ``wsgi.input`` is trusted with nothing but ``read(size)``: its ``readline`` ends early, and it shows a
body that broke off as one that ended (docs/adr/0001-wsgi-server.md).
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from flask import Request, g
from typing_extensions import override

from api.context import current_visit
from api.json_text import JSON
from api.problems import SlowDownError, UnsupportedMediaTypeError
from api.turns import Visit
from ledger.domain.intake import EVENT_BYTES
from ledger.domain.strict_json import parse_json
from ledger.errors import Fault, MalformedError, TooLargeError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BODY_BYTES: Final = EVENT_BYTES
"""What a body may be that is not a batch of events."""

_CHUNK: Final = 64 * 1024
_DRAIN_BYTES: Final = 64 * 2**20
_STRANGERS_DRAIN_BYTES: Final = 2**20


class RequestBody(io.RawIOBase):
    """The body of one request as a raw stream that counts.

    The server's input blocks, for as long as the client likes: so ``visit`` gives up its place while it is read.
    """

    def __init__(self, request: Request, visit: Visit) -> None:
        self._visit = visit
        self._input = request.environ["wsgi.input"]
        # Who waits to be asked for the body sends none with a refusal.
        self._expects = request.headers.get("Expect") is not None
        self._declared = request.content_length
        self._count = 0
        self.absent = not self._declared and request.headers.get("Transfer-Encoding") is None
        self.ended = self.absent
        """Whether there is nothing left to read."""

    @override
    def readable(self) -> bool:
        """Always."""
        return True

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes. Raises ``MalformedError`` where the body breaks off."""
        with memoryview(buffer) as view:
            data = b"" if self.ended else self._receive(len(view))
            view[: len(data)] = data
        return len(data)

    def _receive(self, size: int) -> bytes:
        with self._visit.reading():
            data: bytes = self._input.read(size)
        self._note(data)
        return data

    def _note(self, data: bytes) -> None:
        self._count += len(data)
        self.ended = not data or self._count == self._declared
        if not data and self._declared is not None and self._count < self._declared:
            raise MalformedError("the body is shorter than its Content-Length")

    def lines(self) -> BinaryIO:
        """A buffered view of the body, for reading lines; a long upload, which has to wait for its turn.

        Raises ``SlowDownError`` when none comes free.
        """
        self._visit.stay()
        self._visit.hold(self._visit.limits.uploads)
        return io.BufferedReader(self, _CHUNK)

    def read_all(self, limit: int, message: str) -> bytes:
        """The whole body. Raises ``TooLargeError`` with this message above ``limit`` bytes, without holding more, and
        ``SlowDownError`` when there is no turn for it."""
        refusal = TooLargeError(message, [Fault("", f"must be at most {limit} bytes")])
        if self._declared is not None and self._declared > limit:
            raise refusal
        if self.absent:
            return b""
        parts = []
        with self._visit.reading():
            while not self.ended:
                parts.append(part := self._input.read(_CHUNK))
                self._note(part)
                if self._count > limit:
                    raise refusal
                if self._count > BODY_BYTES:
                    # Of those that are held in memory while they come there are only so many.
                    self._visit.hold(self._visit.limits.uploads)
        return b"".join(parts)

    def drain(self, *, known_client: bool) -> None:
        """Read and forget what is left of a body that was refused or could not be worked on, up to a bound.

        A client that sends everything before it reads anything would otherwise see a broken connection and not why.
        Takes a thread of those who wait, and nothing if too many do.
        """
        bound = self._count + (_DRAIN_BYTES if known_client else _STRANGERS_DRAIN_BYTES)
        if self._expects and self._count == 0:
            return
        with suppress(SlowDownError), self._visit.reading():
            while not self.ended and self._count < bound:
                data = self._input.read(_CHUNK)
                self._count += len(data)
                self.ended = not data or self._count == self._declared


def body_of(request: Request) -> RequestBody:
    """The body of the current request; always the same object for one request."""
    if "body" not in g:
        g.body = RequestBody(request, current_visit())
    body: RequestBody = g.body
    return body


def check_media_type(request: Request, *expected: str) -> str:
    """The media type of the body. Raises ``UnsupportedMediaTypeError`` unless it is one of the expected, in UTF-8."""
    detail = f"the body must be {' or '.join(expected)}, in UTF-8 and not compressed"
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if request.mimetype not in expected or charset not in ("utf-8", "utf8") or encoding != "identity":
        raise UnsupportedMediaTypeError(detail)
    return request.mimetype


def read_json(request: Request, *, optional: bool = False) -> Any:
    """The JSON of the body; with ``optional`` no body counts as ``{}``.

    Raises ``UnsupportedMediaTypeError``, ``TooLargeError``, ``MalformedError``.
    """
    body = body_of(request)
    if optional and not request.content_type and body.absent:
        return {}
    check_media_type(request, JSON)
    text = body.read_all(BODY_BYTES, "the body is above 1 MiB")
    if optional and not text:
        return {}
    return parse_json(text)
