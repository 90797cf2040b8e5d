"""The answers about types and copies have the members that the OpenAPI document promises."""

from __future__ import annotations

from marshmallow import Schema

from api.evolution_rendering import render_copy, render_type, render_types
from api.schemas import types
from ledger.domain.catalogue import EventType, Policy, policy_json
from ledger.services.evolution.copying import CopyReport


def members(schema: type[Schema]) -> set[str]:
    """What the document promises."""
    return set(schema().fields)


def test_the_answers_have_what_the_document_promises() -> None:
    """One by one."""
    versions = [EventType("T", 1), EventType("T", 2, upcast=[{"drop": {"path": "/a"}}])]
    described = render_type(versions)
    summaries = render_types({"T": versions})

    assert set(described) == members(types.EventType)
    assert set(described["versions"][1]) == members(types.TypeVersion)
    assert set(summaries) == members(types.EventTypes)
    assert set(summaries["types"][0]) == members(types.TypeSummary)
    assert set(policy_json(Policy())) == members(types.Policy) == members(types.NewPolicy)
    assert set(render_copy(CopyReport(bytes(16), 2, 1, 0, 7))) == members(types.Copy)
