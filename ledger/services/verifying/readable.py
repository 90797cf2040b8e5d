"""Check events one by one, and say of each what is wrong: what ``verify`` means.

1. There is one row at each position, and it makes the leaf whose hash it has.
2. It was not recorded before the event in front of it.
3. No part is under a key that an earlier event has shredded.
4. Each part opens under its key; or the log says that the key is dead; or the subject is restricted.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from ledger.domain.encoding import encode_aad, key_record, leaf_of
from ledger.domain.events import RecordedEvent, Role, event_key_rows
from ledger.domain.fingerprint import fingerprint
from ledger.domain.merkle import HASH_BYTES, hash_leaf
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.query import EventFilter
from ledger.domain.verdicts import WRONG, Finding, Verdict, worst
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.chunks import SEALED, Chunk, How, KeyRegister, Keys, Shredder

_Judged = tuple[Verdict, str]


def check(deps: Dependencies, ledger_id: UUID, first: int, last: int, how: How) -> Chunk:
    """Check the rows of the positions from ``first`` to ``last``."""
    number = last - first + 1
    # More than that only where the database's own rules were taken away.
    rows = deps.store.select_events(ledger_id, EventFilter(first, last), None, 2 * number)
    register = KeyRegister(deps, ledger_id, how.opening)
    keys = register.look_up({part.key_id for event in rows for part in event.parts})
    return judge(rows, first, last, keys, how)


def judge(rows: Sequence[RecordedEvent], first: int, last: int, keys: Keys, how: How) -> Chunk:
    """The decision, without I/O."""
    findings: list[Finding] = []
    counts: Counter[Verdict] = Counter()
    hashes: list[bytes] = []
    by_position: dict[int, RecordedEvent] = {}
    for event in rows:
        if event.position in by_position:
            findings.append(_about(event, "there are several rows at this position", "tampered"))
        by_position.setdefault(event.position, event)
    before: RecordedEvent | None = None
    for position in range(first, last + 1):
        found = by_position.get(position)
        if found is None:
            findings.append(Finding(position, position, "the row is missing", "missing row"))
            counts["missing row"] += 1
            hashes.append(bytes(HASH_BYTES))
            continue
        leaf_hash = _leaf_hash(found)
        hashes.append(leaf_hash)
        verdict, what = _judge_event(found, leaf_hash, keys, how)
        counts[verdict] += 1
        if verdict in WRONG:
            findings.append(_about(found, what, verdict))
        findings += _misuse(found, keys)
        if before is not None and found.recorded_at < before.recorded_at:
            findings.append(Finding(position, position, "recorded before the event in front of it"))
        before = found
    events = [by_position[position] for position in sorted(by_position)]
    return Chunk(
        hashes,
        events[0].recorded_at if events else None,
        events[-1].recorded_at if events else None,
        [shredder for event in events if (shredder := _shredder(event)) is not None],
        fingerprint(how.key, [record for event in events for record in _records(event)]),
        counts,
        findings,
        sum(len(part.sealed) for event in events for part in event.parts),
    )


def _about(event: RecordedEvent, what: str, verdict: Verdict) -> Finding:
    return Finding(event.position, event.position, what, verdict, str(event.envelope.event_id))


def _leaf_hash(event: RecordedEvent) -> bytes:
    try:
        return hash_leaf(leaf_of(event))
    except (ValueError, OverflowError, struct.error):
        # Altered by hand to what no leaf can hold.
        return bytes(HASH_BYTES)


def _judge_event(event: RecordedEvent, leaf_hash: bytes, keys: Keys, how: How) -> _Judged:
    if leaf_hash != event.leaf_hash:
        return "tampered", "the row is not what its leaf says"
    judged = [_judge_part(event, number, keys, how) for number in range(len(event.parts))]
    verdict = worst(verdict for verdict, _ in judged)
    return verdict, next((what for said, what in judged if said == verdict), "")


def _judge_part(event: RecordedEvent, number: int, keys: Keys, how: How) -> _Judged:
    part = event.parts[number]
    if part.role not in SEALED:
        return "intact", ""
    # I9: what the log says goes first, whatever the vault holds.
    if part.key_id in keys.dead:
        return "erased", ""
    if not how.opening:
        return "intact", ""
    view = keys.views.get(part.key_id)
    if view is not None and view.status == "restricted":
        return "restricted", ""
    if view is not None and view.status == "fenced" and part.key_id in keys.said_dead:
        return "erased", ""
    if view is None or view.key is None:
        what = "the key is missing" if view is None else f"the vault says that the key is {view.status}"
        return "missing key", f"part {number}: {what}, and the ledger has no record that it was shredded"
    try:
        view.key.open(part.sealed, encode_aad(event.envelope, [(one.role, one.key_id) for one in event.parts], number))
    except ValueError:
        return "tampered", f"part {number} is not authentic under its key"
    return "intact", ""


def _misuse(event: RecordedEvent, keys: Keys) -> list[Finding]:
    """I8: no leaf after a shred uses the key."""
    for part in event.parts:
        died_at = keys.dead.get(part.key_id)
        if part.role in SEALED and died_at is not None and died_at < event.position:
            return [_about(event, f"uses a key that was shredded at position {died_at}", "erased")]
    return []


def _shredder(event: RecordedEvent) -> Shredder | None:
    envelope = event.envelope
    is_erasure = (envelope.category, envelope.event_type) == (LEDGER_CATEGORY, SUBJECT_ERASED)
    key_ids = tuple(part.key_id for part in event.parts if part.role is Role.SHREDDED)
    if not is_erasure and not key_ids:
        return None
    return Shredder(event.position, envelope.event_id, key_ids, is_erasure)


def _records(event: RecordedEvent) -> list[bytes]:
    position = event.position.to_bytes(8, "big")
    return [key_record(position, part, role, key_id) for part, role, key_id in event_key_rows(event)]
