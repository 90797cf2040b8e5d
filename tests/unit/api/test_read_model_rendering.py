"""Answers about read models have the members that the OpenAPI document promises."""

from __future__ import annotations

from uuid import UUID

from api.read_model_rendering import render_projections, render_read_model
from api.schemas import answers
from api.schemas import read_models as schemas
from ledger.domain.events import Redaction
from ledger.domain.projection import Projection
from ledger.domain.state import HiddenParts
from ledger.ports import Cursor, CursorKey
from ledger.services.projecting.read_models import ReadDocument, ReadModelAnswer
from ledger.services.projecting.shipped import ACTIVITY, CURRENT_STATE, DAILY_COUNTS
from ledger.services.projecting.status import ProjectionStatus

ID = UUID("0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b")
CURSOR = Cursor(CursorKey("projection", "activity", 2), 3, "stopped", 7, None, 0, 1, 0, "KeyError", 0)
ERASED = HiddenParts(Redaction("/data", bytes(16), "", "erased", 1_000_000, ID), 2, (3, 5))


def test_documents_have_what_the_document_promises() -> None:
    """Keys as refs or days, and what is hidden beside what is shown."""
    document = ReadDocument(bytes(16), "patient", 5, {"crp": 12}, 4, 1, False, (ERASED,))
    shown = render_read_model(CURRENT_STATE, ReadModelAnswer(CURSOR, [document], "next"))

    assert shown.keys() == schemas.ReadModel().fields.keys()
    assert shown["documents"][0].keys() == schemas.ReadModelDocument().fields.keys()
    assert shown["documents"][0]["redactions"][0].keys() == answers.HiddenParts().fields.keys()
    assert shown["documents"][0]["key"] == "str_" + "00" * 16


def test_documents_are_named_by_what_they_are_about() -> None:
    """A person's ref, or a day; a document that is listed under nothing says null."""

    def key_and_bucket(projection: Projection, key: bytes, bucket: str) -> tuple[str, str | None]:
        document = ReadDocument(key, bucket, 0, {}, 1, 0, True, ())
        shown = render_read_model(projection, ReadModelAnswer(CURSOR, [document], None))["documents"][0]
        return shown["key"], shown["bucket"]

    assert key_and_bucket(ACTIVITY, bytes(16), "") == ("sub_" + "00" * 16, None)
    assert key_and_bucket(DAILY_COUNTS, b"2026-03-15", "2026-03") == ("2026-03-15", "2026-03")


def test_projections_have_what_the_document_promises() -> None:
    """The lag in events and in seconds, and the class of an error."""
    shown = render_projections([ProjectionStatus(CURSOR, 4, 1_500_000, held=False, seen=True)])["projections"][0]

    assert shown.keys() == schemas.Projection().fields.keys()
    assert (shown["name"], shown["generation"], shown["version"], shown["state"]) == ("activity", 2, 3, "stopped")
    assert (shown["behind"], shown["age_seconds"], shown["held"], shown["current"]) == (4, 1.5, False, True)
    assert shown["error"] == "KeyError"
