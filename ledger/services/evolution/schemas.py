"""JSON Schemas (Draft 2020-12) of events: which can be registered, and what an event has against one.

A schema comes over the network and runs in every append, so it can reach nothing outside itself, its patterns are
matched in linear time (RE2), and its work is bounded by the size of the event. What is wrong with an event is said with
the keyword and the place; neither a value nor a property name that the schema does not itself have (I5).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, Final, cast

import re2
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry

from ledger.domain.events import JsonObject
from ledger.errors import Fault
from ledger.services.evolution.everyday import Check, everyday_check

FAULTS: Final = 20
"""So many faults of one schema or event are reported; more help nobody."""

CHAIN: Final = 32
"""Subschemas in a row that look at the same value, at most."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_WORK: Final = 10_000
_WORK_PER_VALUE: Final = 200
_MOST_WORK: Final = 2_000_000
_ENTRIES_PER_WORK: Final = 16
_PATTERN_MEMORY: Final = 2**20

_SAME_VALUE_ONE: Final = ("not", "if", "then", "else")
_SAME_VALUE_LIST: Final = ("allOf", "anyOf", "oneOf")
_SAME_VALUE_MAP: Final = ("dependentSchemas",)
_INNER_ONE: Final = ("items", "contains", "additionalProperties", "propertyNames")
_INNER_LIST: Final = ("prefixItems",)
_INNER_MAP: Final = ("properties", "$defs")
_PLAIN: Final = (
    "$schema", "$ref", "$comment", "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum",
    "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains",
    "minContains", "maxProperties", "minProperties", "required", "dependentRequired", "format", "title", "description",
    "default", "deprecated", "readOnly", "writeOnly", "examples",
)  # fmt: skip
KEYWORDS: Final = frozenset(
    _SAME_VALUE_ONE + _SAME_VALUE_LIST + _SAME_VALUE_MAP + _INNER_ONE + _INNER_LIST + _INNER_MAP + _PLAIN
)
"""The keywords that a schema may have, beside those that begin with ``x-``. An unknown one would check nothing, and
nobody would notice."""

_REASONS: Final = {
    "patternProperties": "is not taken: name the properties, or use 'additionalProperties' and 'propertyNames'",
    "$id": "is not taken: a schema stands for itself",
    "$anchor": "is not taken: refer to '#/$defs/name'",
    "$dynamicRef": "is not taken: refer to '#/$defs/name'",
    "definitions": "is of an older draft: use '$defs'",
    # What they take is not bounded by the event: jsonschema goes through all that could have looked at the same value.
    "unevaluatedProperties": "is not taken: name the properties in one place, with 'additionalProperties'",
    "unevaluatedItems": "is not taken: say what the items are with 'prefixItems' and 'items'",
}
_TELLING: Final = frozenset(
    {
        "type", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength",
        "maxItems", "minItems", "maxProperties", "minProperties", "maxContains", "minContains",
    }
)  # fmt: skip
"""Keywords whose value, which the schema gives, says what an event should have been."""


def schema_faults(schema: JsonObject, pointer: str) -> list[Fault]:
    """What is wrong with a schema that is to be registered. Its values are known to be kept exactly, and bounded."""
    errors = islice(_METASCHEMA.iter_errors(schema), FAULTS)
    faults = [
        Fault(pointer + _path_text(error.absolute_path), f"is no valid JSON Schema (see '{error.validator}')")
        for error in errors
    ]
    return faults or _Survey(schema, pointer).faults[:FAULTS]


class _Survey:
    """Walks through a schema as the specification reads it: a *property* may well be called ``$ref``."""

    def __init__(self, schema: JsonObject, pointer: str = "") -> None:
        self.names: set[str] = set()
        self.faults: list[Fault] = []
        self._pointer = pointer
        # By the place of each subschema: those that look at the same value, and where it refers to.
        self._same_value: dict[str, set[str]] = {}
        self._refs: dict[str, str] = {}
        self._walk(schema, "")
        self._follow_refs()

    def _fault(self, where: str, message: str) -> None:
        self.faults.append(Fault(self._pointer + where, message))

    def _walk(self, schema: Any, here: str) -> None:
        same = self._same_value[here] = set()
        if not isinstance(schema, dict):
            return
        self._keywords(schema, here)
        for keywords, inner in (
            (_SAME_VALUE_ONE, _one), (_SAME_VALUE_LIST, _listed), (_SAME_VALUE_MAP, _mapped),
            (_INNER_ONE, _one), (_INNER_LIST, _listed), (_INNER_MAP, _mapped),
        ):  # fmt: skip
            for keyword in keywords:
                if keyword not in schema:
                    continue
                for place, subschema in inner(schema[keyword], f"{here}/{keyword}"):
                    if keyword in _SAME_VALUE_ONE + _SAME_VALUE_LIST + _SAME_VALUE_MAP:
                        same.add(place)
                    self._walk(subschema, place)

    def _keywords(self, schema: JsonObject, here: str) -> None:
        self.names.update(schema.get("properties", ()), schema.get("required", ()))
        for keyword in schema:
            if keyword not in KEYWORDS and not keyword.startswith("x-"):
                message = _REASONS.get(keyword, "is no keyword of Draft 2020-12 that is taken here")
                self._fault(f"{here}/{_token(keyword)}", message)
        if schema.get("$schema", DIALECT) != DIALECT:
            self._fault(f"{here}/$schema", f"must be {DIALECT}, or left out")
        if "pattern" in schema:
            try:
                compiled_pattern(schema["pattern"])
            except ValueError:
                message = "is no regular expression in the syntax of RE2 (no look-around, no back-references)"
                self._fault(f"{here}/pattern", message)
        if "$ref" in schema:
            self._refs[here] = schema["$ref"]

    def _follow_refs(self) -> None:
        for here, ref in self._refs.items():
            if ref[:1] != "#" or "%" in ref or ref[1:] not in self._same_value:
                self._fault(f"{here}/$ref", "must be '#', or '#/$defs/name' of this schema")
            else:
                self._same_value[here].add(ref[1:])
        chain: dict[str, int] = {}
        try:
            for place in TopologicalSorter(self._same_value).static_order():
                chain[place] = 1 + max((chain[inner] for inner in self._same_value.get(place, ())), default=0)
        except CycleError:
            self._fault("", "refers to itself in a circle, without going on to another value")
        if max(chain.values(), default=0) > CHAIN:
            self._fault("", f"has more than {CHAIN} subschemas in a row that look at the same value")


def _one(value: Any, here: str) -> Iterator[tuple[str, Any]]:
    yield here, value


def _listed(value: Any, here: str) -> Iterator[tuple[str, Any]]:
    yield from ((f"{here}/{index}", item) for index, item in enumerate(value))


def _mapped(value: Any, here: str) -> Iterator[tuple[str, Any]]:
    yield from ((f"{here}/{_token(name)}", item) for name, item in value.items())


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """A schema, ready to be held against events. ``names``: the property names that it has. ``everyday``: tells of most
    values that they fit, much sooner than the validator does; None where the schema is too unusual for that."""

    validator: Validator
    names: frozenset[str]
    everyday: Check | None = None
    choices: dict[int, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)
    """Of each ``enum``, by the id of its list, the texts of its values; filled when they are first needed."""

    def faults(self, value: JsonObject, pointer: str) -> list[Fault]:
        """What a value at ``pointer`` of the request has against the schema."""
        if self.everyday is not None and self.everyday(value):
            return []
        token = _running.set(_Run(min(_MOST_WORK, _WORK + _WORK_PER_VALUE * _count(value)), self.choices))
        try:
            errors = list(islice(self.validator.iter_errors(value), FAULTS))
        except (_TooMuchWorkError, RecursionError):
            return [Fault(pointer, "takes more work to check than its size allows; mend the schema of its type")]
        finally:
            _running.reset(token)
        faults = (fault for error in errors for fault in self._faults_of(error, pointer))
        return list({(fault.pointer, fault.message): fault for fault in faults}.values())[:FAULTS]

    def _faults_of(self, error: ValidationError, pointer: str) -> Iterator[Fault]:
        keyword = str(error.validator)
        where = pointer + self._known_path(error)
        details = {"keyword": keyword}
        if keyword == "required":
            given: Any = error.instance
            wanted: Any = error.validator_value
            for name in wanted:
                if name not in given:
                    yield Fault(f"{where}/{_token(name)}", "is required by the schema of its type", 0, details)
        elif keyword == "additionalProperties":
            yield Fault(where, "has a property that the schema of its type does not name", 0, details)
        else:
            limit = f": {json.dumps(error.validator_value)}" if keyword in _TELLING else ""
            yield Fault(where, f"does not fit the schema of its type ({keyword}{limit})", 0, details)

    def _known_path(self, error: ValidationError) -> str:
        """The path of an error as far as the schema has its names: the rest would be data."""
        path: list[str | int] = []
        for key in error.absolute_path:
            if isinstance(key, str) and key not in self.names:
                break
            path.append(key)
        return _path_text(path)


def compile_schema(schema: JsonObject) -> CompiledSchema:
    """A registered schema, ready to be used."""
    everyday = everyday_check(schema, _is_found, _WORK)
    return CompiledSchema(_Checker(schema, registry=Registry()), frozenset(_Survey(schema).names), everyday)


@lru_cache(maxsize=1024)
def compiled_pattern(pattern: str) -> Any:
    """A regular expression that takes linear time, whatever it says. Raises ``ValueError``."""
    options = re2.Options()
    # It would write the pattern to standard error.
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeError):
        raise ValueError("not a regular expression of RE2") from None


def _is_found(pattern: str, text: str) -> bool:
    # Bytes are searched in half the time; of a text that is not ASCII, RE2 makes them itself.
    return compiled_pattern(pattern).search(text.encode() if text.isascii() else text) is not None


class _TooMuchWorkError(Exception):
    """A schema and an event together take more work than is allowed."""


@dataclass(slots=True)
class _Run:
    """The checking of one event."""

    work: int
    """What is left of it."""
    choices: dict[int, frozenset[str]]

    def spend(self, work: int) -> None:
        self.work -= work
        if self.work < 0:
            raise _TooMuchWorkError


_running: ContextVar[_Run] = ContextVar("the checking of an event")

_Keyword = Callable[[Any, Any, Any, Any], Any]


def _counted(name: str, keyword: _Keyword) -> _Keyword:
    """The same keyword, at its price: schemas can make the work exponential in their size and in the event's depth."""

    @wraps(keyword)
    def counting(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        # A keyword goes through its own list or map, for each value anew.
        entries = len(value) if isinstance(value, dict | list) and name != "enum" else 0
        _running.get().spend(1 + entries // _ENTRIES_PER_WORK)
        return keyword(validator, value, instance, schema)

    return counting


def _enum(validator: Any, values: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """At the price of the instance, and not of the list; jsonschema compares it with every value."""
    run = _running.get()
    choices = run.choices.get(id(values))
    if choices is None:
        choices = run.choices[id(values)] = frozenset(_text(value) for value in values)
    run.spend(_count(instance) // _ENTRIES_PER_WORK)
    if _text(instance) not in choices:
        yield ValidationError("is none of the values")


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _is_found(pattern, instance):
        yield ValidationError("does not match")


def _unique_items(validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """In linear time; jsonschema compares every item with every other."""
    if wanted and validator.is_type(instance, "array"):
        _running.get().spend(_count(instance) // _ENTRIES_PER_WORK)
        seen = {_text(item) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("has an item twice")


def _text(value: Any) -> str:
    """The same text for values that are equal in JSON Schema, and for no others."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    """1.0 as 1: JSON Schema knows numbers and no types of them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_METASCHEMA: Final = Draft202012Validator(Draft202012Validator.META_SCHEMA)
_OWN: Final[dict[str, _Keyword]] = {"pattern": _pattern, "uniqueItems": _unique_items, "enum": _enum}
_KEYWORDS: Final[dict[str, _Keyword]] = {**cast(dict[str, _Keyword], Draft202012Validator.VALIDATORS), **_OWN}
_Checker: Final = extend(  # type: ignore[no-untyped-call]  # typeshed has no types for it
    Draft202012Validator, {name: _counted(name, keyword) for name, keyword in _KEYWORDS.items()}
)


def _count(value: Any) -> int:
    """How many values a value is made of."""
    if isinstance(value, dict | list):
        return 1 + sum(_count(item) for item in (value.values() if isinstance(value, dict) else value))
    return 1


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _path_text(path: Any) -> str:
    return "".join(f"/{_token(str(key))}" for key in path)
