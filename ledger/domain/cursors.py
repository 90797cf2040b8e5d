"""Cursors as text: opaque, of one ledger, holding refs, positions and words (I5), and refused when made by hand."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, Final, TypeVar
from uuid import UUID

from ledger.errors import Fault, InvalidError

T = TypeVar("T")

_VERSION: Final = 1


def pack_cursor(ledger_id: UUID, kind: str, *content: Any) -> str:
    """The cursor with this content, in letters that need no escaping. The ledger is part of it: its positions and refs
    would be others in another one, and an answer from there would leave out what nobody has seen."""
    document = [_VERSION, ledger_id.hex, kind, *content]
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()


def unpack_cursor(cursor: str, read: Callable[..., T], pack: Callable[[T], str]) -> T:
    """What ``read`` makes of the content of a cursor; it may raise ``ValueError`` and the like.

    Raises ``InvalidError`` unless ``pack`` makes the very same cursor of it again. One place has one cursor: whatever
    else reads as the same was put together by hand, or was given by another ledger or by another kind of answer.
    """
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        _, _, _, *content = json.loads(text)
        value = read(*content)
        if pack(value) != cursor:
            raise ValueError("not what this version would have given here")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, binascii.Error):
        raise invalid_cursor() from None
    return value


def invalid_cursor() -> InvalidError:
    """A cursor that no answer of this kind has given in this ledger."""
    message = "must be the 'next' of an earlier answer of this ledger, unchanged; or leave it out to start again"
    return InvalidError("the cursor is not valid", [Fault("/cursor", message)])


def other_question() -> InvalidError:
    """A cursor beside a question that it was not given for."""
    fault = Fault("/cursor", "belongs to another question; send it with the question that it came from, or alone")
    return InvalidError("the cursor belongs to another question", [fault])
