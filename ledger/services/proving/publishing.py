"""Publish checkpoints: signed statements of size and root, of which none ever contradicts another.

1. The head is committed, so the tree that it stands for is a beginning of every tree that is ever to come.
2. It is compared with what was signed last, by this process or another, before or after a restart: the tree must have
   that one as its beginning. A ledger that was restored from an older copy, or changed, is not published again.
3. The checkpoint is signed, and kept outside of the databases *before* anybody sees it: what left this process is
   known wherever the database was restored from.
4. Where the quorum of witnesses must have cosigned what is published, it is asked to, and without it the checkpoint
   stays unseen.
5. It is published by compare-and-swap behind the last one. Of two processes one wins, and the other gives what the
   winner has published. What it signed itself is true as well, but handed out to nobody.

A crash between any two steps leaves a signed checkpoint that nobody has seen; the next one has it as its beginning.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from ledger.domain.checkpoints import Checkpoint, parse_checkpoint
from ledger.domain.events import Head
from ledger.domain.merkle import root_of
from ledger.domain.notes import ED25519, VerifierKey, parse_note, signed_note
from ledger.domain.tiles import root_from_tiles
from ledger.errors import BusyError, DependencyError, IntegrityError
from ledger.ports import LogState, PublishedCheckpoint
from ledger.services.dependencies import Dependencies
from ledger.services.proving.tiles import store_tiles, tile_reader
from ledger.services.proving.witnessing import is_stuck, may_publish

INTERVAL: Final = 1_000_000
"""Microseconds between two checkpoints, unless somebody needs one sooner."""

_TRIES: Final = 20


class ContradictionError(IntegrityError):
    """The ledger is not the one of which a checkpoint was signed: it was restored from an older copy, or changed."""


class QuorumAwayError(DependencyError):
    """Witnesses are away without which nothing is published (``AUDIT_LEDGER_WITNESSES_AWAY=stop``)."""


def log_name(deps: Dependencies, ledger_id: UUID) -> str:
    """The origin of a ledger's checkpoints."""
    return f"{deps.origin}/{deps.store.ledger_name(ledger_id)}"


def log_key(deps: Dependencies, ledger_id: UUID) -> VerifierKey:
    """The key that a ledger's checkpoints verify under; its name is their origin."""
    return VerifierKey(log_name(deps, ledger_id), ED25519, deps.vault.verifying_key(ledger_id))


def publish(deps: Dependencies, ledger_id: UUID, *, at_least: int = 0) -> PublishedCheckpoint:
    """The newest published checkpoint.

    A ledger that has grown is published anew: once a second at most, and at once for somebody who needs a checkpoint of
    ``at_least`` so many events. Raises :class:`ContradictionError`, after an alarm, rather than to say what contradicts
    an earlier checkpoint; :class:`QuorumAwayError` where witnesses have to cosign it first and are away.
    """
    for _ in range(_TRIES):
        state, signed = _look(deps, ledger_id)
        last, head = state.last, state.head
        _require_growth(deps, ledger_id, head, last, signed)
        if last is not None and not _is_due(deps.clock(), last, head, at_least):
            return last
        if is_stuck(deps, ledger_id):
            return _without_quorum(last, at_least)
        known = [one for one in (_known(last), signed) if one is not None]
        checkpoint = _sign(deps, ledger_id, state.origin, head, known)
        if not may_publish(deps, checkpoint):
            return _without_quorum(last, at_least)
        if deps.transparency.add_checkpoint(checkpoint, after=last.size if last is not None else None):
            return checkpoint
    raise BusyError("others are publishing all the time; try again in a moment")


def _without_quorum(last: PublishedCheckpoint | None, at_least: int) -> PublishedCheckpoint:
    if last is None or last.size < at_least:
        raise QuorumAwayError("nothing newer is published before the quorum of witnesses has cosigned it; try again")
    return last


def step(deps: Dependencies, ledger_id: UUID) -> bool:
    """The worker's duty: publish a ledger that has grown. There is never more to do at once, so it gives False."""
    if deps.store.head(ledger_id).size:
        publish(deps, ledger_id)
    return False


def note_of(deps: Dependencies, checkpoint: PublishedCheckpoint) -> str:
    """A published checkpoint as it is sent: with the cosignatures that have arrived."""
    if checkpoint.cosignatures is not None:
        return checkpoint.note + checkpoint.cosignatures
    lines = deps.transparency.cosignatures(checkpoint.ledger_id, checkpoint.origin, checkpoint.size)
    return checkpoint.note + "".join(lines)


def _is_due(now: int, last: PublishedCheckpoint, head: Head, at_least: int) -> bool:
    if head.size == last.size:
        return False
    # A clock that went back must not keep a checkpoint waiting.
    return last.size < at_least or not 0 <= now - last.published_at < INTERVAL


def _known(last: PublishedCheckpoint | None) -> Checkpoint | None:
    return Checkpoint(last.origin, last.size, last.root) if last is not None else None


def _look(deps: Dependencies, ledger_id: UUID) -> tuple[LogState, Checkpoint | None]:
    """The log as the database has it, and what was signed of it last."""
    state = deps.transparency.log_state(ledger_id, deps.origin)
    signed = deps.signed.read(ledger_id, state.origin)
    if signed is not None and signed[0] > state.head.size:
        # Signed since by somebody else, of a head that was committed before; or the database is an older one.
        state = deps.transparency.log_state(ledger_id, deps.origin)
    return state, parse_checkpoint(parse_note(signed[1]).text) if signed is not None else None


def _require_growth(
    deps: Dependencies, ledger_id: UUID, head: Head, last: PublishedCheckpoint | None, signed: Checkpoint | None
) -> None:
    """What can be told without reading the tree."""
    for known in (_known(last), signed):
        if known is None:
            continue
        if known.size > head.size:
            _refuse(deps, ledger_id, head, f"it has {head.size} events, and a checkpoint of {known.size} was signed")
        if known.size == head.size and known.root != root_of(head.frontier):
            _refuse(deps, ledger_id, head, f"a checkpoint of its {head.size} events was signed with another root")
    if last is not None and signed is not None and last.size == signed.size and last.root != signed.root:
        _refuse(deps, ledger_id, head, f"two checkpoints of {last.size} events are known")


def _sign(deps: Dependencies, ledger_id: UUID, origin: str, head: Head, known: list[Checkpoint]) -> PublishedCheckpoint:
    key = VerifierKey(origin, ED25519, deps.vault.verifying_key(ledger_id))
    store_tiles(deps, ledger_id, head.size)
    root = root_of(head.frontier)
    if root_from_tiles(tile_reader(deps, ledger_id, head.size, fresh=True), head.size) != root:
        _refuse(deps, ledger_id, head, "its events, or the stored tiles, are not those that its tree was built from")
    for one in known:
        if root_from_tiles(tile_reader(deps, ledger_id, one.size, fresh=True), one.size) != one.root:
            _refuse(deps, ledger_id, head, f"its first {one.size} events are not those of which one was signed")
    text = Checkpoint(key.name, head.size, root).text
    note = str(signed_note(text, key, deps.vault.sign(ledger_id, text.encode())))
    deps.signed.keep(ledger_id, key.name, head.size, note)
    return PublishedCheckpoint(ledger_id, key.name, head.size, root, deps.clock(), note)


def _refuse(deps: Dependencies, ledger_id: UUID, head: Head, why: str) -> None:
    deps.alarm(ledger_id, max(head.size - 1, 0), None, f"no checkpoint is published: {why}")
    raise ContradictionError(f"the ledger contradicts what was published of it: {why}; run `audit-ledger verify`")
