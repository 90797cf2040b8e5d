"""From requests to schemas: strict JSON bodies and query strings, and every fault with its pointer, never its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import marshmallow as ma
from flask import Request
from typing_extensions import override
from webargs.flaskparser import FlaskParser

from api.bodies import read_json
from ledger.errors import Fault, InvalidError

_PLAINER: Final = {
    "Missing data for required field.": "is required",
    "Field may not be null.": "must not be null",
    "Invalid input type.": "must be a JSON object",
}


class StrictParser(FlaskParser):
    """Reads the arguments of a view: ``json`` (the body) and ``query`` (the URL)."""

    # None: as the schema says, which is to refuse them.
    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {"json": None, "query": None}  # noqa: RUF012 - as in the base

    @override
    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        """The body. Raises what ``read_json`` raises."""
        return read_json(req, optional=bool(getattr(schema, "body_optional", False)))

    @override
    def load_querystring(self, req: Request, schema: ma.Schema) -> Any:
        """The query parameters: text, or a list of texts where the schema has a list. Raises ``InvalidError``."""
        arguments: dict[str, Any] = {}
        faults = []
        for name, values in req.args.lists():
            if isinstance(schema.fields.get(name), ma.fields.List):
                arguments[name] = values
                continue
            arguments[name] = values[0]
            if len(values) > 1 and name in schema.fields:
                faults.append(Fault(f"/{name}", "must stand there once"))
        if faults:
            raise InvalidError("the query parameters are not valid", faults)
        return arguments

    @override
    def handle_error(
        self,
        error: ma.ValidationError,
        req: Request,
        schema: ma.Schema,
        *,
        error_status_code: int | None,
        error_headers: Mapping[str, str] | None,
    ) -> NoReturn:
        """Refuse the request with all its faults."""
        # webargs puts the messages under the place that they are about.
        (messages,) = error.messages_dict.values()
        raise InvalidError("the request is not valid", list(_faults(messages, schema)))


def _faults(messages: Mapping[Any, Any], schema: ma.Schema) -> Iterator[Fault]:
    unknown = False
    for key, value in messages.items():
        if key == ma.exceptions.SCHEMA:
            yield from (Fault("", _plainer(message)) for message in value)
        elif key in schema.fields:
            yield from _flattened(value, f"/{key}")
        else:
            unknown = True
    if unknown:
        # The field's name is not repeated: a client that puts a name where a field belongs would find it in its logs.
        known = ", ".join(sorted(schema.fields))
        yield Fault("", f"has an unknown field; known are: {known}" if known else "takes no fields")


def _flattened(value: Any, pointer: str) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(inner, f"{pointer}/{key}")
        return
    for message in value if isinstance(value, list) else [value]:
        yield Fault(pointer, _plainer(str(message)))


def _plainer(message: str) -> str:
    return _PLAINER.get(message, message)
