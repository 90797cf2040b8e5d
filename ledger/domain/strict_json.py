"""JSON as the contract wants it: UTF-8, no duplicate keys, no NaN, nothing that loses its meaning on the way."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from ledger.errors import Fault, MalformedError

DEPTH: Final = 64
"""Levels of nesting in data, at most."""

SMALLEST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1

_WHITE_SPACE: Final = " \t\n\r"
_FAULTS: Final = 20
"""So many faults are reported; more help nobody."""


class SpelledNumber(float):
    """A number that is no integer (or ``-0``), and how it is spelled: two of them can be the same float and not the
    same number."""

    __slots__ = ("spelling",)

    def __init__(self, spelling: str) -> None:
        self.spelling: Final = spelling


def parse_json(text: bytes) -> Any:
    """Read one JSON text. Raises ``MalformedError``, whose message never repeats a part of the text."""
    return _parsed(text, _DECODER)


def parse_spelled_json(text: bytes) -> Any:
    """The same, for texts that are compared: a ``SpelledNumber`` where ``parse_json`` gives a float."""
    return _parsed(text, _SPELLED)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values of ``parse_spelled_json`` are the same, numbers as they are spelled. Python alone would take
    1, 1.0 and true for equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == set(other) and all(same_json(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, SpelledNumber):
        one, other = one.spelling, other.spelling
    return bool(one == other)


def _parsed(text: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return _decoded(text.decode("utf-8"), decoder)
    except UnicodeDecodeError as error:
        raise MalformedError(f"the body is not UTF-8 (at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise MalformedError(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise MalformedError("the body is nested too deeply") from None
    except ValueError:
        raise MalformedError("the body holds a number with too many digits") from None


def _decoded(text: str, decoder: json.JSONDecoder) -> Any:
    """What ``decoder.decode`` gives, without its regular expressions for the white space around the value."""
    value, end = decoder.raw_decode(text, len(text) - len(text.lstrip(_WHITE_SPACE)))
    if end < len(text) and text[end:].strip(_WHITE_SPACE):
        raise json.JSONDecodeError("Extra data", text, len(text) - len(text[end:].lstrip(_WHITE_SPACE)))
    return value


def value_faults(value: object, pointer: str) -> list[Fault]:
    """Say what in a parsed JSON value cannot be kept exactly: numbers out of range, lone surrogates, excessive depth.

    All faults have the pointer that is given: keys of data can be personal data, and an error never repeats any.
    """
    faults: list[Fault] = []
    _walk(value, pointer, DEPTH, faults)
    return faults


def _walk(value: object, pointer: str, levels: int, faults: list[Fault]) -> None:
    if len(faults) >= _FAULTS:
        return
    if isinstance(value, str):
        if not value.isascii() and _has_surrogate(value):
            faults.append(Fault(pointer, "must not contain a lone surrogate"))
    elif isinstance(value, dict | list):
        if levels == 0:
            faults.append(Fault(pointer, f"must be nested at most {DEPTH} levels deep"))
        else:
            _walk_inside(value, pointer, levels - 1, faults)
    elif isinstance(value, int):
        # Clients and databases agree on 64 bits; beyond that a number would be rounded on its way by somebody.
        if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            faults.append(Fault(pointer, "must be an integer of 64 bits; send a larger number as a string"))
    elif isinstance(value, float) and not math.isfinite(value):
        faults.append(Fault(pointer, "must be a number that a 64-bit float can hold"))


def _walk_inside(value: dict[str, Any] | list[Any], pointer: str, levels: int, faults: list[Fault]) -> None:
    for item in value.values() if isinstance(value, dict) else value:
        # Most of what is sent are ASCII texts, in which nothing can be wrong, and small numbers.
        kind = type(item)
        if not (item.isascii() if kind is str else kind is int and SMALLEST_INTEGER <= item <= LARGEST_INTEGER):
            _walk(item, pointer, levels, faults)
    if isinstance(value, dict) and not (keys := "".join(value)).isascii() and _has_surrogate(keys):
        faults.append(Fault(pointer, "must not contain a lone surrogate in a key"))


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise json.JSONDecodeError("an object has the same key twice", "", 0)
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise json.JSONDecodeError("NaN and Infinity are not JSON", "", 0)


def _integer(spelling: str) -> int | SpelledNumber:
    return SpelledNumber(spelling) if spelling == "-0" else int(spelling)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
_SPELLED: Final = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_constant=_refuse_constant,
    parse_float=SpelledNumber,
    parse_int=_integer,
)
