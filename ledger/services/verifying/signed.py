"""Check what others have signed, or were handed signed: cosignatures and receipts. What stands in their rows is sent as
it is, so one that is no signature makes a checkpoint, or a receipt, that nobody can read."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.encoding import leaf_of
from ledger.domain.events import JsonObject, RecordedEvent
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.notes import Note, NoteError, parse_note, parse_signature_lines, verify_cosignature
from ledger.domain.receipts import RECEIPT_DOMAIN, STATEMENT_DOMAIN, canonical_json
from ledger.domain.verdicts import Finding, at
from ledger.ports import StoredReceipt
from ledger.ports.evidence import CosignatureRow
from ledger.services.dependencies import Dependencies

_PAGE: Final = 500


def wrong_cosignatures(deps: Dependencies, ledger_id: UUID, last: int) -> Iterator[Finding]:
    """The rows that are no signature lines of who they are said to be by; or that are false, where the witness is one
    whose key is known; or of more events than there are."""
    after: tuple[int, str, str] | None = None
    while page := deps.store.cosignature_rows(ledger_id, after, _PAGE):
        after = (page[-1].size, page[-1].origin, page[-1].name)
        # Read afterwards: what is cosigned was committed before.
        grown = deps.store.head(ledger_id).size
        for row in page:
            why = _wrong_line(deps, row) if row.size <= grown else "there never were so many"
            if why is not None:
                where = min(max(row.size - 1, 0), last)
                yield at(where, f"a stored cosignature of {row.size} events is not what a witness has sent: {why}")


def _wrong_line(deps: Dependencies, row: CosignatureRow) -> str | None:
    try:
        (signature,) = parse_signature_lines(row.line)
        if (signature.name, signature.line) != (row.name, row.line):
            return "it is of another name"
        keys = [one.key for one in deps.witnesses.all()] if deps.witnesses is not None else []
        # Before it is published a checkpoint is cosigned, and it stays unpublished where too few have done so.
        if row.note is not None:
            note = Note(parse_note(row.note).text, (signature,))
            for key in keys:
                if signature.is_by(key) and deps.witnesses is not None:
                    verify_cosignature(note, key, deps.witnesses.verify)
    except NoteError as error:
        return error.detail
    except ValueError:
        return "it is not one line"
    return None


def wrong_receipts(
    deps: Dependencies, ledger_id: UUID, last: int, *, opening: bool, counted: int = 0
) -> Iterator[Finding]:
    """The rows that say something else than the events that they are about, or that the ledger has not signed
    (``opening``: only then is that looked at). ``counted``: of who was erased before this position the events are
    not counted again."""
    after: UUID | None = None
    key: bytes | None = None
    while page := deps.store.receipt_rows(ledger_id, after, _PAGE):
        after = page[-1][0]
        events = deps.store.find_events(ledger_id, [erasure_id for erasure_id, _ in page])
        if key is None and opening:
            key = deps.vault.verifying_key(ledger_id)
        for erasure_id, stored in page:
            event = events.get(erasure_id)
            if event is None:
                yield Finding(0, last, f"there is a stored receipt of {erasure_id}, and no such event")
            elif (why := _Receipt(deps, stored, event, key, event.position >= counted).wrong()) is not None:
                yield at(event.position, f"the stored receipt of this event is not what was handed out: {why}")


@dataclass(frozen=True, slots=True)
class _Receipt:
    """A receipt or a statement. ``key``: None where signatures are not looked at. ``counting``: whether the number of
    events is."""

    deps: Dependencies
    stored: StoredReceipt
    event: RecordedEvent
    key: bytes | None
    counting: bool

    def wrong(self) -> str | None:
        """What is wrong with it."""
        try:
            payload: JsonObject = json.loads(self.stored.payload)
            came_with: JsonObject = json.loads(self.stored.proof)
            said = (payload["position"], base64.b64decode(payload["leaf"], validate=True))
            if said != (self.event.position, leaf_of(self.event)):
                return "it says something else than the event"
            if not isinstance(came_with["proof"], dict):
                return "it has no proof"
            parse_note(came_with["checkpoint"])
            if self.counting and _is_erasure(self.event) and not self._is_counted(payload):
                return "it says another number of events than event_keys has"
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error, NoteError):
            return "it cannot be read"
        return (
            "the ledger has not signed it" if self.key is not None and not self._is_signed(self.key, payload) else None
        )

    def _is_counted(self, payload: JsonObject) -> bool:
        """From ``event_keys`` alone: what was counted beforehand may have been wrong when the receipt was made."""
        key_ids = [bytes.fromhex(key_id) for key_id in payload["key_ids"]]
        ledger_id, position = self.event.envelope.ledger_id, self.event.position
        usage = self.deps.store.key_usage(ledger_id, key_ids, beyond=position)
        return bool(payload["events"] == usage.events)

    def _is_signed(self, key: bytes, payload: JsonObject) -> bool:
        envelope = self.event.envelope
        message = STATEMENT_DOMAIN + canonical_json(payload)
        if _is_erasure(self.event):
            entry = self.deps.vault.erasure(envelope.ledger_id, envelope.event_id)
            if entry is None or entry.name_commitment is None:
                # Done again in an older copy of the vault: the commitment that was signed is nowhere any more, and the
                # receipt is signed anew before it is handed out, as far as it says what the ledger does.
                return True
            said = base64.b64encode(entry.name_commitment).decode()
            message = RECEIPT_DOMAIN + canonical_json({**payload, "name_commitment": said})
        try:
            self.deps.vault.check_signature(key, self.stored.signature, message)
        except (ValueError, TypeError):
            return False
        return True


def _is_erasure(event: RecordedEvent) -> bool:
    return (event.envelope.category, event.envelope.event_type) == (LEDGER_CATEGORY, SUBJECT_ERASED)
