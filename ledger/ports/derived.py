"""What the ledger needs of the store of derived data: all of it can be dropped and computed again from the log.

Rows hold refs, positions and sealed documents, never a name or a payload in clear (I5). Every method is one short
transaction; what it has returned from survives a crash. All raise ``StoreUnavailableError``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

CursorKind = Literal["projection", "process", "subscription", "snapshots", "verification", "key-windows"]
CursorState = Literal["building", "running", "stopped", "retired"]


@dataclass(frozen=True, slots=True)
class CursorKey:
    """Whose cursor it is. ``number``: the generation of a projection, the partition of a subscription, else 0."""

    kind: CursorKind
    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a follower of the log has come, and who moves it now.

    ``position``: of the last event that is done with; -1: none. ``holder``: who has leased it, until ``lease_until``.
    ``tries``: how often the next event has failed; it is not tried before ``retry_at``. ``error``: the class of the
    last failure and nothing more, because a message could hold somebody's data (I5). ``moved_at``: when the position
    last changed. Times in microseconds. ``version`` is that of the definition (a projection's fold), else 1.
    ``leased_to``, ``replay_to``: the last position that the holder of a partition was given, by a replay or not; -1:
    none.
    """

    key: CursorKey
    version: int
    state: CursorState
    position: int
    holder: UUID | None
    lease_until: int
    tries: int
    retry_at: int
    error: str | None
    moved_at: int
    leased_to: int = -1
    replay_to: int = -1


class Cursors(Protocol):
    """The cursors of everything that follows a log, each with a lease.

    A lease keeps two processes from doing the same work; what keeps them from harm is that every change names its
    holder and the position it moves from. A holder that was overtaken, however late it wakes up, gets
    ``LeaseLostError`` and has changed nothing.
    """

    def cursors(self, ledger_id: UUID, kind: CursorKind, name: str | None = None) -> Sequence[Cursor]:
        """The cursors of a kind, in order of name and number."""

    def add_cursor(self, ledger_id: UUID, key: CursorKey, version: int, state: CursorState, position: int) -> Cursor:
        """The cursor of this key; made, at ``position``, if it is not there yet. Where the name has one of a higher
        number, the newest is given instead: numbers that are gone do not come back."""

    def take_cursor(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        now: int,
        lease_until: int,
        *,
        leased_to: int = -1,
        replay_to: int = -1,
    ) -> Cursor | None:
        """Lease a cursor that nobody holds, whose lease is over, or that is ours already. Of several that ask at once
        exactly one gets it. None when another has it, when it is stopped or retired, or before its ``retry_at``."""

    def move_cursor(
        self, ledger_id: UUID, key: CursorKey, holder: UUID, old: int, new: int, now: int, lease_until: int
    ) -> None:
        """From ``old`` to ``new``, with no tries and no error left, and the lease prolonged. Where ``new`` is ``old``,
        only the lease is. Raises ``LeaseLostError``."""

    def release_cursor(self, ledger_id: UUID, key: CursorKey, holder: UUID) -> None:
        """Give a lease back, if it is still ours."""

    def note_failure(
        self, ledger_id: UUID, key: CursorKey, holder: UUID, position: int, error: str, *, retry_at: int, stop: bool
    ) -> Cursor:
        """Count a failure behind ``position`` and release the lease; ``stop``: nobody takes it up again before
        ``restart_cursor``. Raises ``LeaseLostError``."""

    def restart_cursor(self, ledger_id: UUID, key: CursorKey) -> bool:
        """Stopped → running (a generation that has yet to take over from an earlier one: → building), with no tries and
        no error left; False when there is no such cursor or it is not stopped."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fold of a stream up to one of its versions, sealed.

    ``fold``: name and version of the fold (``Fold.label``). ``leaf_hash``: of the event at ``position``, as the *log*
    has it; it is not stored with the snapshot, so that a snapshot fits the log that it was made from and no other.
    ``key_ids``: of all the subjects' keys that went into it, in order.
    """

    stream_ref: bytes
    fold: str
    stream_version: int
    position: int
    leaf_hash: bytes
    key_ids: tuple[bytes, ...]
    sealed: bytes


class Snapshots(Protocol):
    """The snapshots of streams."""

    def nearest_snapshots(
        self, ledger_id: UUID, fold: str, stream_refs: Collection[bytes], position: int
    ) -> Mapping[bytes, Snapshot]:
        """For each of these streams that has one: the newest at or before ``position``. One statement for all."""

    def snapshots_of(self, ledger_id: UUID, fold: str, stream_ref: bytes, position: int) -> Sequence[Snapshot]:
        """All of one stream at or before ``position``, newest first, with empty ``sealed``: what there is to choose
        from when the nearest cannot be opened."""

    def snapshot(self, ledger_id: UUID, fold: str, stream_ref: bytes, stream_version: int) -> Snapshot | None: ...

    def add_snapshots(self, ledger_id: UUID, snapshots: Sequence[Snapshot]) -> None:
        """Add snapshots; one of the same stream, fold and version is replaced."""

    def drop_snapshots(self, ledger_id: UUID, stream_refs: Collection[bytes], key_ids: Collection[bytes]) -> int:
        """Delete the snapshots of these streams into which one of these keys went. Gives how many."""

    def drop_fold(self, ledger_id: UUID, fold: str) -> int:
        """Delete all snapshots of a fold that is used no more. Gives how many."""


@dataclass(frozen=True, slots=True)
class ReadModelRow:
    """One document of a read model, sealed or (where a projection sees no personal data) in clear.

    ``key``: what it is about: a ref, or a day. ``bucket``: what it is listed under (a category, a month), in clear.
    ``position``: of the last event that went into it; ``leaf_hash`` there, as the log has it. ``key_ids``: of all the
    subjects' keys that went into it, in order. ``body``: sealed, or JSON when ``clear``. ``provisional``: something
    was hidden that may come back (restricted, unreadable), so that the document is computed anew at every read.
    """

    key: bytes
    bucket: str
    position: int
    leaf_hash: bytes
    key_ids: tuple[bytes, ...]
    body: bytes
    clear: bool
    provisional: bool


@dataclass(frozen=True, slots=True)
class ReadModelPage:
    """Documents of a projection as readers see it at one moment: the cursor of the generation that is theirs, and rows
    that hold the events up to its position, no fewer and no more."""

    cursor: Cursor
    rows: Sequence[ReadModelRow]


class ReadModels(Protocol):
    """The documents of projections. Readers see the first generation that is not retired."""

    def read_documents(self, ledger_id: UUID, name: str, keys: Collection[bytes]) -> ReadModelPage | None:
        """The documents of these keys that readers see; None when there is no such projection yet."""

    def list_documents(
        self, ledger_id: UUID, name: str, bucket: str | None, after: bytes | None, limit: int, most_bytes: int
    ) -> ReadModelPage | None:
        """The documents of a bucket (None: all) that readers see, in order of their keys, from the one after ``after``:
        at most ``limit``, and no more of them once there are ``most_bytes``, but at least one if there is one."""

    def documents(self, ledger_id: UUID, cursor: CursorKey, keys: Collection[bytes]) -> Mapping[bytes, ReadModelRow]:
        """The documents of these keys in one generation, as far as they are there: what its holder goes on from."""

    def documents_under(
        self, ledger_id: UUID, cursor: CursorKey, key_ids: Collection[bytes], limit: int, *, by_stream: bool
    ) -> Sequence[bytes]:
        """The keys of documents into which one of these subjects' keys went, in any order.

        ``by_stream``: the documents' keys are refs of streams, so only those are looked at that have events with parts
        under these keys. Otherwise all are: only for generations of few documents.
        """

    def commit_documents(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        new: int,
        now: int,
        lease_until: int,
        documents: Sequence[ReadModelRow],
    ) -> None:
        """Write documents and move the cursor, in one transaction: both or neither. Raises ``LeaseLostError``."""

    def take_over(self, ledger_id: UUID, name: str, generation: int, holder: UUID) -> bool:
        """Building → running, and every earlier generation is retired, in one transaction. False, and nothing is
        changed, while an earlier one is ahead: what readers see never goes back. Raises ``LeaseLostError``."""

    def drop_documents(self, ledger_id: UUID, cursor: CursorKey, limit: int) -> int:
        """Delete up to ``limit`` documents of a retired generation, and its cursor with the last. Gives how many."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A durable subscription. ``types`` empty: all. ``max_tries``: failures before an event is parked (or, with
    ``on_failure`` "stop", before the subscription stops). ``after``: the position that it began behind."""

    name: str
    category: str | None
    types: tuple[str, ...]
    partitions: int
    max_tries: int
    on_failure: Literal["park", "stop"]
    after: int
    created_at: int
    created_by: UUID


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """A message that was put aside: which event, not what it says; the event is opened anew when it is replayed.

    ``tries`` and ``error``: how often it has failed, and the class of its last failure; 0 and "" for one that is parked
    only because it comes after another of its stream. ``replay``: it waits to be delivered again.
    """

    position: int
    stream_ref: bytes
    tries: int
    error: str
    parked_at: int
    replay: bool


class Subscriptions(Protocol):
    """The definitions of durable subscriptions and what they have parked. Their places are ``Cursors``.

    A stream is parked as a whole, from the message that failed on, and replayed as a whole, so that it stays in order.
    Who parks or unparks holds the lease of the stream's partition; ``share`` is a range of the last byte of its refs.
    """

    def add_subscription(self, ledger_id: UUID, subscription: Subscription) -> None:
        """Add it and a cursor for each partition. Raises ``AlreadyExistsError``."""

    def subscriptions(self, ledger_id: UUID) -> Sequence[Subscription]:
        """All, in order of their names."""

    def subscription(self, ledger_id: UUID, name: str) -> Subscription | None: ...

    def remove_subscription(self, ledger_id: UUID, name: str) -> bool:
        """Remove it with its cursors and parked messages; False when there is none."""

    def pass_over(
        self,
        ledger_id: UUID,
        subscription: Subscription,
        consumer: UUID,
        moves: Sequence[tuple[int, int, int]],
        now: int,
    ) -> int:
        """Move the cursors of partitions that nobody else holds (partition, from, to): nothing in between is for them.
        One that is held or stands elsewhere by now stays where it is, as do all if this subscription is no more. Gives
        how many were moved."""

    def park(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        events: Sequence[ParkedEvent],
        new: int,
        now: int,
        lease_until: int,
    ) -> None:
        """Put events aside and move the partition's cursor, in one transaction. One that is parked already stays as it
        is; one whose stream waits for replay waits with it. Raises ``LeaseLostError``."""

    def parked(self, ledger_id: UUID, name: str, after: int, limit: int) -> Sequence[ParkedEvent]:
        """What is parked, in order of positions, from the one after ``after``."""

    def parked_counts(self, ledger_id: UUID) -> Mapping[str, int]:
        """How many messages are parked, by subscription; one that has none is absent."""

    def parked_streams(self, ledger_id: UUID, name: str, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these streams have something parked: what comes after it must be parked too, to stay in order."""

    def replay(self, ledger_id: UUID, name: str, positions: Collection[int] | None) -> int:
        """Mark parked messages (None: all), and with them all that is parked of their streams, for replay. Gives how
        many were not marked before."""

    def replaying(self, ledger_id: UUID, name: str) -> frozenset[int]:
        """The last bytes of the refs of streams that wait for replay."""

    def next_replay(self, ledger_id: UUID, name: str, share: tuple[int, int], limit: int) -> Sequence[ParkedEvent]:
        """The first messages of one stream that waits for replay, in order of positions; empty when none does."""

    def unpark(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        parked: tuple[bytes, int],
        now: int,
        lease_until: int,
    ) -> None:
        """What is parked of a stream up to a position was handled (``parked``: both), if it waited for replay; the
        cursor stays at ``old``. Raises ``LeaseLostError``."""

    def repark(
        self, ledger_id: UUID, key: CursorKey, holder: UUID, old: int, parked: tuple[bytes, int], error: str, now: int
    ) -> int:
        """A replay has failed at a message: what is parked of its stream before it was handled, and what is left waits
        no more; the lease is over. Gives how often the message has failed. Raises ``LeaseLostError``."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A process asked to be woken at ``due_at`` (microseconds). ``set_by``: the event that asked for it, with the
    ``number`` of the request among the reactions there."""

    timer_id: UUID
    process: str
    due_at: int
    set_by: UUID
    number: int


class Timers(Protocol):
    """Timers of process managers. The log says which are set: a row here only saves looking through it."""

    def set_timer(self, ledger_id: UUID, timer: Timer) -> None:
        """Set a timer. Doing it again changes nothing."""

    def due_timers(self, ledger_id: UUID, process: str, now: int, limit: int) -> Sequence[Timer]:
        """Those that are due, earliest first."""

    def put_off_timer(self, ledger_id: UUID, process: str, timer_id: UUID, due_at: int) -> None:
        """Wake the process later. A timer that is not set stays so."""

    def clear_timer(self, ledger_id: UUID, process: str, timer_id: UUID) -> None:
        """Remove a timer. Doing it again changes nothing."""


class HeldEvents(Protocol):
    """Events that a process manager has gone by, because their subjects are restricted, and is to come back to."""

    def hold_event(self, ledger_id: UUID, process: str, stream_ref: bytes, position: int) -> None:
        """Have an event wait. Doing it again changes nothing."""

    def held_streams(self, ledger_id: UUID, process: str, after: bytes, limit: int) -> Sequence[bytes]:
        """Refs of streams that have events waiting, behind ``after``, in their order."""

    def holding(self, ledger_id: UUID, process: str, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Those of these streams that have events waiting."""

    def held_events(self, ledger_id: UUID, process: str, stream_ref: bytes, limit: int) -> Sequence[int]:
        """Positions of the events of a stream that wait, in order."""

    def release_event(self, ledger_id: UUID, process: str, stream_ref: bytes, position: int) -> None:
        """An event waits no more. Doing it again changes nothing."""


@dataclass(frozen=True, slots=True)
class KeyWindow:
    """Which events at the positions from ``first`` on and below ``beyond`` have a part under a key, sealed.

    ``leaf_hash``: of the event at ``beyond - 1``, as the *log* has it; None where it has none.
    """

    key_id: bytes
    first: int
    beyond: int
    leaf_hash: bytes | None
    sealed: bytes


class KeyWindows(Protocol):
    """What saves counting the events of a key one by one. A row that is missing costs only time."""

    def key_windows(self, ledger_id: UUID, key_ids: Collection[bytes], first: int, limit: int) -> Sequence[KeyWindow]:
        """The next windows of these keys that do not begin before ``first``, in order of ``first``."""

    def key_windows_at(self, ledger_id: UUID, key_ids: Collection[bytes], first: int) -> Mapping[bytes, KeyWindow]:
        """The windows of these keys that begin at ``first``; a key without one is absent."""

    def key_windows_in(
        self, ledger_id: UUID, bounds: tuple[bytes | None, bytes | None], after: tuple[bytes, int] | None, limit: int
    ) -> Sequence[KeyWindow]:
        """The next windows in order of key_id and ``first``, whose key_id is not below the first of the bounds and is
        below the second (None: whatever it is). What a hand has put into a column and no window has there becomes
        something that fits no log."""

    def put_key_windows(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        new: int,
        windows: Sequence[KeyWindow],
        now: int,
        lease_until: int,
    ) -> None:
        """Put windows in the place of those of the same key and ``first``, and move the cursor, in one transaction.
        Raises ``LeaseLostError``."""


@dataclass(frozen=True, slots=True)
class Derived:
    """All stores of derived data."""

    cursors: Cursors
    snapshots: Snapshots
    read_models: ReadModels
    subscriptions: Subscriptions
    timers: Timers
    held_events: HeldEvents
    key_windows: KeyWindows
