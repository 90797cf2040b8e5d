"""Publish checkpoints: signed statements of size and root, of which none ever contradicts another.

1. The head is committed, so the tree that it stands for is a beginning of every tree that is ever to come.
2. It is compared with what was signed last, by this process or another, before or after a restart: the tree must have
   that one as its beginning. A ledger that was restored from an older copy, or changed, is not published again.
3. The checkpoint is signed, and takes the place of that last one outside of the databases, by compare-and-swap, and
   *before* anybody sees it. So what left a process is known wherever a database was restored from; and of two
   processes, be it on two copies of the database, one goes on, and the other looks again.
4. Where the quorum of witnesses must have cosigned what is published, it is asked to, and without it the checkpoint
   stays unseen.
5. It is published in the database, by compare-and-swap too.

A crash between any two steps leaves a signed checkpoint that nobody has seen; the next one has it as its beginning.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn
from uuid import UUID

from ledger.domain.checkpoints import Checkpoint, parse_checkpoint
from ledger.domain.events import Head
from ledger.domain.merkle import root_of
from ledger.domain.notes import ED25519, Note, NoteError, VerifierKey, parse_note, parse_signature_lines, signed_note
from ledger.domain.tiles import root_from_tiles
from ledger.errors import BusyError, DependencyError, IntegrityError
from ledger.ports import LogState, PublishedCheckpoint
from ledger.services.dependencies import Dependencies
from ledger.services.proving.tiles import store_tiles, tile_reader
from ledger.services.proving.witnessing import is_stuck, may_publish

INTERVAL: Final = 1_000_000
"""Microseconds between two checkpoints, unless somebody needs one sooner."""

UNASKED_INTERVAL: Final = 3_000_000
"""The same where nobody asks: each checkpoint waits for the disk a few times, and so do appends beside it meanwhile."""

_TRIES: Final = 20
_PATIENCE_SECONDS: Final = 15.0
"""How long who needs a new checkpoint waits for another thread that is publishing."""

_flights: defaultdict[UUID, threading.Lock] = defaultdict(threading.Lock)
"""One thread of a process publishes a ledger at a time."""

_told: dict[UUID, str] = {}
"""What the last alarm about each ledger said, so that who asks again and again raises it once."""


class ContradictionError(IntegrityError):
    """The ledger is not the one of which a checkpoint was signed: it was restored from an older copy, or changed."""


class QuorumAwayError(DependencyError):
    """Witnesses are away without which nothing is published (``AUDIT_LEDGER_WITNESSES_AWAY=stop``)."""


@dataclass(frozen=True, slots=True)
class _View:
    """A log as the database has it, and the note of what was signed of it last. ``known``: the checkpoints that the
    next one must have as its beginning."""

    state: LogState
    signed: str | None
    known: tuple[Checkpoint, ...]


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
        view = _look(deps, ledger_id)
        last = view.state.last
        if last is not None and not _is_due(deps.clock(), last, view.state.head, at_least):
            return last
        needed = last is None or last.size < at_least
        with _flight(ledger_id, wait=needed) as ours:
            if not ours and last is not None and not needed:
                return last
            published = _publish(deps, ledger_id, at_least) if ours else None
        if published is not None:
            return published
    raise BusyError("others are publishing all the time; try again in a moment")


def accept_loss(deps: Dependencies, ledger_id: UUID) -> None:
    """Go on from the last checkpoint that the database knows, where what was signed last is lost or too old. Whether
    anything newer was signed, nobody here can tell any more. Changes nothing where something newer is kept."""
    state = deps.transparency.log_state(ledger_id, deps.origin)
    note = deps.signed.read(ledger_id, state.origin)
    signed = _signed_checkpoint(deps, ledger_id, state, note)
    if state.last is not None and (signed is None or signed.size < state.last.size):
        deps.signed.keep(ledger_id, state.origin, state.last.note, after=note)


def _publish(deps: Dependencies, ledger_id: UUID, at_least: int) -> PublishedCheckpoint | None:
    """One try. None: somebody else was quicker."""
    view = _look(deps, ledger_id)
    last, head = view.state.last, view.state.head
    if last is not None and not _is_due(deps.clock(), last, head, at_least):
        return last
    if is_stuck(deps, ledger_id):
        return _without_quorum(last, at_least)
    checkpoint = _sign(deps, ledger_id, view)
    if not deps.signed.keep(ledger_id, checkpoint.origin, checkpoint.note, after=view.signed):
        return None
    _told.pop(ledger_id, None)
    if not may_publish(deps, checkpoint):
        return _without_quorum(last, at_least)
    is_first = deps.transparency.add_checkpoint(checkpoint, after=last.size if last is not None else None)
    return checkpoint if is_first else None


@contextmanager
def _flight(ledger_id: UUID, *, wait: bool) -> Iterator[bool]:
    """Whether this thread may publish the ledger now. Who waits does so for the thread that is at it."""
    lock = _flights[ledger_id]
    ours = lock.acquire(timeout=_PATIENCE_SECONDS) if wait else lock.acquire(blocking=False)
    try:
        yield ours
    finally:
        if ours:
            lock.release()


def _without_quorum(last: PublishedCheckpoint | None, at_least: int) -> PublishedCheckpoint:
    if last is None or last.size < at_least:
        raise QuorumAwayError("nothing newer is published before the quorum of witnesses has cosigned it; try again")
    return last


def step(deps: Dependencies, ledger_id: UUID) -> bool:
    """The worker's duty: publish a ledger that has grown. There is never more to do at once, so it gives False."""
    last = deps.transparency.latest_published(ledger_id, log_name(deps, ledger_id))
    rested = last is None or not 0 <= deps.clock() - last.published_at < UNASKED_INTERVAL
    if rested and deps.store.head(ledger_id).size:
        publish(deps, ledger_id)
    return False


def note_of(deps: Dependencies, checkpoint: PublishedCheckpoint) -> str:
    """A published checkpoint as it is sent: with the cosignatures that have arrived. Raises ``IntegrityError``, after
    an alarm, for one whose row was altered; a line that is no signature is left out, after an alarm."""
    ledger_id, size = checkpoint.ledger_id, checkpoint.size
    try:
        said = parse_checkpoint(parse_note(checkpoint.note).text)
    except NoteError:
        said = None
    if said != Checkpoint(checkpoint.origin, size, checkpoint.root):
        _tell(deps, ledger_id, size, f"the stored checkpoint of {size} events is not what was published")
        raise IntegrityError("a stored checkpoint was altered; run `audit-ledger verify`")
    stored = checkpoint.cosignatures
    if stored is None:
        stored = "".join(deps.transparency.cosignatures(ledger_id, checkpoint.origin, size))
    try:
        lines = stored if not stored else "".join(one.line for one in parse_signature_lines(stored))
    except NoteError:
        _tell(deps, ledger_id, size, f"a stored cosignature of {size} events is none")
        lines = "".join(filter(_is_signature, deps.transparency.cosignatures(ledger_id, checkpoint.origin, size)))
    return checkpoint.note + lines


def _is_signature(line: str) -> bool:
    try:
        return len(parse_signature_lines(line)) == 1
    except NoteError:
        return False


def _is_due(now: int, last: PublishedCheckpoint, head: Head, at_least: int) -> bool:
    if head.size == last.size:
        return False
    # A clock that went back must not keep a checkpoint waiting.
    return last.size < at_least or not 0 <= now - last.published_at < INTERVAL


def _look(deps: Dependencies, ledger_id: UUID) -> _View:
    """The log now. Raises :class:`ContradictionError` for what can be told without reading the tree."""
    state = deps.transparency.log_state(ledger_id, deps.origin)
    # Behind the database: whatever that has published was kept here before.
    note = deps.signed.read(ledger_id, state.origin)
    signed = _signed_checkpoint(deps, ledger_id, state, note)
    if state.last is not None and (signed is None or signed.size < state.last.size):
        _refuse(
            deps,
            ledger_id,
            state.head,
            f"a checkpoint of {state.last.size} was published, and the last signed one beside the journal is "
            f"{'missing' if signed is None else 'an older one'}: put the newest copy back, or, if there is none, "
            "run `audit-ledger checkpoint --accept-loss`",
        )
    if signed is not None and signed.size > state.head.size:
        # Signed since by somebody else, of a head that was committed before; or the database is an older one.
        state = deps.transparency.log_state(ledger_id, deps.origin)
    known = [signed] if signed is not None else []
    if state.last is not None and (signed is None or state.last.size <= signed.size):
        known.append(Checkpoint(state.last.origin, state.last.size, state.last.root))
    _require_growth(deps, ledger_id, state.head, known)
    return _View(state, note, tuple(dict.fromkeys(known)))


def _signed_checkpoint(deps: Dependencies, ledger_id: UUID, state: LogState, note: str | None) -> Checkpoint | None:
    """What was signed last. It is believed when it was published, too, and otherwise when it bears the signature."""
    if note is None:
        return None
    last = state.last
    if last is not None and note == last.note:
        return Checkpoint(last.origin, last.size, last.root)
    try:
        found = parse_note(note)
        checkpoint = parse_checkpoint(found.text)
    except NoteError:
        found, checkpoint = None, None
    # Ed25519 signs the same bytes the same way each time.
    if found is None or checkpoint is None or str(_signed(deps, ledger_id, state.origin, checkpoint)) != note:
        _refuse(
            deps,
            ledger_id,
            state.head,
            "what is kept beside the journal as signed last is not this log's: take it away, and put the newest copy "
            "back",
        )
    return checkpoint


def _require_growth(deps: Dependencies, ledger_id: UUID, head: Head, known: list[Checkpoint]) -> None:
    for one in known:
        if one.size > head.size:
            _refuse(deps, ledger_id, head, f"it has {head.size} events, and a checkpoint of {one.size} was signed")
        if one.size == head.size and one.root != root_of(head.frontier):
            _refuse(deps, ledger_id, head, f"a checkpoint of its {head.size} events was signed with another root")
    if len({one.root for one in known}) > len({one.size for one in known}):
        _refuse(deps, ledger_id, head, f"two checkpoints of {known[0].size} events are known")


def _sign(deps: Dependencies, ledger_id: UUID, view: _View) -> PublishedCheckpoint:
    head, last = view.state.head, view.state.last
    root = root_of(head.frontier)
    store_tiles(deps, ledger_id, head.size, since=last.size if last is not None else 0)
    if _tree_root(deps, ledger_id, head.size) != root:
        # Tiles are derived: they are made again. If that helps, somebody had altered them.
        store_tiles(deps, ledger_id, head.size, since=0)
        if _tree_root(deps, ledger_id, head.size) != root:
            _refuse(deps, ledger_id, head, "its events are not those that its tree was built from")
        _tell(deps, ledger_id, head.size, "stored tiles were not those of the events; they were made again")
    for one in view.known:
        if _tree_root(deps, ledger_id, one.size) != one.root:
            _refuse(deps, ledger_id, head, f"its first {one.size} events are not those of which one was signed")
    note = _signed(deps, ledger_id, view.state.origin, Checkpoint(view.state.origin, head.size, root))
    return PublishedCheckpoint(ledger_id, view.state.origin, head.size, root, deps.clock(), str(note))


def _signed(deps: Dependencies, ledger_id: UUID, origin: str, checkpoint: Checkpoint) -> Note:
    key = VerifierKey(origin, ED25519, deps.vault.verifying_key(ledger_id))
    return signed_note(checkpoint.text, key, deps.vault.sign(ledger_id, checkpoint.text.encode()))


def _tree_root(deps: Dependencies, ledger_id: UUID, size: int) -> bytes | None:
    """The root of the first events as tiles and leaf hashes have it; None where some are missing."""
    try:
        return root_from_tiles(tile_reader(deps, ledger_id, size, fresh=True), size)
    except IntegrityError:
        return None


def _refuse(deps: Dependencies, ledger_id: UUID, head: Head, why: str) -> NoReturn:
    _tell(deps, ledger_id, head.size, f"no checkpoint is published: {why}")
    raise ContradictionError(f"the ledger contradicts what was published of it: {why}; run `audit-ledger verify`")


def _tell(deps: Dependencies, ledger_id: UUID, size: int, what: str) -> None:
    if _told.get(ledger_id) != what:
        _told[ledger_id] = what
        deps.alarm(ledger_id, max(size - 1, 0), None, what)
