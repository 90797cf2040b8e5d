"""Compare what is kept beside the events: dead keys, roots, ends and versions of streams, tiles, and the key vault's
own record of what was erased.

Erasures go on meanwhile. So each comparison looks first at what comes later in an erasure (design §4: vault, ledger,
vault), or in one statement at both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import RecordedEvent, Role
from ledger.domain.fingerprint import MODULUS, fingerprint
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.verdicts import MOST_LISTED, Finding, Findings, at
from ledger.ports import ShreddedKey
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.published import Published, check_upper_tiles
from ledger.services.verifying.signed import wrong_cosignatures, wrong_receipts

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class BooksJob:
    """Compare all of it, for the events below ``size``.

    ``first``: the rows before it were not read again. ``compared``, ``roots``: up to where this was done earlier, and
    what the fingerprint of ``erasure_roots``, under ``key``, was up to there. ``counted``: of who was erased before
    this position the events are not counted again.
    """

    ledger_id: UUID
    first: int
    size: int
    opening: bool
    key: bytes
    compared: int = 0
    roots: int = 0
    counted: int = 0

    def work(self, deps: Dependencies) -> BooksResult:
        """Do it."""
        findings = Findings()
        last = max(self.size - 1, 0)
        for row in deps.store.strange_versions(self.ledger_id, self.compared, self.size, MOST_LISTED):
            findings.add(at(row.position, f"the stream version is {row.version}, not {row.expected}"))
        for position, what in deps.store.strange_ends(self.ledger_id, 0, self.size, MOST_LISTED):
            findings.add(at(min(max(position, 0), last), what))
        for _ in deps.store.roots_without_event(self.ledger_id, MOST_LISTED):
            findings.add(Finding(0, last, "erasure_roots has a root that belongs to no erasure"))
        for found in (_shredded_keys, _fences, _erasures):
            for finding in found(deps, self.ledger_id, last):
                findings.add(finding)
        findings.add(*check_upper_tiles(deps, self.ledger_id, last))
        # Those of what was read are looked at there.
        for finding in Published(deps, self.ledger_id, check_signatures=self.opening).wrong(-1, self.first):
            findings.add(finding)
        for size, previous, expected in deps.store.broken_chains(self.ledger_id, MOST_LISTED):
            what = f"the checkpoint of {size} events was published behind one of {previous}, and there is {expected}"
            findings.add(at(min(max(size - 1, 0), last), f"{what} in front of it: one was taken out, or put in"))
        for finding in wrong_cosignatures(deps, self.ledger_id, last):
            findings.add(finding)
        for finding in wrong_receipts(deps, self.ledger_id, last, opening=self.opening, counted=self.counted):
            findings.add(finding)
        return BooksResult(findings, self._add_up_roots(deps, findings))

    def _add_up_roots(self, deps: Dependencies, findings: Findings) -> int:
        """The fingerprint of ``erasure_roots``; the part of it that was known before must still be the same."""
        before = now = 0
        after: UUID | None = None
        while rows := deps.store.root_records(self.ledger_id, after, _PAGE):
            after = rows[-1].erasure_id
            before += fingerprint(self.key, [row.record for row in rows if row.position < self.compared])
            now += fingerprint(self.key, [row.record for row in rows if row.position < self.size])
        if before % MODULUS != self.roots:
            what = "erasure_roots is not what it was when these events were verified"
            findings.add(Finding(0, max(self.compared - 1, 0), what))
        return now % MODULUS


@dataclass(frozen=True, slots=True)
class BooksResult:
    """``roots``: the fingerprint of ``erasure_roots`` up to the size that was asked for."""

    findings: Findings
    roots: int


def _shredded_keys(deps: Dependencies, ledger_id: UUID, _last: int) -> Iterator[Finding]:
    """Every dead key has an event that says so, and a fence in the vault unless its erasure is still under way."""
    after: bytes | None = None
    while rows := deps.store.shredded_rows(ledger_id, after, _PAGE):
        after = rows[-1].key_id
        for row in rows:
            if not row.recorded:
                yield at(row.position, "shredded_keys has a key that no event shreds")
        fenced = deps.vault.fenced(ledger_id, [row.key_id for row in rows])
        open_ones = [row for row in rows if row.recorded and row.key_id not in fenced]
        yield from _without_fence(deps, ledger_id, open_ones)


def _without_fence(deps: Dependencies, ledger_id: UUID, rows: Sequence[ShreddedKey]) -> Iterator[Finding]:
    entries = {one: deps.vault.erasure(ledger_id, one) for one in {row.erasure_id for row in rows}}
    # Once more: an erasure that was done by now has set its fences before.
    fenced = deps.vault.fenced(ledger_id, [row.key_id for row in rows])
    for row in rows:
        entry = entries[row.erasure_id]
        if row.key_id not in fenced and (entry is None or entry.done):
            yield at(row.position, f"the key vault has no fence for a key that erasure {row.erasure_id} shreds here")


def _fences(deps: Dependencies, ledger_id: UUID, last: int) -> Iterator[Finding]:
    """Every fence in the vault is of a key that the ledger has shredded (that comes first), by the erasure that the
    fence names, and stands in the place of the key."""
    after: bytes | None = None
    while fences := deps.vault.fences(ledger_id, after, _PAGE):
        after = fences[-1].key_id
        key_ids = [fence.key_id for fence in fences]
        dead = deps.store.shredded_among(ledger_id, key_ids)
        # A key goes in the moment in which its fence comes, so whatever of them is still there has come back.
        returned = deps.vault.stored_keys(ledger_id, key_ids)
        others = [
            fence for fence in fences if fence.key_id in dead and dead[fence.key_id].erasure_id != fence.erasure_id
        ]
        again = deps.store.find_events(ledger_id, {fence.erasure_id for fence in others}) if others else {}
        for fence in fences:
            row = dead.get(fence.key_id)
            if row is None:
                here = deps.store.key_ends(ledger_id, [fence.key_id]) or (0, last)
                whose = f"the key vault has a fence, of erasure {fence.erasure_id}"
                yield Finding(*here, f"{whose}, for a key that the ledger never shredded")
                continue
            if fence.key_id in returned:
                yield at(row.position, "the key vault has a key again that is shredded here")
            if row.erasure_id != fence.erasure_id and not _shreds(again.get(fence.erasure_id), fence.key_id):
                whose = f"the key vault has a fence, of erasure {fence.erasure_id}"
                yield at(row.position, f"{whose}, for a key that another erasure shreds here")


def _shreds(event: RecordedEvent | None, key_id: bytes) -> bool:
    """Whether it is an erasure of this key: one in an older copy of the vault is done again, in an event of its own."""
    return (
        event is not None
        and _records(event)
        and any(part.role is Role.SHREDDED and part.key_id == key_id for part in event.parts)
    )


def _erasures(deps: Dependencies, ledger_id: UUID, last: int) -> Iterator[Finding]:
    """Every erasure that the vault has carried out is recorded."""
    after: UUID | None = None
    while entries := deps.vault.erasures(ledger_id, reference=None, done=True, after=after, limit=_PAGE):
        after = entries[-1].erasure_id
        events = deps.store.find_events(ledger_id, [entry.erasure_id for entry in entries])
        for entry in entries:
            if not _records(events.get(entry.erasure_id)):
                dead = deps.store.shredded_among(ledger_id, [key_id for key_id, _ in entry.key_ids])
                first, beyond = _where(dead.values(), last)
                what = f"the key vault has carried out erasure {entry.erasure_id}, and there is no SubjectErased of it"
                yield Finding(first, beyond, what)


def _records(event: RecordedEvent | None) -> bool:
    return event is not None and (event.envelope.category, event.envelope.event_type) == (
        LEDGER_CATEGORY,
        SUBJECT_ERASED,
    )


def _where(rows: Collection[ShreddedKey], last: int) -> tuple[int, int]:
    """Where the ledger's record of its keys says that it was."""
    positions = {row.position for row in rows}
    return (min(positions), max(positions)) if positions else (0, last)
