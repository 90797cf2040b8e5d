"""The checked-in document is what the code says, and the answers are what the document says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.openapi import DEFAULT_FILE, openapi_text

DOCUMENT: dict[str, Any] = json.loads(Path(DEFAULT_FILE).read_text(encoding="utf-8"))
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if method != "parameters"
]


PUBLIC_BY_POLICY = ("GET /v1/ledgers/{ledger}/checkpoint", "GET /v1/ledgers/{ledger}/tile/{level}/{number}")
"""What a ledger's policy can open to everybody."""


def references(value: object) -> set[str]:
    """Every ``$ref`` in a value."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(item) for item in value.values()))
    return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def test_the_checked_in_document_is_current() -> None:
    """After a change of the contract: ``scripts/openapi``, and look at the difference."""
    assert Path(DEFAULT_FILE).read_text(encoding="utf-8") == openapi_text()


def test_it_is_openapi_3_1_and_every_reference_leads_somewhere() -> None:
    """No reader stumbles."""
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}

    assert DOCUMENT["openapi"] == "3.1.0"
    assert references(DOCUMENT) <= known


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_every_operation_documents_its_problems_and_its_key(name: str, operation: dict[str, Any]) -> None:
    """As problem documents; and what takes no key says so."""
    problems = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}

    for answer in problems.values():
        assert answer["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if "/v1/" not in name:
        assert "security" not in operation
        return
    public: list[dict[str, Any]] = [{}] if name in PUBLIC_BY_POLICY else []
    assert operation["security"] == [{"bearer": []}, *public]
    assert {"401", "500", "503"} <= problems.keys()
    assert ("403" in problems) == (name != "GET /v1/ledgers")
    if "requestBody" in operation:
        assert {"400", "413", "415", "422"} <= problems.keys()
    assert operation["summary"]
