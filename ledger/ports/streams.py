"""What time travel needs of the log: many streams at once, and never a whole ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.domain.events import RecordedEvent


@dataclass(frozen=True, slots=True)
class StreamRange:
    """Events of one stream, by their versions, both inclusive."""

    stream_ref: bytes
    first_version: int
    last_version: int


@dataclass(frozen=True, slots=True)
class Occurrence:
    """When an event of a stream occurred, in microseconds: its recorded-at where it does not say."""

    stream_ref: bytes
    occurred_at: int
    position: int


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """An event's place in its stream and its ledger."""

    stream_ref: bytes
    stream_version: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Two moments on the axis of positions, and maybe two on that of occurred-at. What lies between them was recorded
    at or before ``last`` (and had occurred by ``last_occurred``), and not so for the earlier moment."""

    first: int
    last: int
    first_occurred: int | None = None
    last_occurred: int | None = None


class Streams(Protocol):
    """Reads of streams; each is one statement for up to 1,000 of them. Raises ``StoreUnavailableError``."""

    def stream_events(self, ledger_id: UUID, ranges: Sequence[StreamRange], position: int) -> Sequence[RecordedEvent]:
        """The events of these ranges that stand at or before ``position``, in order of stream ref and version."""

    def occurrences(
        self, ledger_id: UUID, stream_refs: Collection[bytes], position: int, occurred_by: int
    ) -> Sequence[Occurrence]:
        """The events of these streams that stand at or before ``position`` and had occurred by ``occurred_by``, in the
        order in which they occurred."""

    def streams_of_category(
        self, ledger_id: UUID, category: str, position: int, after: bytes | None, limit: int
    ) -> Sequence[bytes]:
        """Streams that had begun at ``position``, in order of their refs, from the one behind ``after``."""

    def streams_of_subject(
        self, ledger_id: UUID, key_ids: Collection[bytes], position: int, after: bytes | None, limit: int
    ) -> Sequence[bytes]:
        """Streams with an event at or before ``position`` whose main subject's part is under one of these keys, in
        order of their refs, from the one behind ``after``."""

    def changed_streams(
        self, ledger_id: UUID, category: str, between: Between, after: bytes | None, limit: int
    ) -> Sequence[bytes]:
        """Streams of a category with an event between two moments, in order of their refs, from the one behind
        ``after``."""

    def streams_under_keys(
        self, ledger_id: UUID, key_ids: Collection[bytes], after: int, limit: int
    ) -> Sequence[StreamPlace]:
        """The next events behind position ``after`` with a part under one of these keys, in order of positions."""

    def due_for_snapshot(self, ledger_id: UUID, first: int, last: int, every: int) -> Sequence[StreamPlace]:
        """The events at positions from ``first`` to ``last`` whose stream version is a multiple of ``every``, in order
        of positions."""
