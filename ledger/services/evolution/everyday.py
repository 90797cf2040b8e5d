"""Tell in a few microseconds that a value fits its schema, where the schema is of the everyday kind.

What is wrong with a value, and whether a schema that says more holds, is for jsonschema to tell; it takes ten times as
long. So a check here says "fits" or "ask jsonschema", and never "does not fit".
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import Any, Final

from ledger.domain.events import JsonObject

Check = Callable[[Any], bool]
"""True: the value fits, for certain. False: somebody else has to say whether it does."""

MANY: Final = 32
"""Items of an array, or members of an open object, that are looked at here. So the work for a value is bounded by the
schema alone."""

_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "object": frozenset({dict}),
    "array": frozenset({list}),
    "string": frozenset({str}),
    # 1.0 is an integer too, which is left to jsonschema.
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "null": frozenset({type(None)}),
}
_ALL_TYPES: Final = frozenset[type]().union(*_TYPES.values())

_MEMBERS: Final = frozenset({"properties", "additionalProperties", "required"})
_PASSED_OVER: Final = _MEMBERS | frozenset(
    {
        "type", "$schema", "$comment", "title", "description", "default", "deprecated", "readOnly", "writeOnly",
        "examples", "format",
    }
)  # fmt: skip
"""Keywords that are looked at elsewhere, or refuse nothing."""

_LIMITS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}
_LENGTHS: Final[Mapping[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "minLength": ("string", operator.ge),
    "maxLength": ("string", operator.le),
    "minItems": ("array", operator.ge),
    "maxItems": ("array", operator.le),
    "minProperties": ("object", operator.ge),
    "maxProperties": ("object", operator.le),
}


def everyday_check(schema: JsonObject, search: Callable[[str, str], bool], most_work: int) -> Check | None:
    """The check of a valid schema; None where it is not of the everyday kind: it combines or refers to subschemas, say.

    ``search``: whether a pattern is found in a text. ``most_work``: no check is given where jsonschema could take more
    than so many steps for a value: it has a budget, and what is beyond that is refused.
    """
    try:
        check = _check(schema, search)
    except _UnusualError:
        return None
    return check if _work(schema) <= most_work else None


class _UnusualError(Exception):
    """A schema says something that is not looked at here."""


def _check(schema: JsonObject | bool, search: Callable[[str, str], bool]) -> Check:
    if isinstance(schema, bool):
        return lambda _: schema
    known = schema.get("type")
    checks = [_of_types(known)] if known is not None else []
    for name, wanted in schema.items():
        if name in _PASSED_OVER or name.startswith("x-"):
            continue
        kind, check = _keyword(name, wanted, search)
        checks.append(check if kind in (known, None) else _only_for(kind, check))
    if not _MEMBERS.isdisjoint(schema):
        members = _members(schema, search)
        checks.append(members if known == "object" else _only_for("object", members))
    return reduce(_both, checks) if checks else lambda _: True


def _both(first: Check, second: Check) -> Check:
    return lambda value: first(value) and second(value)


def _of_types(names: str | Collection[str]) -> Check:
    kinds = frozenset[type]().union(*(_TYPES[name] for name in ([names] if isinstance(names, str) else names)))
    return lambda value: type(value) in kinds


def _only_for(kind: str, check: Check) -> Check:
    """What a keyword that speaks of one type says: nothing of values of the others."""
    kinds = _TYPES[kind]
    others = _ALL_TYPES - kinds

    def guarded(value: Any) -> bool:
        found = type(value)
        return check(value) if found in kinds else found in others

    return guarded


def _keyword(name: str, wanted: Any, search: Callable[[str, str], bool]) -> tuple[str | None, Check]:
    """What a keyword says, and the type that it speaks of, if it is one."""
    match name:
        case "enum":
            return None, _one_of(wanted)
        case "const":
            return None, _one_of([wanted])
        case "pattern":
            return "string", lambda value: search(wanted, value)
        case "items":
            check = _check(wanted, search)
            return "array", lambda value: len(value) <= MANY and all(map(check, value))
    if name in _LIMITS:
        compare = _LIMITS[name]
        return "number", lambda value: compare(value, wanted)
    if name in _LENGTHS:
        kind, compare = _LENGTHS[name]
        return kind, lambda value: compare(len(value), wanted)
    raise _UnusualError


def _one_of(values: Collection[Any]) -> Check:
    """Texts and null; that numbers are equal is for jsonschema to say."""
    texts = frozenset(value for value in values if value is None or isinstance(value, str))
    return lambda value: (value is None or type(value) is str) and value in texts


def _members(schema: JsonObject, search: Callable[[str, str], bool]) -> Check:
    checks = {name: _check(one, search) for name, one in schema.get("properties", {}).items()}
    additional = schema.get("additionalProperties", True)
    other = _check(additional, search)
    is_open = not isinstance(additional, bool)
    required = frozenset(schema.get("required", ()))

    def fits(value: JsonObject) -> bool:
        if not value.keys() >= required or (is_open and len(value) > MANY):
            return False
        for name, item in value.items():  # noqa: SIM110 - all() would take half as long again
            if not checks.get(name, other)(item):
                return False
        return True

    return fits


def _work(schema: JsonObject | bool) -> int:
    """The steps that jsonschema takes, at most, for a value that the check lets pass: one for each keyword, property
    and required name of every subschema, as often as that is used."""
    if isinstance(schema, bool):
        return 0
    own = len(schema) + len(schema.get("properties", ())) + len(schema.get("required", ()))
    inner = sum(_work(one) for one in schema.get("properties", {}).values())
    many = _work(schema.get("items", True)) + _work(schema.get("additionalProperties", True))
    return own + inner + MANY * many
