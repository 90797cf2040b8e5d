"""JSON as it is sent: UTF-8, no needless spaces, names and data unescaped."""

from __future__ import annotations

from json import JSONEncoder
from typing import Any, Final
from uuid import UUID

import orjson

from ledger.domain.events import JsonObject


def _id_text(value: object) -> str:
    """A UUID: all that is sent and Python's writer does not know."""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER: Final = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_id_text)

_PLAIN: Final = frozenset({str, bool, int, type(None)})
_LONG_FROM: Final = 1e16
_LONG_BELOW: Final = 1e-4
"""From and below these numbers Python spells a float with an exponent, and orjson not always, or in another way."""


def json_bytes(value: object) -> bytes:
    """One JSON text. Ids can stand in it as UUIDs."""
    return _ENCODER.encode(value).encode()


def json_line(value: object) -> bytes:
    """One line of NDJSON."""
    return json_bytes(value) + b"\n"


def quick_json_bytes(value: object, from_outside: list[JsonObject | None]) -> bytes:
    """The same text as ``json_bytes`` gives, in a fraction of the time.

    ``from_outside``: the objects inside the value that can hold any number. In the rest there are whole ones alone.
    """
    if not _are_plain(from_outside):
        return json_bytes(value)
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json_bytes(value)


def _are_plain(values: Any) -> bool:
    """Whether both writers spell these values alike."""
    pending: list[Any] = [values]
    for container in pending:
        for item in container.values() if type(container) is dict else container:
            kind = type(item)
            if kind is float:
                if not (_LONG_BELOW <= abs(item) < _LONG_FROM or item == 0):
                    return False
            elif kind is dict or kind is list:
                pending.append(item)
            elif kind not in _PLAIN:
                return False
    return True
