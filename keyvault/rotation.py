"""Rotation: a new epoch, and everything that lives wrapped under its KEK.

1. A row for epoch n+1, ``preparing``. From here on a fence notes n+1: a copy of a shredded key could come to be under
   it, even if all that follows is rolled back.
2. Its KEK, durable at the provider.
3. The journal's line ``epoch-created``.
4. One transaction: n+1 ``current``, n ``retiring``. It waits for those who mint under n and hold its row; whoever mints
   afterwards sees n+1. So the rows under n only get fewer from here on.
5. Batch by batch, keys, link keys and secrets are read, rewrapped outside of any transaction, and replaced, each only
   where the row is still the one that was read: a key that is shredded or cut meanwhile stays away (I8). A row that
   does not unwrap is left as it is. Readers that hold an old row still open it: KEK n is there until it is destroyed.
6. One transaction that holds epoch n counts what is left under n. Nothing: it is proven empty.

A crash leaves one of these states, and the next call goes on from there (I12).
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from keyvault import database, epoch_store, link_store, mark_store
from keyvault.epoch_store import EpochRow, FoundKey
from keyvault.errors import DamagedKeyError, NotInitialisedError, VaultUnavailableError
from keyvault.journal import Journal
from keyvault.keyring import Keyring
from keyvault.link_store import SIDES, FoundLink, LinkRow, Side
from keyvault.scribe import write_line
from keyvault.store import KeyRow

Found = TypeVar("Found")
New = TypeVar("New")

BATCH: Final = 500
_SCRUB_EVERY: Final = 10
_AT_ONCE: Final = 16
_PASSES: Final = 20
_PAUSE_SECONDS: Final = 0.1


class Follower(Protocol):
    """Who follows a rotation. Must not raise."""

    def begins(self, epoch: int, rows: int) -> None:
        """This many rows are to be rewrapped for this epoch."""

    def moves(self, rows: int) -> None:
        """This many more are done with."""

    def finds_damaged(self, what: str, epoch: int) -> None:
        """A row under this epoch does not unwrap, and is left as it is."""

    def goes_on(self) -> bool:
        """Whether to go on; asked between batches. What is left is done by the next rotation."""


class Quiet:
    """Satisfies :class:`Follower` for those who do not want to know."""

    def begins(self, epoch: int, rows: int) -> None:
        """Say nothing."""

    def moves(self, rows: int) -> None:
        """Say nothing."""

    def finds_damaged(self, what: str, epoch: int) -> None:
        """Say nothing."""

    def goes_on(self) -> bool:
        """Go on."""
        return True


QUIET: Final = Quiet()
_NO_MORE: Final = object()


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation has come to. ``begun``: it made the current epoch, rather than finish what was left of an earlier
    one. ``left``: epoch → rows under it that do not unwrap. ``finished`` is False when it was told to stop."""

    epoch: int
    begun: bool
    rewrapped: int
    deleted: int
    left: dict[int, int]
    finished: bool

    @property
    def damaged(self) -> int:
        """Rows that do not unwrap."""
        return sum(self.left.values())


class Each(Protocol):
    """Like ``map``."""

    def __call__(self, work: Callable[[Found], New], found: Sequence[Found], /) -> Iterable[New]:
        """The results, in order."""


@dataclass
class _Pass:
    """What is done, and what of it in the pass under way. Rows are counted, not kept: there can be a million."""

    target: int
    old: Sequence[int]
    follower: Follower
    each: Each
    rewrapped: Counter[int] = field(default_factory=Counter)
    deleted: int = 0
    damaged: Counter[int] = field(default_factory=Counter)
    number: int = 0

    def note_damaged(self, what: str, epoch: int) -> None:
        """A row is left as it is. Told once, however often it is come across."""
        self.damaged[epoch] += 1
        if self.number == 0:
            self.follower.finds_damaged(what, epoch)


def rotate(
    engine: Engine,
    keyring: Keyring,
    journal: Journal,
    clock: Callable[[], int],
    *,
    not_since: int | None = None,
    follower: Follower = QUIET,
) -> Rotation | None:
    """Finish a rotation that was interrupted, or else begin one and carry it out.

    With ``not_since`` one is begun only when the current epoch became current before that time; None when there was
    nothing to do. Raises :class:`~keyvault.errors.BusyError` while another process is at it.
    """
    with database.only_one(engine):
        row, begun = _begin(engine, keyring, clock, not_since)
        if row is None:
            return None
        if row.state == "preparing":
            _make_current(engine, keyring, journal, clock, row.epoch)
        return _rewrap(engine, keyring, clock, row.epoch, begun, follower)


def rewrap_again(engine: Engine, keyring: Keyring, clock: Callable[[], int]) -> None:
    """Steps 5 and 6 once more, for rows that were damaged and may have been mended. The caller holds ``only_one``."""
    current = database.read(engine, epoch_store.current_epoch)
    if current is None:
        raise NotInitialisedError("the vault has no current epoch; run `audit-ledger init`")
    _rewrap(engine, keyring, clock, current, False, QUIET)


def _begin(
    engine: Engine, keyring: Keyring, clock: Callable[[], int], not_since: int | None
) -> tuple[EpochRow | None, bool]:
    """Step 1. Gives the epoch that everything is to be under, and whether it is new."""
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        rows = epoch_store.all_epochs(connection)
        current = next((row for row in rows if row.state == "current"), None)
        if current is None:
            raise NotInitialisedError("the vault has no current epoch; run `audit-ledger init`")
        preparing = next((row for row in rows if row.state == "preparing"), None)
        if preparing is not None:
            return preparing, True
        if any(row.being_rewrapped for row in rows):
            return current, False
        if not_since is not None and (current.current_at or 0) >= not_since:
            return None, False
        newest = rows[-1].epoch + 1
        epoch_store.insert_epoch(connection, newest, keyring.provider.name, clock())
        return next(row for row in epoch_store.all_epochs(connection) if row.epoch == newest), True


def _make_current(engine: Engine, keyring: Keyring, journal: Journal, clock: Callable[[], int], epoch: int) -> None:
    """Steps 2 to 4."""
    keyring.provider.create(epoch)
    line = write_line(engine, keyring, journal, "epoch-created", {"epoch": epoch}, clock())
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        if epoch_store.epoch_states(connection).get(epoch) == "preparing":
            epoch_store.retire_current_epoch(connection)
            epoch_store.make_epoch_current(connection, epoch, clock())
        mark_store.note_journal(connection, line)


def _rewrap(
    engine: Engine, keyring: Keyring, clock: Callable[[], int], target: int, begun: bool, follower: Follower
) -> Rotation:
    """Steps 5 and 6. What somebody held in one pass is left for the next."""
    old, rows = database.read(engine, _to_rewrap)
    follower.begins(target, rows)
    with _several_at_once(keyring) as each:
        state = _Pass(target, old, follower, each)
        for state.number in range(_PASSES):
            state.damaged.clear()
            finished = _go_through(engine, keyring, state)
            if not finished or _prove(engine, clock, state):
                left = {epoch: state.damaged[epoch] for epoch in old if state.damaged[epoch]}
                return Rotation(target, begun, state.rewrapped.total(), state.deleted, left, finished)
            time.sleep(_PAUSE_SECONDS * state.number)
    raise VaultUnavailableError("others keep holding keys that are to be rewrapped; rotate again to finish")


@contextmanager
def _several_at_once(keyring: Keyring) -> Iterator[Each]:
    """A ``map`` for work that waits for the keeper: a service or a device is asked many things at once, or a million
    keys would take it hours. KEKs in files cost computing and no waiting."""
    if keyring.provider.place is not None:
        yield map
        return
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="audit-ledger-rewrap") as pool:
        yield pool.map


def _to_rewrap(connection: Connection) -> tuple[Sequence[int], int]:
    """The epochs that were left, and how many rows are under them."""
    database.take_long(connection)
    old = [row.epoch for row in epoch_store.all_epochs(connection) if row.state == "retiring" and not row.ordered]
    counts = epoch_store.count_rows(connection)
    return old, sum(counts.get(epoch, 0) for epoch in old)


def _go_through(engine: Engine, keyring: Keyring, state: _Pass) -> bool:
    """Step 5. False when the follower ended it."""
    if not state.old:
        return True
    _rewrap_secrets(engine, keyring, state)
    batches = [_key_batches(engine, keyring, state), *(_link_batches(engine, keyring, state, side) for side in SIDES)]
    steps = itertools.chain(*batches)
    for number in itertools.count(1):
        if not state.follower.goes_on():
            return False
        if next(steps, _NO_MORE) is _NO_MORE:
            return True
        if number % _SCRUB_EVERY == 0:
            # Readers that never all pause would let SQLite's write-ahead log grow with the number of keys.
            database.scrub(engine)
    return True


def _key_batches(engine: Engine, keyring: Keyring, state: _Pass) -> Iterator[None]:
    """Rewraps a batch of keys at each step."""
    after: Any = None
    while found := _look_long(engine, partial(epoch_store.keys_under, old=state.old, after=after, limit=BATCH)):
        _rewrap_keys(engine, keyring, state, found)
        after = found[-1].key_id
        yield


def _link_batches(engine: Engine, keyring: Keyring, state: _Pass, side: Side) -> Iterator[None]:
    """The same for the link keys of one side."""
    after = None
    look = partial(link_store.links_under, side=side, old=state.old, limit=BATCH)
    while found := _look_long(engine, partial(look, after=after)):
        _rewrap_links(engine, keyring, state, side, found)
        after = found[-1].key
        yield


def _look_long(engine: Engine, look: Callable[[Connection], Sequence[Found]]) -> Sequence[Found]:
    def work(connection: Connection) -> Sequence[Found]:
        database.take_long(connection)  # what is rewrapped already may have to be gone past
        return look(connection)

    return database.read(engine, work)


def _rewrap_secrets(engine: Engine, keyring: Keyring, state: _Pass) -> None:
    """Also the service's own signing key: the journal must not end with the KEK that it is under."""
    found = database.read(engine, lambda connection: epoch_store.secrets_under(connection, state.old))
    rewrapped = []
    for secret in found:
        try:
            if secret.row is None:
                raise DamagedKeyError("no secret has such a row")
            rewrapped.append((secret.row, keyring.rewrapped_secret(secret.row, state.target)))
        except DamagedKeyError:
            state.note_damaged(secret.title, secret.epoch)
    with database.writing(engine) as connection:
        epoch_store.rewrap_secrets(connection, rewrapped)
    state.rewrapped.update(old.epoch for old, _ in rewrapped)
    state.follower.moves(len(found))


def _rewrap_keys(engine: Engine, keyring: Keyring, state: _Pass, found: Sequence[FoundKey]) -> None:
    living = [key for key in found if not key.fenced]
    rewrapped: list[tuple[KeyRow, KeyRow]] = []
    for key, new in zip(living, state.each(lambda key: _rewrapped(keyring, key, state.target), living), strict=True):
        if key.row is None or new is None:
            state.note_damaged(key.title, key.epoch)
        else:
            rewrapped.append((key.row, new))
    with database.writing(engine) as connection:
        replaced = epoch_store.rewrap_keys(connection, rewrapped)
        deleted = epoch_store.delete_fenced(connection, [key.key_id for key in found if key.fenced])
    state.rewrapped.update(old.epoch for old in replaced)
    state.deleted += deleted
    state.follower.moves(len(found))


def _rewrap_links(engine: Engine, keyring: Keyring, state: _Pass, side: Side, found: Sequence[FoundLink]) -> None:
    needed = [link for link in found if not link.dead]
    rewrapped: list[tuple[LinkRow, LinkRow]] = []
    new_rows = state.each(lambda link: _rewrapped_link(keyring, link, state.target), needed)
    for link, new in zip(needed, new_rows, strict=True):
        if link.row is None or new is None:
            state.note_damaged(link.title, link.epoch)
        else:
            rewrapped.append((link.row, new))
    with database.writing(engine) as connection:
        replaced = link_store.rewrap_links(connection, side, rewrapped)
        deleted = link_store.delete_dead(
            connection, side, [link.row for link in found if link.row is not None and link.dead]
        )
    state.rewrapped.update(old.epoch for old in replaced)
    state.deleted += deleted
    state.follower.moves(len(found))


def _rewrapped_link(keyring: Keyring, link: FoundLink, target: int) -> LinkRow | None:
    """The link key under the new epoch; None when its row is damaged."""
    if link.row is None:
        return None
    try:
        return keyring.rewrapped_link(link.row, target)
    except DamagedKeyError:
        return None


def _rewrapped(keyring: Keyring, key: FoundKey, target: int) -> KeyRow | None:
    """The key under the new epoch; None when its row is damaged."""
    if key.row is None:
        return None
    try:
        return keyring.rewrapped_key(key.row, target)
    except DamagedKeyError:
        return None


def _prove(engine: Engine, clock: Callable[[], int], state: _Pass) -> bool:
    """Step 6. False when more is left than is damaged: somebody held it."""
    with database.writing(engine) as connection:
        database.take_long(connection)
        database.lock_epochs(connection)
        rows = epoch_store.hold_retiring(connection)
        left = {epoch: epoch_store.count_under(connection, epoch) for epoch in state.old}
        if any(left[epoch] > state.damaged[epoch] for epoch in state.old):
            return False
        # Not older than any backup that is known of by now, whatever the clock of the machine that made it said.
        now = max(clock(), epoch_store.newest_backup(connection) or 0)
        for epoch in state.old:
            row = rows.get(epoch)
            if row is None:
                continue
            # A backup that is newer than the rewrap stays so when a later rotation finds nothing more to do.
            at = now if row.rewrapped_at is None or state.rewrapped[epoch] else row.rewrapped_at
            retired_at = None if left[epoch] else row.retired_at or now
            epoch_store.mark_rewrapped(connection, epoch, at=at, damaged=left[epoch], retired_at=retired_at)
        return True
