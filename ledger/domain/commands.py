"""Commands as values: frozen dataclasses whose fields are JSON, checked against their annotations, and as JSON.

A command is stored under the name of its class, which the aggregate knows; never under an import path. So a class can
move to another module, and nothing that is stored can make Python import something.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from ledger.domain.events import JsonObject
from ledger.domain.strict_json import value_faults
from ledger.errors import Fault, InvalidError

_WORDS: Final[dict[object, str]] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
    types.NoneType: "null",
}


def command_classes(classes: Sequence[type]) -> Mapping[str, type]:
    """The classes by their names. Raises ``TypeError`` for one that is no frozen dataclass of JSON fields, or a name
    that stands twice."""
    by_name: dict[str, type] = {}
    for one in classes:
        if not is_dataclass(one) or not one.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # no stub has it
            raise TypeError(f"the command {one.__name__} must be a frozen dataclass")
        for name, annotation in _annotations(one).items():
            if not _is_json(annotation):
                raise TypeError(
                    f"{one.__name__}.{name} must be JSON: str, int, float, bool, None, Any, list[…] or dict[str, …]"
                )
        if by_name.setdefault(one.__name__, one) is not one:
            raise TypeError(f"there are two commands of the name {one.__name__}")
    return by_name


def command_faults(command: object) -> list[Fault]:
    """What in a command's fields is not what their annotations say. Never repeats a value (I5)."""
    faults = []
    for name, annotation in _annotations(type(command)).items():
        value = getattr(command, name)
        if _fits(value, annotation):
            faults += value_faults(value, f"/{name}")
        else:
            faults.append(Fault(f"/{name}", f"must be {_wording(annotation)}"))
    return faults


def command_members(command: object) -> JsonObject:
    """The fields of a command, as JSON members."""
    return {field.name: getattr(command, field.name) for field in fields(command)}  # type: ignore[arg-type]  # see command_classes


def command_from(classes: Mapping[str, type], name: str, members: Mapping[str, Any]) -> Any:
    """The command of a name and its members. Raises ``InvalidError`` with every fault."""
    if name not in classes:
        known = ", ".join(sorted(classes))
        raise InvalidError("there is no such command", [Fault("/command", f"must be one of: {known}")])
    wanted = {field.name: field for field in fields(classes[name])}
    faults = [
        Fault(f"/{field.name}", "is required")
        for field in wanted.values()
        if field.name not in members and field.default is MISSING and field.default_factory is MISSING
    ]
    if not members.keys() <= wanted.keys():
        faults.append(Fault("", f"has an unknown field; known are: {', '.join(sorted(wanted))}"))
    if faults:
        raise InvalidError("the command is not valid", faults)
    command = classes[name](**members)
    faults = command_faults(command)
    if faults:
        raise InvalidError("the command is not valid", faults)
    return command


def _annotations(one: type) -> dict[str, Any]:
    hints = get_type_hints(one)
    return {field.name: hints[field.name] for field in fields(one)}


def _is_union(annotation: object) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _is_json(annotation: Any) -> bool:
    if _is_union(annotation):
        return all(_is_json(one) for one in get_args(annotation))
    arguments = get_args(annotation)
    match get_origin(annotation):
        case None:
            return annotation is Any or annotation in _WORDS
        case origin if origin is list:
            return _is_json(arguments[0])
        case origin if origin is dict:
            return arguments[0] is str and _is_json(arguments[1])
        case _:
            return False


def _fits(value: object, annotation: Any) -> bool:
    if annotation is Any:
        return True
    if _is_union(annotation):
        return any(_fits(value, one) for one in get_args(annotation))
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if isinstance(value, bool) or kind is bool:
        # bool is an int to Python, not to JSON.
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, int | float)
    if not isinstance(value, kind):
        return False
    if kind is list and arguments:
        return all(_fits(item, arguments[0]) for item in value)
    if kind is dict:
        return all(isinstance(key, str) and (not arguments or _fits(item, arguments[1])) for key, item in value.items())
    return True


def _wording(annotation: Any) -> str:
    if _is_union(annotation):
        return " or ".join(_wording(one) for one in get_args(annotation))
    word = _WORDS[get_origin(annotation) or annotation]
    return f"{word} of the declared kind" if get_args(annotation) else word
