"""The ledger as Python code uses it: one object, one method for each thing that can be done with it.

Nothing is decided here. Each method hands on to a service, whose docstring says all there is to say; what is behind
HTTP is behind these methods too. ``api.opening.open_ledger`` opens one from the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID, uuid4

from ledger.domain.aggregate import Aggregate
from ledger.domain.catalogue import (
    DEFAULT_UNLINK_DAYS,
    PUBLIC_CHECKPOINTS,
    STRICT_TYPES,
    UNLINK_AFTER,
    Policy,
    TypeDraft,
)
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import MERGE_PATCH, Fold
from ledger.domain.intake import parse_batch
from ledger.domain.process import ProcessManager
from ledger.domain.projection import Projection
from ledger.domain.query import DEFAULT_LIMIT, AsOf, EventQuery, NameOrRef
from ledger.domain.subscription import DEFAULT_PARTITIONS, DEFAULT_TRIES
from ledger.domain.upcasting import Upcast, Upcasters
from ledger.domain.verdicts import VerifyReport
from ledger.ports import Subscription
from ledger.services.appending.append import AppendResult, append_events
from ledger.services.commanding import processes
from ledger.services.commanding.handling import Handled, handle
from ledger.services.dependencies import Dependencies
from ledger.services.erase import ErasureOrder, ErasureOutcome, erase_subject
from ledger.services.evolution.copying import CopyReport, Transform, copy_stream
from ledger.services.evolution.types import Registration, register_type, set_policy
from ledger.services.following.consumer import consume
from ledger.services.following.delivery import DEFAULT_BATCH, DEFAULT_LEASE
from ledger.services.following.follow import follow, never
from ledger.services.following.subscriptions import create_subscription
from ledger.services.projecting import read_models, runner
from ledger.services.projecting.read_models import ReadModelAnswer
from ledger.services.read import Page, get_event, query_events
from ledger.services.timetravel.diff import DiffPage, Moments, diff_category, diff_stream
from ledger.services.timetravel.history import HistoryPage, field_history
from ledger.services.timetravel.state import StateAsOf, stream_state
from ledger.services.timetravel.states import StatesPage, stream_states
from ledger.services.verifying.running import verify_ledger

Name = str | bytes
"""Somebody, or a stream: by name, or by ref (16 bytes)."""

WAIT_SECONDS = 10.0
"""How long a read waits for a read model to come as far as it is asked for."""


@dataclass(frozen=True, slots=True)
class OpenLedger:
    """One ledger, open. May be shared by threads.

    ``recorded_by``: the id of whoever records, as it stands in every event. ``worker``: who this is to the others that
    project and run processes; of several, one at a time does the work.
    """

    deps: Dependencies
    ledger_id: UUID
    recorded_by: UUID
    worker: UUID = field(default_factory=uuid4)

    # Writing

    def append(self, *events: JsonObject) -> AppendResult:
        """Append events as they would stand in a request over HTTP, in one batch, all or nothing."""
        parsed = parse_batch({"events": list(events)})
        return append_events(self.deps, self.ledger_id, parsed, self.recorded_by)

    def handle(
        self,
        aggregate: Aggregate,
        stream: str,
        command: Any,
        *,
        command_id: UUID | None = None,
        cause: OpenedEvent | None = None,
    ) -> Handled:
        """Have an aggregate decide a command, and record what it decides. With a ``command_id``: once."""
        return handle(
            self.deps,
            self.ledger_id,
            aggregate,
            stream,
            command,
            command_id=command_id or self.deps.new_id(),
            recorded_by=self.recorded_by,
            cause=cause,
        )

    def erase(
        self,
        subject: Name,
        *,
        purposes: Collection[str] | None = None,
        ground: str | None = None,
        reference: str | None = None,
    ) -> ErasureOutcome:
        """Erase a person for good: all of it, but for what it did as an actor, or only some purposes."""
        order = ErasureOrder(
            _who(subject), purposes, ground, reference, block_unknown=False, requested_by=self.recorded_by
        )
        return erase_subject(self.deps, self.ledger_id, order)

    def register_type(
        self,
        event_type: str,
        version: int = 1,
        *,
        schema: JsonObject | None = None,
        nonpersonal_schema: JsonObject | None = None,
        upcast: Sequence[JsonObject] | None = None,
        closes_stream: bool = False,
    ) -> Registration:
        """Register a version of an event type, with what its data must be and the way from the version before."""
        draft = TypeDraft(event_type, version, schema, nonpersonal_schema, upcast, closes_stream)
        return register_type(self.deps, self.ledger_id, draft, self.recorded_by)

    def set_policy(
        self,
        *,
        strict_types: bool = False,
        unlink_after: int | Literal["never"] = DEFAULT_UNLINK_DAYS,
        public_checkpoints: bool = False,
    ) -> Policy:
        """Say what the ledger insists on; what is left out is as it is by default."""
        raw = {STRICT_TYPES: strict_types, UNLINK_AFTER: unlink_after, PUBLIC_CHECKPOINTS: public_checkpoints}
        return set_policy(self.deps, self.ledger_id, raw)

    def with_upcasters(self, *ways: Upcast) -> OpenLedger:
        """The same ledger, seen with ways to newer shapes that are written in code."""
        return replace(self, deps=replace(self.deps, upcasters=Upcasters.of(*ways)))

    def copy_stream(self, source: Name, target: str, transforms: Mapping[str, Transform]) -> CopyReport:
        """Copy a stream to a new one, its events transformed by their types, and end the old one."""
        return copy_stream(self.deps, self.ledger_id, _who(source), target, transforms, recorded_by=self.recorded_by)

    # Reading

    def event(self, event_id: UUID, *, as_recorded: bool = False) -> OpenedEvent:
        """One event, in the newest shape of its type or as it was recorded."""
        return get_event(self.deps, self.ledger_id, event_id, as_recorded=as_recorded)

    def query(
        self,
        question: EventQuery | None = None,
        *,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
        as_recorded: bool = False,
    ) -> Page:
        """A page of the events that match; without a question, of all."""
        return query_events(self.deps, self.ledger_id, question, cursor=cursor, limit=limit, as_recorded=as_recorded)

    def state(
        self,
        stream: Name,
        *,
        as_of: AsOf | None = None,
        occurred_as_of: int | None = None,
        fold: Fold = MERGE_PATCH,
    ) -> StateAsOf:
        """The state of a stream, at a moment of either time axis or both."""
        return stream_state(self.deps, self.ledger_id, _who(stream), as_of, occurred_as_of, fold)

    def states(
        self,
        *,
        category: str | None = None,
        subject: Name | None = None,
        as_of: AsOf | None = None,
        occurred_as_of: int | None = None,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
        fold: Fold = MERGE_PATCH,
    ) -> StatesPage:
        """A page of the states of all streams of a category, or of a subject, at a moment."""
        return stream_states(
            self.deps,
            self.ledger_id,
            category=category,
            subject=_who(subject) if subject is not None else None,
            as_of=as_of,
            occurred_as_of=occurred_as_of,
            cursor=cursor,
            limit=limit,
            fold=fold,
        )

    def diff(self, stream: Name, moments: Moments, *, fold: Fold = MERGE_PATCH) -> DiffPage:
        """What changed in a stream between two moments, and by which event."""
        return diff_stream(self.deps, self.ledger_id, _who(stream), moments, fold)

    def diff_category(
        self,
        category: str | None = None,
        moments: Moments | None = None,
        *,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
        fold: Fold = MERGE_PATCH,
    ) -> DiffPage:
        """A page of what changed in the streams of a category."""
        return diff_category(self.deps, self.ledger_id, category, moments, cursor=cursor, limit=limit, fold=fold)

    def history(
        self,
        stream: Name,
        path: str,
        *,
        as_of: AsOf | None = None,
        occurred_as_of: int | None = None,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
        fold: Fold = MERGE_PATCH,
    ) -> HistoryPage:
        """Every value that a field of a stream ever had."""
        return field_history(
            self.deps,
            self.ledger_id,
            _who(stream),
            path,
            as_of=as_of,
            occurred_as_of=occurred_as_of,
            cursor=cursor,
            limit=limit,
            fold=fold,
        )

    # Following

    def follow(
        self,
        *,
        after: int = -1,
        category: str | None = None,
        types: Sequence[str] = (),
        stream: Name | None = None,
        stop: Callable[[], bool] = never,
    ) -> Iterator[OpenedEvent]:
        """Every event behind a position, and then every new one as it comes."""
        whose = _who(stream) if stream is not None else None
        return follow(self.deps, self.ledger_id, after=after, category=category, types=types, stream=whose, stop=stop)

    def subscribe(
        self,
        name: str,
        *,
        category: str | None = None,
        types: Collection[str] = (),
        after: int | Literal["end"] = -1,
        partitions: int = DEFAULT_PARTITIONS,
        max_tries: int = DEFAULT_TRIES,
        on_failure: Literal["park", "stop"] = "park",
    ) -> Subscription:
        """Make a durable subscription."""
        return create_subscription(
            self.deps,
            self.ledger_id,
            name,
            created_by=self.recorded_by,
            category=category,
            types=types,
            after=after,
            partitions=partitions,
            max_tries=max_tries,
            on_failure=on_failure,
        )

    def consume(
        self,
        name: str,
        handler: Callable[[OpenedEvent], None],
        *,
        consumer: UUID | None = None,
        stop: Callable[[], bool] = never,
        limit: int = DEFAULT_BATCH,
        lease: float = DEFAULT_LEASE,
    ) -> None:
        """Hand a subscription's events to a handler, until ``stop`` says so. Each call is a consumer of its own."""
        consume(
            self.deps,
            self.ledger_id,
            name,
            handler,
            consumer=consumer or self.deps.new_id(),
            stop=stop,
            limit=limit,
            lease=lease,
        )

    # Read models and processes

    def project(self, *projections: Projection) -> None:
        """Bring read models up to now, unless somebody else is at it. (A worker does it all the time.)"""
        while runner.step(self.deps, self.ledger_id, projections, self.worker):
            pass

    def read_model(
        self,
        projection: Projection,
        key: bytes,
        *,
        min_position: int | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> ReadModelAnswer:
        """One document of a read model: of a stream or a subject (by ref), or of a day."""
        return read_models.read_document(
            self.deps, self.ledger_id, projection, key, min_position=min_position, timeout=timeout
        )

    def read_model_of_stream(
        self,
        projection: Projection,
        stream: Name,
        *,
        min_position: int | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> ReadModelAnswer:
        """The document of a stream, by its name."""
        key = read_models.key_of_stream(self.deps, self.ledger_id, _who(stream))
        return self.read_model(projection, key, min_position=min_position, timeout=timeout)

    def read_model_of_subject(
        self,
        projection: Projection,
        subject: Name,
        *,
        min_position: int | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> ReadModelAnswer:
        """The document of a person, by its name."""
        key = read_models.key_of_subject(self.deps, self.ledger_id, _who(subject))
        return self.read_model(projection, key, min_position=min_position, timeout=timeout)

    def read_models(
        self,
        projection: Projection,
        bucket: str | None = None,
        *,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
        min_position: int | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> ReadModelAnswer:
        """A page of the documents of a read model: all, or those of a category or month."""
        return read_models.list_documents(
            self.deps,
            self.ledger_id,
            projection,
            bucket,
            cursor=cursor,
            limit=limit,
            min_position=min_position,
            timeout=timeout,
        )

    def run_processes(self, *managers: ProcessManager) -> None:
        """Have process managers react to all that is recorded, and to all timers that are due, unless somebody else is
        at it. (A worker does it all the time.)"""
        while processes.step(self.deps, self.ledger_id, managers, self.worker):
            pass

    # Checking

    def verify(self) -> VerifyReport:
        """Check the whole ledger."""
        return verify_ledger(self.deps, self.ledger_id, lambda done, total: None)


def _who(name: Name) -> NameOrRef:
    return NameOrRef(name, None) if isinstance(name, str) else NameOrRef(None, name)
