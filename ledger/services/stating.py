"""What is said of an erasure after it was done: that it is final, that the name was forgotten.

1. Ledger, under the head lock: an event of the ledger's own (``ErasureFinal``, ``NameUnlinked``) in the erasure's
   stream, nonpersonal, refs only. Its id is derived from the erasure, so that it is recorded once.
2. Vault: the statement, signed with the ledger's key, with the event's position and leaf. The first one stays.

Each step can be repeated. After a crash between them, the statement says what the event says, whatever time it is then:
so no statement and no event of one erasure ever differ.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from uuid import UUID

from ledger.domain.encoding import leaf_of
from ledger.domain.erasure import ErasureEvidence
from ledger.domain.events import OPERATOR, JsonObject, RecordedEvent
from ledger.domain.merkle import hash_leaf
from ledger.domain.names import LEDGER_CATEGORY
from ledger.domain.receipts import STATEMENT_DOMAIN, STATEMENT_TYPES, canonical_json
from ledger.domain.sequence import place_events
from ledger.domain.times import parse_time
from ledger.errors import IntegrityError
from ledger.ports import ErasureEntry, Statement, StatementKind
from ledger.services.dependencies import Dependencies
from ledger.services.marking import noting_head
from ledger.services.opening import open_events
from ledger.services.own_events import seal_own_event


def make_statement(deps: Dependencies, entry: ErasureEntry, kind: StatementKind, said: JsonObject) -> None:
    """Record and sign something about an erasure, and keep it for good; both steps."""
    event = _recorded(deps, entry, kind, said)
    said = _said_by(deps, event)
    payload = {**said, "position": event.position, "leaf": base64.b64encode(leaf_of(event)).decode()}
    message = canonical_json(payload)
    signature = deps.vault.sign(entry.ledger_id, STATEMENT_DOMAIN + message)
    at = parse_time(said.get(f"{kind}_at"))
    if at is None:
        raise IntegrityError("the event of a statement does not say what it must; run `audit-ledger verify`")
    deps.vault.add_statement(entry.ledger_id, entry.erasure_id, kind, at, message.decode(), signature)


def _recorded(deps: Dependencies, entry: ErasureEntry, kind: StatementKind, said: JsonObject) -> RecordedEvent:
    """Step 1. Doing it again changes nothing."""
    ledger_id, stream = entry.ledger_id, entry.erasure_id
    (event_id,) = deps.vault.derive_ids(ledger_id, f"statement:{kind}:{entry.erasure_id.hex}", [0])
    sealed = seal_own_event(deps, ledger_id, event_id, STATEMENT_TYPES[kind], stream, said, OPERATOR)
    with deps.store.locked_head(ledger_id) as lock:
        if not lock.find_ids([event_id]):
            versions = lock.versions([stream.bytes])
            recorded, head = place_events([sealed], noting_head(deps, ledger_id, lock.head), versions, deps.clock())
            lock.write(recorded, head)
    event = deps.store.find_events(ledger_id, [event_id])[event_id]
    if event.envelope.category != LEDGER_CATEGORY or hash_leaf(leaf_of(event)) != event.leaf_hash:
        raise IntegrityError("the event of a statement is not what was recorded; run `audit-ledger verify`")
    return event


def _said_by(deps: Dependencies, event: RecordedEvent) -> JsonObject:
    (opened,) = open_events(deps, event.envelope.ledger_id, [event])
    if opened.nonpersonal is None:
        raise IntegrityError("the event of a statement cannot be read, so nothing is signed; run `audit-ledger verify`")
    return opened.nonpersonal


def statements_of(deps: Dependencies, kind: StatementKind, entries: Sequence[ErasureEntry]) -> Mapping[UUID, Statement]:
    """Erasure → what was stated of this kind; of erasures of one ledger."""
    if not entries:
        return {}
    found = deps.vault.statements(entries[0].ledger_id, [entry.erasure_id for entry in entries])
    return {
        erasure_id: statement
        for erasure_id, statements in found.items()
        for statement in statements
        if statement.kind == kind
    }


def recorded_ones(deps: Dependencies, entries: Sequence[ErasureEntry]) -> Sequence[ErasureEntry]:
    """Those that the ledger has recorded: nothing is stated of others, whatever the vault holds (I9)."""
    by_ledger: dict[UUID, list[UUID]] = {}
    for entry in entries:
        by_ledger.setdefault(entry.ledger_id, []).append(entry.erasure_id)
    events = {ledger_id: deps.store.find_events(ledger_id, ids) for ledger_id, ids in by_ledger.items()}
    evidence = {
        entry.erasure_id: ErasureEvidence(
            begun=True, done=entry.done, event=events[entry.ledger_id].get(entry.erasure_id)
        )
        for entry in entries
    }
    return [entry for entry in entries if evidence[entry.erasure_id].recorded]
