"""marshmallow fields with the rules of the domain: what a request may say, checked by the same functions everywhere.

No message repeats a value (it could be a name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from marshmallow import ValidationError, fields
from typing_extensions import override

from ledger.domain import names, times
from ledger.domain.ids import RefKind, parse_ref, parse_uuid
from ledger.domain.query import AsOf
from ledger.services.proving.answers import ProofKind

UUID_FORM = "must be a UUID in its canonical form"


class Text(fields.String):
    """A string that a function of the domain finds nothing wrong with."""

    def __init__(self, fault_of: Callable[[object], str | None], **options: Any) -> None:
        super().__init__(**options)
        self._fault_of = fault_of

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> str:
        message = self._fault_of(value)
        if message is not None:
            raise ValidationError(message)
        return str(value)


class PlainText(fields.String):
    """Any string; what reads it has rules of its own."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("must be a string")
        return value


class Name(Text):
    """The name of a subject, an actor or a stream."""

    def __init__(self, **options: Any) -> None:
        super().__init__(names.name_fault, **options)


class Ref(fields.String):
    """A ref; loaded as its 16 bytes."""

    def __init__(self, kind: RefKind, **options: Any) -> None:
        options.setdefault("metadata", {})
        options["metadata"] = {"pattern": f"^{kind}_[0-9a-f]{{32}}$", **options["metadata"]}
        super().__init__(**options)
        self._kind = kind

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        ref = parse_ref(self._kind, value)
        if ref is None:
            raise ValidationError(f"must be a ref of the form {self._kind}_ and 32 hexadecimal digits")
        return ref


class Identifier(fields.UUID):
    """A UUID in its canonical form."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> UUID:
        identifier = parse_uuid(value)
        if identifier is None:
            raise ValidationError(UUID_FORM)
        return identifier


class Time(fields.String):
    """An RFC 3339 time with an offset; loaded as microseconds since 1970 UTC."""

    def __init__(self, **options: Any) -> None:
        options["metadata"] = {"format": "date-time", **options.get("metadata", {})}
        super().__init__(**options)

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        time = times.parse_time(value)
        if time is None:
            raise ValidationError(times.FORM)
        return time


class WholeNumber(fields.Integer):
    """An integer of a range. In a body a JSON integer (and no boolean), in a URL its digits."""

    def __init__(self, smallest: int, largest: int, *, digits: bool = False, **options: Any) -> None:
        options["metadata"] = {"minimum": smallest, "maximum": largest, **options.get("metadata", {})}
        super().__init__(**options)
        self._range = (smallest, largest)
        self._digits = digits

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> int:
        smallest, largest = self._range
        number = _from_digits(value) if self._digits else value
        # bool is an int to Python, not to JSON.
        if not isinstance(number, int) or isinstance(number, bool) or not smallest <= number <= largest:
            raise ValidationError(f"must be an integer from {smallest} to {largest}")
        return number


class DaysOrNever(fields.Field[int | str]):
    """A number of whole days, or the word for never. Loaded and shown as it stands."""

    def __init__(self, largest: int, never: str, **options: Any) -> None:
        forms = [{"type": "integer", "minimum": 0, "maximum": largest}, {"type": "string", "enum": [never]}]
        options["metadata"] = {"oneOf": forms, **options.get("metadata", {})}
        super().__init__(**options)
        self._largest, self._never = largest, never

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> int | str:
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= self._largest
        if not whole and value != self._never:
            raise ValidationError(f'must be a number of whole days from 0 to {self._largest}, or "{self._never}"')
        return value  # type: ignore[no-any-return]  # one of the two


def _from_digits(value: object) -> int | None:
    if not isinstance(value, str) or len(value) > 20:
        return None
    digits = value[1:] if value.startswith("-") else value
    return int(value) if digits.isascii() and digits.isdecimal() else None


class Flag(fields.Boolean):
    """``true`` or ``false``, and nothing that merely looks like it."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class FlagText(fields.Boolean):
    """The same in a URL."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> bool:
        if value not in ("true", "false"):
            raise ValidationError("must be true or false")
        return bool(value == "true")


PROOF_WORDS: Final[Mapping[str, ProofKind | None]] = {"false": None, "true": "placed", "opened": "opened"}
"""What is asked for as ``proof`` in a URL."""


class Proof(fields.Field[Any]):
    """``false``, ``true`` or ``"opened"``; loaded as the kind of proof, or None."""

    def __init__(self, **options: Any) -> None:
        forms = [{"type": "boolean"}, {"type": "string", "enum": ["opened"]}]
        options["metadata"] = {"oneOf": forms, **options.get("metadata", {})}
        super().__init__(**options)

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        # 1 and 0 are equal to true and false for Python, not for JSON.
        if not isinstance(value, bool) and value != "opened":
            raise ValidationError('must be true, false or "opened"')
        return "opened" if value == "opened" else ("placed" if value else None)


class ProofText(fields.String):
    """The same in a URL."""

    def __init__(self, **options: Any) -> None:
        options["metadata"] = {"enum": list(PROOF_WORDS), **options.get("metadata", {})}
        super().__init__(**options)

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        if value not in PROOF_WORDS:
            raise ValidationError("must be true, false or opened")
        return PROOF_WORDS[value]


class Choice(fields.String):
    """One of a few words."""

    def __init__(self, *words: str, **options: Any) -> None:
        options["metadata"] = {"enum": list(words), **options.get("metadata", {})}
        super().__init__(**options)
        self._words = words

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> str:
        if not isinstance(value, str) or value not in self._words:
            raise ValidationError(f"must be one of: {', '.join(self._words)}")
        return value


class Items(fields.List[Any]):
    """A JSON array of so many items."""

    def __init__(self, item: fields.Field[Any], smallest: int, largest: int, **options: Any) -> None:
        options["metadata"] = {"minItems": smallest, "maxItems": largest, **options.get("metadata", {})}
        super().__init__(item, **options)
        self._range = (smallest, largest)

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any) -> list[Any]:
        smallest, largest = self._range
        if not isinstance(value, list):
            raise ValidationError("must be an array")
        if not smallest <= len(value) <= largest:
            raise ValidationError(f"must hold {smallest} to {largest} items")
        loaded: list[Any] = super()._deserialize(value, attr, data, **options)
        return loaded


class Words(fields.List[Any]):
    """Words in a URL: the parameter repeated, or one value with commas."""

    def __init__(self, fault_of: Callable[[object], str | None], largest: int, **options: Any) -> None:
        super().__init__(fields.String(), **options)
        self._fault_of = fault_of
        self._largest = largest

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> list[Any]:
        words = [word for item in value for word in str(item).split(",")]
        if len(words) > self._largest:
            raise ValidationError(f"must hold at most {self._largest} words")
        faults = {index: [message] for index, word in enumerate(words) if (message := self._fault_of(word))}
        if faults:
            raise ValidationError(next(iter(faults.values()))[0])
        return words


class MomentField(fields.Field[AsOf]):
    """``as_of`` in a body: a time, or ``{"position": n}``."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> AsOf:
        if isinstance(value, str):
            time = times.parse_time(value)
            if time is None:
                raise ValidationError(times.FORM)
            return AsOf(time=time)
        if isinstance(value, dict) and value.keys() == {"position"}:
            return _as_of_position(value["position"], "position")
        raise ValidationError('must be a time, or {"position": n}')


class MomentText(fields.String):
    """``as_of`` in a URL: a time, or the digits of a position."""

    @override
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        number = _from_digits(value)
        if number is not None:
            return _as_of_position(number, None)
        time = times.parse_time(value)
        if time is None:
            raise ValidationError(f"{times.FORM}, or a position")
        return AsOf(time=time)


def _as_of_position(value: object, member: str | None) -> AsOf:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        message = f"must be an integer from 0 to {2**63 - 1}"
        raise ValidationError({member: [message]} if member else message)
    return AsOf(position=value)
