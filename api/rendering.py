"""Events, erasures and the rest as the JSON of the contract, members in its order. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from api.json_writing import json_bytes, quick_json_bytes
from ledger.domain.access import ApiKey
from ledger.domain.events import Appended, JsonObject, OpenedEvent, OpenedPart, Redaction
from ledger.domain.ids import format_ref
from ledger.domain.notes import ED25519, VerifierKey
from ledger.domain.query import Moment
from ledger.domain.state import HiddenParts
from ledger.domain.times import format_time
from ledger.ports import Pending
from ledger.services.erase import Erasure, ErasureOutcome
from ledger.services.finality import WHY_PENDING
from ledger.services.ledgers import LedgerSummary
from ledger.services.proving.answers import ProvenEvent, ProvenPage
from ledger.services.read import Page
from ledger.services.receipts import Receipt, SignedPayload
from ledger.services.subjects import SubjectSummary
from ledger.services.unlinking import WHY_LINKED, LinkState


def render_event(event: OpenedEvent) -> dict[str, Any]:
    """One event as it may be read now. Ids are left as they are: ``api.json_text`` spells them."""
    recorded = event.recorded
    envelope = recorded.envelope
    subject = event.subject
    actor = event.actor
    occurred_at = envelope.occurred_at
    return {
        "position": recorded.position,
        "id": envelope.event_id,
        "type": envelope.event_type,
        "schema_version": envelope.schema_version,
        "stream": event.stream,
        "stream_ref": format_ref("str", envelope.stream_ref),
        "stream_version": recorded.stream_version,
        "category": envelope.category,
        "recorded_at": format_time(recorded.recorded_at),
        "occurred_at": format_time(occurred_at) if occurred_at is not None else None,
        "recorded_by": recorded.recorded_by,
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.causation_id,
        "subject": subject.subject if subject is not None else None,
        "subject_ref": _subject_ref(subject.subject_ref) if subject is not None else None,
        "purpose": subject.purpose if subject is not None else None,
        "data": subject.data if subject is not None else None,
        "actor": _actor(actor) if actor is not None else None,
        "parts": [_part(part) for part in event.further] if event.further else [],
        "nonpersonal": event.nonpersonal,
        "redactions": [render_redaction(redaction) for redaction in event.redactions] if event.redactions else [],
        "shown_version": event.shown_version,
        "schema_status": event.schema_status,
    }


def event_json(event: OpenedEvent) -> bytes:
    """The JSON text of one event."""
    return quick_json_bytes(render_event(event), _said_in(event))


def proven_event_json(proven: ProvenEvent) -> bytes:
    """The JSON text of one event with its proof."""
    return quick_json_bytes(render_proven_event(proven), _said_in(proven.event))


def page_json(page: Page) -> bytes:
    """The JSON text of one page of a query."""
    return _with_events(render_page(replace(page, events=())), map(event_json, page.events))


def proven_page_json(page: ProvenPage) -> bytes:
    """The JSON text of one page of a query, with proofs."""
    return _with_events(render_proven_page(replace(page, events=())), map(proven_event_json, page.events))


def _with_events(page: dict[str, Any], events: Iterable[bytes]) -> bytes:
    """A page whose last member, its events, is empty yet; with events."""
    text = bytearray(json_bytes(page).removesuffix(b"]}"))
    separator = b""
    for event in events:
        text += separator
        text += event
        separator = b","
    return bytes(text + b"]}")


def _said_in(event: OpenedEvent) -> list[JsonObject | None]:
    """What writers have said in an event: all else in it is names, ids and numbers of our own making."""
    said = [event.nonpersonal] if event.subject is None else [event.nonpersonal, event.subject.data]
    if event.actor is not None:
        said.append(event.actor.data)
    if event.further:
        said += [part.data for part in event.further]
    return said


def _actor(part: OpenedPart) -> dict[str, Any]:
    return {"subject": part.subject, "subject_ref": _subject_ref(part.subject_ref), "data": _data(part)}


def _part(part: OpenedPart) -> dict[str, Any]:
    return {
        "subject": part.subject,
        "subject_ref": _subject_ref(part.subject_ref),
        "purpose": part.purpose,
        "data": _data(part),
    }


def _data(part: OpenedPart) -> dict[str, Any] | None:
    # Somebody without data took part all the same: {} where the part is readable, null behind a redaction.
    return part.data if part.data is not None or not part.readable else {}


def render_redaction(redaction: Redaction) -> dict[str, Any]:
    """What stands in place of a part."""
    return {
        "pointer": redaction.pointer,
        "subject_ref": _subject_ref(redaction.subject_ref),
        "purpose": redaction.purpose,
        "reason": redaction.reason,
        "at": _time(redaction.at),
        "erasure_id": _text(redaction.erasure_id),
    }


def render_moment(moment: Moment) -> dict[str, Any]:
    """What ``as_of`` resolved to."""
    return {"position": moment.position, "recorded_at": _time(moment.recorded_at)}


def render_page(page: Page) -> dict[str, Any]:
    """One page of a query."""
    return {
        "as_of": render_moment(page.as_of),
        "next": page.next,
        "events": [render_event(event) for event in page.events],
    }


def render_proven_event(proven: ProvenEvent) -> dict[str, Any]:
    """One event with its proof."""
    proof: dict[str, Any] = {
        "index": proven.event.recorded.position,
        "hashes": [_base64(node) for node in proven.hashes],
    }
    if proven.kind == "opened":
        proof["leaf"] = _base64(proven.leaf) if proven.leaf is not None else None
        proof["parts"] = [
            {"part": part.number, "sealed": _base64(part.sealed), "key": _base64(part.key)}
            for part in proven.event.disclosed
        ]
    return {**render_event(proven.event), "proof": proof}


def render_proven_page(page: ProvenPage) -> dict[str, Any]:
    """One page of a query, with proofs under one checkpoint."""
    return {
        "as_of": render_moment(page.as_of),
        "next": page.next,
        "checkpoint": page.checkpoint,
        "events": [render_proven_event(event) for event in page.events],
    }


def render_appended(appended: Appended) -> dict[str, Any]:
    """The place of one event."""
    return {
        "id": str(appended.event_id),
        "position": appended.position,
        "stream_ref": format_ref("str", appended.stream_ref),
        "stream_version": appended.stream_version,
        "recorded_at": format_time(appended.recorded_at),
    }


def render_hidden(hidden: HiddenParts) -> dict[str, Any]:
    """How many parts are hidden for one reason, and where."""
    first, last = hidden.positions
    return {
        **render_redaction(hidden.redaction),
        "events": hidden.events,
        "first_position": first,
        "last_position": last,
    }


def render_subject(subject: SubjectSummary) -> dict[str, Any]:
    """What the ledger holds of a subject."""
    return {
        "subject_ref": format_ref("sub", subject.subject_ref),
        "names": subject.names,
        "state": subject.state,
        "events": subject.events,
        "first_recorded_at": _time(subject.first_recorded_at),
        "last_recorded_at": _time(subject.last_recorded_at),
        "erased_at": _time(subject.erased_at),
        "final_at": _time(subject.final_at),
        "unlinked_at": _time(subject.unlinked_at),
    }


def render_stream(stream_ref: bytes, version: int) -> dict[str, Any]:
    """A stream's ref and version."""
    return {"stream_ref": format_ref("str", stream_ref), "stream_version": version}


def render_erasure(erasure: Erasure) -> dict[str, Any]:
    """An erasure."""
    entry = erasure.entry
    return {
        "id": str(entry.erasure_id),
        "state": erasure.state,
        "subject_ref": format_ref("sub", entry.subject_ref),
        "purposes": list(entry.purposes) if entry.purposes is not None else None,
        "ground": entry.ground,
        "reference": entry.reference,
        "requested_by": str(entry.requested_by),
        "events": erasure.events,
        "requested_at": format_time(entry.requested_at),
        "erased_at": _time(entry.erased_at),
        "final_at": _time(erasure.final.at),
        "final_pending": _pending(erasure.final.pending),
        "unlinked_at": _time(erasure.linked.unlinked_at),
        "unlink_pending": _still_linked(erasure.linked),
    }


def render_receipt(receipt: Receipt) -> dict[str, Any]:
    """A receipt."""
    return {**_signed(receipt), "statements": [_signed(statement) for statement in receipt.statements]}


def _signed(signed: SignedPayload) -> dict[str, Any]:
    return {
        "payload": signed.payload,
        "proof": signed.proof,
        "checkpoint": signed.checkpoint,
        "signature": _base64(signed.signature),
    }


def _pending(word: Pending | None) -> dict[str, str] | None:
    return {"reason": word, "detail": WHY_PENDING[word]} if word is not None else None


def _still_linked(linked: LinkState) -> dict[str, str | None] | None:
    if linked.pending is None:
        return None
    return {"reason": linked.pending, "detail": WHY_LINKED[linked.pending], "due_at": _time(linked.due_at)}


def render_outcome(outcome: ErasureOutcome) -> dict[str, Any]:
    """The answer to an erasure's order."""
    return {
        **render_erasure(outcome.erasure),
        "receipt": render_receipt(outcome.receipt),
        "name_salt": _base64(outcome.name_salt) if outcome.name_salt is not None else None,
    }


def render_ledger(summary: LedgerSummary, origin: str) -> dict[str, Any]:
    """A ledger and its head."""
    head = summary.head
    return {
        "name": summary.ledger.name,
        "id": str(summary.ledger.ledger_id),
        "size": head.size,
        "last_recorded_at": format_time(head.last_recorded_at) if head.size else None,
        "verifier_key": VerifierKey(f"{origin}/{summary.ledger.name}", ED25519, summary.verifying_key).text,
    }


def render_api_key(key: ApiKey, ledger_names: Mapping[UUID, str]) -> dict[str, Any]:
    """An API key, without its secret."""
    return {
        "id": str(key.key_id),
        "name": key.name,
        "principal": key.principal,
        "roles": sorted(role.value for role in key.roles),
        "ledger": ledger_names.get(key.ledger_id) if key.ledger_id is not None else None,
        "created_at": format_time(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "last_used_at": _time(key.last_used_at),
    }


def _time(microseconds: int | None) -> str | None:
    return format_time(microseconds) if microseconds is not None else None


def _text(identifier: UUID | None) -> str | None:
    return str(identifier) if identifier is not None else None


def _subject_ref(ref: bytes | None) -> str | None:
    return format_ref("sub", ref) if ref is not None else None


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
