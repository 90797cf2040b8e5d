"""Snapshots: when one is due, and what stands in it."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from ledger.domain.events import JsonObject, Redaction
from ledger.domain.fold import Folded
from ledger.domain.shapes import shapes_from_json, shapes_to_json
from ledger.domain.state import HiddenParts

EVERY: Final = 100
"""Events of a stream from one snapshot to the next. Measured: ``scripts/bench timetravel`` shows the time of a read
against it; docs/how-to/snapshots.md says what was found."""


def is_due(stream_version: int, every: int = EVERY) -> bool:
    """Whether a snapshot of this version is kept."""
    return stream_version > 0 and stream_version % every == 0


def content_of(folded: Folded) -> JsonObject:
    """What a snapshot holds, as JSON. Raises ``TypeError`` for a state that JSON would not give back as it is."""
    if not _is_json(folded.state):
        raise TypeError(
            "a fold has made a state that is not JSON: use dict with str keys, list, str, int, finite float, bool, None"
        )
    return {
        "version": folded.stream_version,
        "state": folded.state,
        "hidden": [_hidden(part) for part in folded.hidden],
        "shapes": shapes_to_json(folded.shapes),
    }


def folded_from(content: JsonObject, position: int, leaf_hash: bytes, key_ids: tuple[bytes, ...]) -> Folded:
    """What ``content_of`` was given; place and keys are what the document was bound to when it was sealed.

    Raises ``ValueError`` for one of a time when snapshots did not say by which ways their shapes had come.
    """
    return Folded(
        stream_version=content["version"],
        position=position,
        leaf_hash=leaf_hash,
        state=content["state"],
        hidden=tuple(_hidden_from(part) for part in content["hidden"]),
        key_ids=key_ids,
        shapes=shapes_from_json(content["shapes"]),
    )


def _hidden(part: HiddenParts) -> JsonObject:
    redaction = part.redaction
    return {
        "pointer": redaction.pointer,
        "subject_ref": redaction.subject_ref.hex() if redaction.subject_ref is not None else None,
        "purpose": redaction.purpose,
        "at": redaction.at,
        "erasure_id": str(redaction.erasure_id) if redaction.erasure_id is not None else None,
        "events": part.events,
        "positions": list(part.positions),
    }


def _hidden_from(part: JsonObject) -> HiddenParts:
    redaction = Redaction(
        pointer=part["pointer"],
        subject_ref=bytes.fromhex(part["subject_ref"]) if part["subject_ref"] is not None else None,
        purpose=part["purpose"],
        # Only what is final is kept (``Folded.final``).
        reason="erased",
        at=part["at"],
        erasure_id=UUID(part["erasure_id"]) if part["erasure_id"] is not None else None,
    )
    first, last = part["positions"]
    return HiddenParts(redaction, part["events"], (first, last))


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return value - value == 0
    return value is None or isinstance(value, str | int)
