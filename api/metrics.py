"""Metrics for Prometheus: what this service counts, and what its databases tell. No personal data (I5).

What can be read from the databases is read when it is asked for: it is the same whichever process answers, and right
after a restart. Counted is only what leaves no trace there. The processes of a service share their counts by way of a
folder, which ``prometheus_client`` finds in ``PROMETHEUS_MULTIPROC_DIR`` when it is *imported*: so nobody imports this
module before the folder is chosen (``api.serving``).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from api.shared_counts import FOLDER_VARIABLE
from api.wiring import Service
from api.witness_metrics import witness_metrics
from keyvault.errors import KeyVaultError
from keyvault.finality import DAY
from ledger.errors import LedgerError
from ledger.ports import Follower

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MICROSECONDS: Final = 1_000_000
_FOLLOWER: Final = ("ledger", "kind", "name")


class Counters:
    """What happens in this process. Satisfies ``api.wiring.Counts``."""

    def __init__(self) -> None:
        # None: the registry that the library has for the whole process is not used.
        self._requests = Counter(
            "audit_ledger_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=None,
        )
        self._seconds = Histogram(
            "audit_ledger_request_seconds",
            "How long requests took, streams to their ends.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=None,
        )
        self._queries = Counter(
            "audit_ledger_queries", "Answers to questions that take the role auditor.", registry=None
        )
        self._unwraps = Counter(
            "audit_ledger_key_unwraps",
            "Keys that were needed: remembered from shortly before (hit), or unwrapped by the key provider (miss).",
            ("cache",),
            registry=None,
        )
        self._alarms = Counter(
            "audit_ledger_integrity_alarms",
            "How often something stored was not what was recorded; the log says what.",
            registry=None,
        )
        self._witness_failures = Counter(
            "audit_ledger_witness_failures",
            "How often a witness has not cosigned what it was asked to, and why.",
            ("witness", "reason"),
            registry=None,
        )
        self._hits, self._misses = self._unwraps.labels("hit"), self._unwraps.labels("miss")
        self.collectors = (
            self._requests,
            self._seconds,
            self._queries,
            self._unwraps,
            self._alarms,
            self._witness_failures,
        )

    def request(self, method: str, route: str | None, status: int, seconds: float, *, query: bool) -> None:
        """A request was answered. ``route``: the template of its address; ``query``: it was a question, answered."""
        # A method that no route knows is a word of the client's.
        known = (method, route) if route is not None else ("", "")
        self._requests.labels(*known, str(status)).inc()
        self._seconds.labels(*known).observe(seconds)
        if query:
            self._queries.inc()

    def unwrap(self, *, remembered: bool) -> None:
        """A key was needed."""
        (self._hits if remembered else self._misses).inc()

    def alarm(self) -> None:
        """Something stored was not what was recorded."""
        self._alarms.inc()

    def witness_failed(self, witness: str, outcome: str) -> None:
        """A witness has not cosigned what it was asked to."""
        self._witness_failures.labels(witness, outcome).inc()


def metrics_text(service: Service, counters: Counters, restored: int = 0) -> bytes:
    """The metrics of all processes, in Prometheus' text format. A database that is down is a metric, not an error.

    ``restored``: how much the restore guard has found that it could not mend.
    """
    registry = CollectorRegistry()
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        for collector in counters.collectors:
            registry.register(collector)
    elif os.path.isdir(folder):
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # it has no annotations
    registry.register(_Databases(service, restored))
    return generate_latest(registry)


class _Databases(Collector):
    """What the databases tell."""

    def __init__(self, service: Service, restored: int) -> None:
        self._service = service
        self._restored = restored

    @override
    def collect(self) -> Iterator[Metric]:
        title = "What came back from an older copy and could not be mended; nothing is served meanwhile."
        yield _gauge("audit_ledger_restore_findings", title, (), [((), self._restored)])
        yield from self._asked("database", lambda: (*self._ledgers(), *witness_metrics(self._service.deps)))
        yield from self._asked("keyvault", self._erasures)

    @staticmethod
    def _asked(name: str, ask: Callable[[], Iterable[Metric]]) -> Iterator[Metric]:
        """What one database tells, and whether it does."""
        try:
            told = list(ask())
        except (LedgerError, KeyVaultError):
            told = []
            up = 0
        else:
            up = 1
        yield _gauge(f"audit_ledger_{name}_up", f"Whether the {_TITLES[name]} answers: 1 or 0.", (), [((), up)])
        yield from told

    def _ledgers(self) -> Iterator[Metric]:
        store = self._service.deps.store
        # The followers first: what is recorded meanwhile must not make them look as if they had not begun.
        followers, sizes, parked = store.followers(), store.sizes(), store.parked()
        events = CounterMetricFamily("audit_ledger_events", "Events that were recorded.", labels=["ledger"])
        for ledger_id, size in sizes.items():
            events.add_metric([str(ledger_id)], size)
        yield events
        deps = self._service.deps
        published = deps.transparency.published_sizes(deps.origin)
        yield _gauge(
            "audit_ledger_published_size",
            "Events that the last checkpoint has.",
            ("ledger",),
            [((str(ledger_id),), size) for ledger_id, size in published.items()],
        )
        yield _gauge(
            "audit_ledger_parked_messages",
            "Messages that a subscription has put aside.",
            ("ledger", "subscription"),
            [((str(ledger_id), name), count) for (ledger_id, name), count in parked.items()],
        )
        verified = [one for one in followers if one.cursor.key.kind == "verification"]
        yield _gauge(
            "audit_ledger_verified_size",
            "Events up to which a worker has found a ledger to be right.",
            ("ledger",),
            # The cursor can have been set by hand; there is nothing beyond the head.
            [((str(one.ledger_id),), min(one.cursor.position + 1, sizes.get(one.ledger_id, 0))) for one in verified],
        )
        yield _gauge(
            "audit_ledger_verification_failed",
            "Whether a worker has found something wrong, and no round through all of the ledger has been good since.",
            ("ledger",),
            [((str(one.ledger_id),), one.cursor.error is not None) for one in verified],
        )
        # One takes its time, and has said how far it is; the other waits for whole steps, and nobody for it.
        yield from self._lags([one for one in followers if one.cursor.key.kind not in ("verification", "key-windows")])
        yield from self._not_begun(followers, [ledger_id for ledger_id, size in sizes.items() if size])

    def _lags(self, followers: Sequence[Follower]) -> Iterator[Metric]:
        now = self._service.deps.clock()
        groups: dict[tuple[str, str, str], list[Follower]] = defaultdict(list)
        for follower in followers:
            key = follower.cursor.key
            groups[str(follower.ledger_id), key.kind, key.name].append(follower)
        read = {labels: _read(group) for labels, group in groups.items()}
        yield _gauge(
            "audit_ledger_lag_events",
            "Events between a follower and the head of its ledger; of several partitions the largest.",
            _FOLLOWER,
            [(labels, max(one.behind for one in group)) for labels, group in read.items()],
        )
        yield _gauge(
            "audit_ledger_lag_seconds",
            "Age of the oldest event that a follower is not done with; 0 when there is none.",
            _FOLLOWER,
            [(labels, max(_age(one, now) for one in group)) for labels, group in read.items()],
        )
        yield _gauge(
            "audit_ledger_leases",
            "Partitions or generations that somebody works on now.",
            _FOLLOWER,
            [(labels, sum(one.cursor.lease_until > now for one in group)) for labels, group in groups.items()],
        )
        yield _gauge(
            "audit_ledger_stopped",
            "Partitions or generations that a failure has stopped until somebody restarts them.",
            _FOLLOWER,
            [(labels, sum(one.cursor.state == "stopped" for one in group)) for labels, group in groups.items()],
        )
        yield _gauge(
            "audit_ledger_rebuild_events",
            "Events that the rebuild of a read model has still to go through.",
            ("ledger", "name"),
            [
                ((str(one.ledger_id), one.cursor.key.name), one.behind)
                for one in followers
                if one.cursor.state == "building"
            ],
        )

    def _not_begun(self, followers: Sequence[Follower], ledgers: Sequence[UUID]) -> Iterator[Metric]:
        """Projections that no worker has ever run have no cursor that could lag."""
        begun = {(one.ledger_id, one.cursor.key.name) for one in followers if one.cursor.key.kind == "projection"}
        missing = [
            ((str(ledger_id), "projection", name), 1)
            for ledger_id in ledgers
            for name in self._service.settings.projections
            if (ledger_id, name) not in begun
        ]
        yield _gauge("audit_ledger_not_begun", "Projections of a ledger that no worker has begun.", _FOLLOWER, missing)

    def _erasures(self) -> Iterator[Metric]:
        entries = self._service.deps.vault.open_erasures()
        now = self._service.deps.clock()
        oldest = max((now - entry.requested_at for entry in entries), default=0)
        yield _gauge(
            "audit_ledger_open_erasures", "Erasures that have begun and are not done.", (), [((), len(entries))]
        )
        yield _gauge(
            "audit_ledger_open_erasure_seconds",
            "Age of the oldest erasure that is not done; 0 when there is none.",
            (),
            [((), max(0, oldest) / _MICROSECONDS)],
        )
        yield from self._not_final(now)

    def _not_final(self, now: int) -> Iterator[Metric]:
        vault, alarm_days = self._service.deps.vault, self._service.settings.final_alarm_days
        overdue = vault.count_erasures_without("final", erased_before=now - alarm_days * DAY) if alarm_days else 0
        yield _gauge(
            "audit_ledger_erasures_not_final",
            "Erasures that are done while a copy of their keys could still be opened.",
            (),
            [((), vault.count_erasures_without("final"))],
        )
        yield _gauge(
            "audit_ledger_erasures_final_overdue",
            "Of them, those older than AUDIT_LEDGER_FINAL_ALARM_DAYS.",
            (),
            [((), overdue)],
        )


_TITLES: Final = {"database": "ledger database", "keyvault": "key vault"}


def _read(group: Sequence[Follower]) -> Sequence[Follower]:
    """Whose lag counts: of a projection the generation that readers see, not the one that is built beside it."""
    return group[:1] if group[0].cursor.key.kind == "projection" else group


def _age(follower: Follower, now: int) -> float:
    since = follower.waiting_since
    return 0.0 if since is None else max(0, now - since) / _MICROSECONDS


def _gauge(
    name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
