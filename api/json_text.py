"""JSON as it is sent: UTF-8, no needless spaces, names and data unescaped."""

from __future__ import annotations

import json
from typing import Final

from flask import Response

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


def json_bytes(value: object) -> bytes:
    """One JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def json_line(value: object) -> bytes:
    """One line of NDJSON."""
    return json_bytes(value) + b"\n"


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json_bytes(value), status, mimetype=JSON)
