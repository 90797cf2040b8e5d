"""Answers in JSON."""

from __future__ import annotations

from typing import Final

from flask import Response

from api.json_writing import json_bytes, json_line

__all__ = ["JSON", "NDJSON", "json_bytes", "json_line", "json_response"]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer; of bytes, which are JSON already, as they are."""
    text = value if isinstance(value, bytes) else json_bytes(value)
    return Response(text, status, mimetype=JSON)
