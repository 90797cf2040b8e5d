"""What the ledger needs of its own database: the log, and who may use it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.domain.access import ApiKey, LedgerInfo
from ledger.domain.events import Head, RecordedEvent, Role, StreamVersions
from ledger.domain.marks import VaultMark
from ledger.domain.query import EventFilter, Place
from ledger.ports.evidence import ErasureRoots, Evidence
from ledger.ports.overview import Overview
from ledger.ports.streams import Streams


@dataclass(frozen=True, slots=True)
class Shredding:
    """The ledger's own record that a key is dead: from ``position``, recorded at ``at`` (microseconds), on."""

    position: int
    at: int
    erasure_id: UUID


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The events that have parts under some keys: how many, and the first and last position (None: no events)."""

    events: int
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class LogSurvey:
    """What the log says of what is about to be appended: which ids are ``recorded``, which keys are ``dead``, which
    streams have ended (``closed``) or were given up before they had an event (``abandoned``), and the versions of those
    that have events."""

    recorded: frozenset[UUID]
    dead: frozenset[bytes]
    closed: frozenset[bytes]
    abandoned: frozenset[bytes]
    versions: StreamVersions


class HeadLock(Protocol):
    """The head of one ledger, locked: nobody else appends to it or erases in it until the block ends."""

    @property
    def head(self) -> Head:
        """As committed by the previous holder."""

    def survey(
        self, event_ids: Collection[UUID], key_ids: Collection[bytes], stream_refs: Collection[bytes]
    ) -> LogSurvey:
        """All that an append must know, in one look."""

    def find_ids(self, event_ids: Collection[UUID]) -> frozenset[UUID]:
        """Which of these ids are recorded."""

    def versions(self, stream_refs: Collection[bytes]) -> StreamVersions:
        """The versions of these streams; one without events is absent."""

    def shredded(self, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Which of these keys are dead."""

    def abandoned(self, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these refs were given up before their stream had an event."""

    def abandon(self, stream_ref: bytes) -> None:
        """Give a ref up. The caller has seen under this lock that its stream has no event."""

    def closed(self, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these streams have ended: nothing can be appended to them any more."""

    def close(self, stream_ref: bytes, position: int) -> None:
        """End a stream with the event at ``position``, which is written in this block."""

    def write(self, events: Sequence[RecordedEvent], head: Head) -> None:
        """Add the rows of these events and their keys, and move the head."""

    def remember(self, mark: VaultMark) -> None:
        """Let the head remember this of the key vault, whatever it remembered before."""

    def shred(self, key_ids: Collection[bytes], position: int, erasure_id: UUID, root: bytes, *, before: bytes) -> None:
        """Record that these keys are dead from ``position`` on, the root of the tree that ends there, and the root of
        the tree ``before``."""


class Store(Streams, Overview, Evidence, Protocol):
    """The ledger database.

    Durability: what a call (or a block of ``locked_head``) has returned from survives a crash of process and server
    (I11). Every other method is one short read that sees all that was committed before it. Raises
    ``StoreUnavailableError`` when the database cannot be reached or does not answer in time.
    """

    def locked_head(self, ledger_id: UUID) -> AbstractContextManager[HeadLock]:
        """One transaction that holds the head lock: the only order between writers and erasers (I2).

        Committed when the block ends, rolled back when it raises. Whoever waits here waits for the holder's commit.
        """

    def add_ledger(self, ledger: LedgerInfo) -> None:
        """Add a ledger and its empty head. Raises ``AlreadyExistsError``."""

    def ledgers(self) -> Sequence[LedgerInfo]:
        """All ledgers in order of their names."""

    def ledger(self, name: str) -> LedgerInfo | None: ...

    def ledger_name(self, ledger_id: UUID) -> str:
        """The name of a ledger that there is; it never changes."""

    def head(self, ledger_id: UUID, *, settled: bool = False) -> Head:
        """The committed head. ``settled``: wait for those who hold its lock now, so that whatever they have already
        given a recorded-at is in."""

    def wait_for_growth(self, ledger_id: UUID, size: int, seconds: float) -> int:
        """Wait until a ledger has more than ``size`` events, or the time is up; gives its size.

        Growth is noticed at once where the database can tell, and within a second everywhere. Holds no connection of
        the readers' pool while it waits.
        """

    def find_events(self, ledger_id: UUID, event_ids: Collection[UUID]) -> Mapping[UUID, RecordedEvent]:
        """The recorded events of these ids."""

    def select_events(
        self, ledger_id: UUID, which: EventFilter, after: Place | None, limit: int
    ) -> Sequence[RecordedEvent]:
        """The next ``limit`` events that match, in the filter's order, from the one behind ``after``."""

    def position_at(self, ledger_id: UUID, time: int, size: int) -> int:
        """The last position below ``size`` with recorded-at ≤ ``time``; -1 when there is none."""

    def recorded_at(self, ledger_id: UUID, position: int) -> int:
        """The recorded-at of one event that exists."""

    def versions(self, ledger_id: UUID, stream_refs: Collection[bytes]) -> StreamVersions:
        """The versions of these streams; one without events is absent."""

    def shreddings(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Mapping[bytes, Shredding]:
        """For those of these keys that are dead: since when and by which erasure (I9)."""

    def key_usage(self, ledger_id: UUID, key_ids: Collection[bytes], *, beyond: int | None = None) -> KeyUsage:
        """How many events, of those below the position ``beyond``, have a part sealed under one of these keys, and the
        first and last position of them. Goes through all of them: to check what others say, who ask
        ``ledger.services.counting``."""

    def key_ends(
        self, ledger_id: UUID, key_ids: Collection[bytes], roles: Collection[Role] | None = None
    ) -> tuple[int, int] | None:
        """The first and last position of the events that have a part of one of these roles sealed under one of these
        keys (``roles`` None: of any); None: there are none. As quick for many as for few."""

    def count_events_between(
        self, ledger_id: UUID, key_ids: Collection[bytes], ranges: Sequence[tuple[int, int | None]]
    ) -> int:
        """How many of the same events stand in these ranges, which must not overlap: positions from the first number
        on and below the second (None: whatever they are)."""

    def key_positions(self, ledger_id: UUID, key_id: bytes, first: int, beyond: int) -> Sequence[int]:
        """The positions from ``first`` on and below ``beyond`` of the events that have a part sealed under a key, in
        order."""

    def events_at(self, ledger_id: UUID, positions: Collection[int]) -> Sequence[RecordedEvent]:
        """The events at these positions, as far as they exist, in any order."""

    def keys_used_since(
        self, ledger_id: UUID, position: int, after: bytes | None, limit: int
    ) -> Sequence[tuple[bytes, KeyUsage]]:
        """The next keys, in order of key_id from the one behind ``after``, that parts from this position on are sealed
        under, each with its events from there on."""

    def count_event_keys(self, ledger_id: UUID) -> int:
        """How many rows of ``event_keys`` a ledger has."""

    def shredded_keys(self, ledger_id: UUID) -> Mapping[bytes, Shredding]:
        """Every dead key of a ledger."""

    def closed_streams(self, ledger_id: UUID) -> Mapping[bytes, int]:
        """The streams that have ended, each with the position of its last event."""

    def roots_of_erasure(self, ledger_id: UUID, erasure_id: UUID) -> ErasureRoots:
        """The roots that were kept with this erasure's ``SubjectErased``. Raises ``IntegrityError`` when they are not
        there."""

    def add_api_key(self, key: ApiKey) -> None: ...

    def api_keys(self) -> Sequence[ApiKey]:
        """All keys, oldest first."""

    def api_key(self, key_id: UUID) -> ApiKey | None: ...

    def entrance(self, key_id: UUID, ledger_name: str | None) -> tuple[ApiKey | None, LedgerInfo | None]:
        """An API key, and the ledger of this name; without the key no ledger either."""

    def revoke_api_key(self, key_id: UUID, now: int) -> bool:
        """Revoke a key; False when there is none. A key that is revoked stays so, with its first time."""

    def touch_api_key(self, key_id: UUID, now: int) -> None:
        """Note that a key was used."""

    def check(self) -> None:
        """Raise ``StoreUnavailableError`` unless the database answers and has the tables of this version."""
