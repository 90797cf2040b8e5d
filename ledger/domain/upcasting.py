"""From old versions of an event type to the newest: ways that are written in code, and ways that are written as steps.

A way leads from one version to the next. What it changes is how an event is *shown*; the recorded bytes stay as they
are. A way may change ``data`` and may change ``nonpersonal``, each by itself. No step and no function sees both: so no
personal data can flow into what outlives an erasure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, cast

from ledger.domain.events import JsonObject, RecordedEvent
from ledger.domain.names import RESERVED_TYPES, word_fault
from ledger.domain.strict_json import value_faults
from ledger.errors import Fault

Change = Callable[[JsonObject], JsonObject]
"""From one object to another; changes no argument. It is called only where there is an object to be seen."""

STEPS: Final = 100
"""Steps from one version to the next, at most."""

GROWTH_BYTES: Final = 2**16
"""An event may grow by this much on all its ways together, or to twice its size if that is more. Each step can double
what the one before it has given, and no limit of a page sees that: these count what is recorded."""

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_PLACEHOLDER: Final = re.compile(r"\{\{|\}\}|\{(/[^{}]*)\}|[{}]")
_POINTER_LEVELS: Final = 16
_POINTER_CHARACTERS: Final = 512
_PLACEHOLDERS: Final = 32

Path = tuple[str, ...]
Place = Literal["data", "nonpersonal"]

_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Upcast:
    """A way that is written in code: from version ``old`` of a type to version ``new``, the next one.

    ``data``, ``nonpersonal``: functions, from the shape of the one version to that of the other; None: it stays the
    same. Each gets only the one that it changes, and is not called where that is not there, or hidden.
    """

    event_type: str
    old: int
    new: int
    data: Change | None = field(default=None, kw_only=True)
    nonpersonal: Change | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Upcasters:
    """The ways in code from one version of a type to the next, by (type, version led from).

    Those of one type form one unbroken run of versions. Raises ``ValueError`` where they do not.
    """

    ways: Mapping[tuple[str, int], Upcast] = field(default_factory=dict)

    @classmethod
    def of(cls, *ways: Upcast) -> Self:
        """Put ways together. Raises ``ValueError`` for two from the same version, one that leads backwards or in a
        circle, and one that leaves out a version."""
        by_place: dict[tuple[str, int], Upcast] = {}
        for way in ways:
            name = f"the way from version {way.old} to {way.new} of {way.event_type}"
            if way.new <= way.old:
                raise ValueError(f"{name} leads backwards or in a circle; a way leads to the next version")
            if way.new != way.old + 1:
                raise ValueError(f"{name} leaves out a version; give one way from each version to the next")
            if (way.event_type, way.old) in by_place:
                raise ValueError(f"{name} is given twice")
            by_place[way.event_type, way.old] = way
        return cls(by_place)

    def __post_init__(self) -> None:
        versions: dict[str, list[int]] = {}
        for event_type, old in self.ways:
            if word_fault(event_type) is not None or event_type in RESERVED_TYPES:
                raise ValueError("a way is for what is no event type, or one of the ledger's own")
            if old < 1:
                raise ValueError(f"a way of {event_type} leads from version {old}; versions begin with 1")
            versions.setdefault(event_type, []).append(old)
        for event_type, olds in versions.items():
            gap = next((old for old in range(min(olds), max(olds)) if (event_type, old) not in self.ways), None)
            if gap is not None:
                raise ValueError(f"there is no way from version {gap} to {gap + 1} of {event_type}, but one beyond it")

    def newest(self, event_type: str) -> int | None:
        """The newest version that a way leads to; None: there is no way for this type."""
        return max((old + 1 for known, old in self.ways if known == event_type), default=None)


class GrowthError(ValueError):
    """The ways of an event would make more of it than there is room for."""


class Budget:
    """By how much an event may still grow on its ways, in bytes of JSON, roughly counted. ``recorded``: its size."""

    def __init__(self, recorded: int = 0) -> None:
        self.room = max(GROWTH_BYTES, recorded)

    @classmethod
    def of(cls, event: RecordedEvent) -> Self:
        """That of a recorded event, before its first way."""
        return cls(sum(len(part.sealed) for part in event.parts))

    def take(self, value: Any) -> None:
        """A value is taken out."""
        self.room += sum(_sizes(value))

    def put(self, value: Any) -> None:
        """A value is put in. Raises ``GrowthError`` as soon as it is too much, however much there is of it."""
        for size in _sizes(value):
            self.spend(size)

    def spend(self, size: int) -> None:
        """So many bytes are put in. Raises ``GrowthError``."""
        self.room -= size
        if self.room < 0:
            raise GrowthError("grows by too much")


def _sizes(value: Any) -> Iterator[int]:
    """The sizes of all that a value holds, one by one."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            yield 2 + 2 * len(one)
            stack.extend(one.keys())
            stack.extend(one.values())
        elif isinstance(one, list):
            yield 2 + len(one)
            stack.extend(one)
        elif isinstance(one, str):
            yield 2 + (len(one) if one.isascii() else len(one.encode(errors="surrogatepass")))
        else:
            yield len(repr(one)) if isinstance(one, int | float) else 4


@dataclass(frozen=True, slots=True)
class Move:
    """Take what is at ``source``, if it is there, and put it to ``target``. ``rename`` is a move within one object."""

    place: Place
    source: Path
    target: Path

    def apply(self, content: JsonObject, budget: Budget) -> JsonObject:
        """The content after it."""
        value = _get(content, self.source)
        if value is _ABSENT:
            return content
        rest = _without(content, self.source)
        moved = _put(rest, self.target, value)
        if moved is None:
            return content
        # Nothing but the names on its way: what is moved is as large as it was.
        budget.take({self.source[-1]: None})
        _count(budget, rest, self.target, None)
        return moved


@dataclass(frozen=True, slots=True)
class Default:
    """Put ``value`` to ``target`` unless something is there; null is something."""

    place: Place
    target: Path
    value: Any

    def apply(self, content: JsonObject, budget: Budget) -> JsonObject:
        """The content after it."""
        if _get(content, self.target) is not _ABSENT:
            return content
        filled = _put(content, self.target, self.value)
        if filled is None:
            return content
        _count(budget, content, self.target, self.value)
        return filled


@dataclass(frozen=True, slots=True)
class Drop:
    """Take away what is at ``source``."""

    place: Place
    source: Path

    def apply(self, content: JsonObject, budget: Budget) -> JsonObject:
        """The content after it."""
        value = _get(content, self.source)
        if value is _ABSENT:
            return content
        budget.take({self.source[-1]: value})
        return _without(content, self.source)


@dataclass(frozen=True, slots=True)
class Template:
    """Put a text to ``target``: of literal pieces, and of what is at some paths. If one of them holds no text, number
    or boolean, it puts nothing: half a name is no name."""

    place: Place
    target: Path
    pieces: tuple[str | Path, ...]

    def apply(self, content: JsonObject, budget: Budget) -> JsonObject:
        """The content after it."""
        texts = []
        for piece in self.pieces:
            text = piece if isinstance(piece, str) else _text(_get(content, piece))
            if text is None:
                return content
            texts.append(text)
        if sum(map(len, texts)) > budget.room:
            # Looked at before it is put together: one template can ask for the same long text many times.
            raise GrowthError("grows by too much")
        whole = "".join(texts)
        filled = _put(content, self.target, whole)
        if filled is None:
            return content
        _count(budget, content, self.target, whole)
        return filled


Step = Move | Default | Drop | Template


def parse_steps(raw: Sequence[object], pointer: str) -> tuple[list[Step], list[Fault]]:
    """Read declarative steps; gives what is wrong with them too, each fault with its place under ``pointer``."""
    if len(raw) > STEPS:
        return [], [Fault(pointer, f"must hold at most {STEPS} steps")]
    steps: list[Step] = []
    faults: list[Fault] = []
    for index, one in enumerate(raw):
        try:
            steps.append(_parse_step(one))
        except _StepError as error:
            faults.append(Fault(f"{pointer}/{index}{error.where}", error.message))
    return steps, faults


def apply_steps(
    steps: Iterable[Step], data: JsonObject | None, nonpersonal: JsonObject | None, budget: Budget
) -> tuple[JsonObject | None, JsonObject | None]:
    """Both after all steps. Changes neither, and leaves alone what a step does not find. What is hidden or absent
    (None) stays so; it is not the same as empty. Raises ``GrowthError``, and nothing else."""
    for step in steps:
        if step.place == "data":
            data = step.apply(data, budget) if data is not None else None
        else:
            nonpersonal = step.apply(nonpersonal, budget) if nonpersonal is not None else None
    return data, nonpersonal


def apply_upcast(
    way: Upcast, data: JsonObject | None, nonpersonal: JsonObject | None, budget: Budget
) -> tuple[JsonObject | None, JsonObject | None]:
    """Both after the functions of a way. Raises whatever they raise, ``ValueError`` where one gives no JSON, and
    ``GrowthError``."""
    return _changed(way.data, data, budget), _changed(way.nonpersonal, nonpersonal, budget)


def _changed(change: Change | None, before: JsonObject | None, budget: Budget) -> JsonObject | None:
    # A part that is hidden or not there has nobody's key to be sealed under: what was None stays None.
    if change is None or before is None:
        return before
    after = change(_copy(before))
    budget.take(before)
    budget.put(after)
    return checked_object(after)


def checked_object(value: object) -> JsonObject:
    """A JSON object that the ledger itself could record, in a copy of its own. Raises ``ValueError`` for anything
    else, a nesting that is too deep included."""
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    try:
        copied = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, RecursionError):
        raise ValueError("is no JSON") from None
    if copied != value or value_faults(copied, ""):
        raise ValueError("is no JSON that can be kept exactly")
    return cast(JsonObject, copied)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _get(content: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(content, dict) or key not in content:
            return _ABSENT
        content = content[key]
    return content


def _without(content: JsonObject, path: Path) -> JsonObject:
    """A copy without what is at ``path``; the object itself where nothing is there."""
    if _get(content, path) is _ABSENT:
        return content
    first, rest = path[0], path[1:]
    if not rest:
        return {key: value for key, value in content.items() if key != first}
    return {**content, first: _without(content[first], rest)}


def _put(content: JsonObject, path: Path, value: Any) -> JsonObject | None:
    """A copy with ``value`` at ``path``, missing objects made on the way; None where something else is in the way."""
    first, rest = path[0], path[1:]
    if not rest:
        return {**content, first: value}
    inner = content.get(first, {})
    if not isinstance(inner, dict):
        return None
    filled = _put(inner, rest, value)
    return None if filled is None else {**content, first: filled}


def _count(budget: Budget, content: JsonObject, path: Path, value: Any) -> None:
    """Count a value that is put at ``path`` of a content: less what is overwritten, with the objects that are made."""
    known = 0
    inner: Any = content
    while known < len(path) and isinstance(inner, dict) and path[known] in inner:
        inner = inner[path[known]]
        known += 1
    if known == len(path):
        budget.take(inner)
    for key in reversed(path[known:]):
        value = {key: value}
    budget.put(value)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


class _StepError(Exception):
    """A step cannot be read."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where
        self.message = message


_MEMBERS: Final = {
    "rename": ("from", "to"),
    "move": ("from", "to"),
    "default": ("path", "value"),
    "drop": ("path",),
    "template": ("path", "template"),
}


def _parse_step(raw: object) -> Step:
    kinds = [kind for kind in _MEMBERS if isinstance(raw, dict) and kind in raw]
    if not isinstance(raw, dict) or len(kinds) != 1 or raw.keys() - {kinds[0], "in"}:
        raise _StepError("", f"must be an object with one of {', '.join(sorted(_MEMBERS))}, and perhaps 'in' beside it")
    kind = kinds[0]
    place = raw.get("in", "data")
    if place not in ("data", "nonpersonal"):
        raise _StepError("/in", "must be 'data' or 'nonpersonal'")
    what = raw[kind]
    members = _MEMBERS[kind]
    if not isinstance(what, dict) or what.keys() != set(members):
        raise _StepError(f"/{kind}", f"must be an object with exactly {' and '.join(members)}")
    if kind == "drop":
        return Drop(place, _path(what["path"], "/drop/path"))
    if kind == "default":
        faults = value_faults(what["value"], "")
        if faults:
            raise _StepError("/default/value", faults[0].message)
        return Default(place, _path(what["path"], "/default/path"), what["value"])
    if kind == "template":
        target = _path(what["path"], "/template/path")
        return Template(place, target, _pieces(what["template"], "/template/template"))
    source, target = _path(what["from"], f"/{kind}/from"), _path(what["to"], f"/{kind}/to")
    if source == target:
        raise _StepError(f"/{kind}/to", "must be another place than 'from'")
    if kind == "rename" and source[:-1] != target[:-1]:
        raise _StepError("/rename/to", "must be in the same object as 'from'; 'move' leads elsewhere")
    return Move(place, source, target)


def _path(raw: object, where: str) -> Path:
    fault = _pointer_fault(raw)
    if fault is not None or not isinstance(raw, str):
        raise _StepError(where, fault or "must be a string")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in raw[1:].split("/"))


def _pointer_fault(raw: object) -> str | None:
    if not isinstance(raw, str) or _POINTER.fullmatch(raw) is None:
        return "must be a JSON Pointer (RFC 6901) to a member, like /address/city"
    if len(raw) > _POINTER_CHARACTERS or raw.count("/") > _POINTER_LEVELS:
        return f"must have at most {_POINTER_CHARACTERS} characters and {_POINTER_LEVELS} levels"
    return "must not contain a lone surrogate" if value_faults(raw, "") else None


def _pieces(raw: object, where: str) -> tuple[str | Path, ...]:
    if not isinstance(raw, str) or value_faults(raw, ""):
        raise _StepError(where, "must be a string, without lone surrogates")
    pieces: list[str | Path] = []
    end = 0
    for match in _PLACEHOLDER.finditer(raw):
        pieces.append(raw[end : match.start()])
        end = match.end()
        token = match.group()
        if token in ("{{", "}}"):
            pieces.append(token[0])
        elif token in ("{", "}"):
            raise _StepError(where, "has a brace without a {/pointer}; write {{ or }} for the character")
        else:
            pieces.append(_path(match.group(1), where))
    pieces.append(raw[end:])
    if sum(isinstance(piece, tuple) for piece in pieces) > _PLACEHOLDERS:
        raise _StepError(where, f"must have at most {_PLACEHOLDERS} placeholders")
    return tuple(piece for piece in pieces if piece)
