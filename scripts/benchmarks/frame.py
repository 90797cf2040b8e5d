"""What a benchmark works with: fresh services of either engine, measuring in turns, and bars that can be missed."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TextIO, TypeVar

from typing_extensions import override

from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger
from tests.support.service import Service, postgres_place, set_up, sqlite_place

T = TypeVar("T")

Engine = Literal["sqlite", "postgresql"]
Work = Callable[[], object]

ENGINES: Final[tuple[Engine, ...]] = ("sqlite", "postgresql")
ROUNDS: Final = 7
"""How often each side of a comparison is measured, unless the benchmark says otherwise."""

DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
"""What the settings of PostgreSQL must be, for everybody who writes to it."""

_CONNECTIONS: Final = 300
_BAR_WIDTH: Final = 40
_MILLISECOND: Final = 1e-3


@dataclass(frozen=True, slots=True)
class AtMost:
    """The ratio must not be above ``limit``."""

    limit: float

    def holds(self, ratio: float) -> bool:
        """Whether a measured ratio passes."""
        return ratio <= self.limit

    @override
    def __str__(self) -> str:
        return f"at most {self.limit:g}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The ratio must not be below ``limit``."""

    limit: float

    def holds(self, ratio: float) -> bool:
        """Whether a measured ratio passes."""
        return ratio >= self.limit

    @override
    def __str__(self) -> str:
        return f"at least {self.limit:g}"


Bar = AtMost | AtLeast


@dataclass
class Report:
    """Where a benchmark takes its services from and puts its results. Use it as a context manager.

    ``full``: measure the sizes that the documentation speaks of; otherwise sizes that take seconds, with the same bars.
    """

    full: bool
    engines: Sequence[Engine] = ENGINES
    out: TextIO = field(default_factory=lambda: sys.stdout)
    scales: Sequence[int] = ()
    """The sizes of ledgers that the benchmark ``scale`` grows; none: its own."""
    plots: Path | None = None
    """The folder for drawings of curves; none: they are only printed."""
    missed: list[str] = field(default_factory=list)
    """The comparisons that did not reach their bars, or were not made."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Every line as it can be written as JSON: what was measured, its medians, ratio, bar and verdict."""
    _group: str = field(default="", init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _cluster: PostgresCluster | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def size(self, quick: int, full: int) -> int:
        """One of two sizes: the first, or with ``--full`` the second."""
        return full if self.full else quick

    @contextmanager
    def fresh_service(self, engine: Engine) -> Iterator[Service]:
        """A service in this process on empty databases (``service.deps``); thrown away at the end of the block.

        Other processes can open it too: see ``tests.support.service.open_service(service.place)``.
        """
        with tempfile.TemporaryDirectory(prefix="audit-ledger-bench-") as folder:
            home = Path(folder, "home")
            service = set_up(sqlite_place(home) if engine == "sqlite" else postgres_place(self.postgres(), home))
            try:
                yield service
            finally:
                service.close()

    @contextmanager
    def served(self, engine: Engine, settings: Mapping[str, str] | None = None) -> Iterator[ServedLedger]:
        """The served process on empty databases, for what is measured over HTTP."""
        urls = {}
        if engine == "postgresql":
            urls = {
                "AUDIT_LEDGER_DATABASE_URL": self.postgres().create_database(),
                "AUDIT_LEDGER_KEYVAULT_URL": self.postgres().create_database(),
            }
        with ServedLedger({**urls, **(settings or {})}) as server:
            yield server

    def postgres(self) -> PostgresCluster:
        """A PostgreSQL server for this run, started when it is first asked for. It is as durable as can be."""
        if self._cluster is None:
            self._cluster = self._stack.enter_context(PostgresCluster({"max_connections": str(_CONNECTIONS)}))
            with self._cluster.connect() as connection:
                for name, expected in DURABLE.items():
                    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                    if row is None or row[0] != expected:
                        raise RuntimeError(f"PostgreSQL is not durable here: {name} is not {expected}")
        return self._cluster

    def heading(self, text: str) -> None:
        """Begin a group of results."""
        self._group = text
        self._line(f"\n{text}")

    def note(self, text: str) -> None:
        """Say under which circumstances the next results were measured."""
        self.results.append({"group": self._group, "kind": "note", "text": text})
        self._line(f"  {text}")

    def not_measured(self, name: str, why: str) -> None:
        """Say that a comparison could not be made, which counts as missed: silence would pass for a result."""
        self._miss(f"{name}: not measured")
        self.results.append(
            {"group": self._group, "kind": "ratio", "name": name, "verdict": "not measured", "why": why}
        )
        self._line(f"  {name:<80} {'not measured':>20}: {why}")

    def ratio(
        self, name: str, baseline: Work, candidate: Work, bar: Bar | None = None, *, rounds: int = ROUNDS
    ) -> float:
        """Measure both in turns, after one unmeasured turn each; the ratio is candidate ÷ baseline.

        ``name`` says what is divided by what. Without a bar the ratio is only shown.
        """
        times = in_turns([baseline, candidate], rounds)
        return self.ratio_of(name, times[0], times[1], bar)

    def ratio_of(
        self,
        name: str,
        baseline: Sequence[float],
        candidate: Sequence[float],
        bar: Bar | None = None,
        *,
        shown: Callable[[float], str] | None = None,
    ) -> float:
        """The same for seconds that the benchmark has measured itself; in turns, if they are to mean anything.

        ``shown`` says what was measured, if it was not seconds.
        """
        text = shown if shown is not None else _shown
        below, above = statistics.median(baseline), statistics.median(candidate)
        ratio = above / below
        passed = bar is None or bar.holds(ratio)
        if not passed:
            self._miss(name)
        verdict = "" if bar is None else f"{bar}: {'ok' if passed else 'MISSED'}"
        self.results.append(
            {
                "group": self._group,
                "kind": "ratio",
                "name": name,
                "medians": {"measured": above, "against": below},
                "shown": {"measured": text(above), "against": text(below)},
                "rounds": {"measured": list(candidate), "against": list(baseline)},
                "ratio": ratio,
                "bar": None if bar is None else str(bar),
                "verdict": None if bar is None else "ok" if passed else "missed",
            }
        )
        self._line(f"  {name:<80} {ratio:>8.2f} ×  {verdict:<20} ({text(above)} ÷ {text(below)})")
        return ratio

    def curve(self, name: str, points: Mapping[str, Work], *, rounds: int = ROUNDS) -> dict[str, float]:
        """Measure several things in turns and draw them, each as a multiple of the quickest. Gives these multiples."""
        times = in_turns(list(points.values()), rounds)
        return self.curve_of(name, dict(zip(points, times, strict=True)))

    def curve_of(self, name: str, points: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The same for seconds that the benchmark has measured itself."""
        medians = {label: statistics.median(seconds) for label, seconds in points.items()}
        quickest, slowest = min(medians.values()), max(medians.values())
        rounds = {label: list(seconds) for label, seconds in points.items()}
        self.results.append({"group": self._group, "kind": "curve", "name": name, "medians": medians, "rounds": rounds})
        self._line(f"  {name}")
        for label, median in medians.items():
            bar = "▇" * max(1, round(_BAR_WIDTH * median / slowest))
            self._line(f"    {label:>24}  {bar:<{_BAR_WIDTH}} {median / quickest:>7.2f} ×  ({_shown(median)})")
        return {label: median / quickest for label, median in medians.items()}

    def _miss(self, name: str) -> None:
        self.missed.append(f"{name.strip()} ({self._group})" if self._group else name)

    def _line(self, text: str) -> None:
        self.out.write(f"{text.rstrip()}\n")
        self.out.flush()


def in_turns(works: Sequence[Work], rounds: int = ROUNDS) -> list[list[float]]:
    """The seconds that each of these took in each round.

    They take turns, so that whatever else the machine does meanwhile falls on all of them. The first turn of each fills
    caches and is not counted; every second round goes backwards, so that nobody always comes after the same other.
    """
    return results_in_turns([partial(_seconds, work) for work in works], rounds)


def results_in_turns(works: Sequence[Callable[[], T]], rounds: int = ROUNDS) -> list[list[T]]:
    """The same for works that measure themselves: what each gave in each round."""
    for work in works:
        work()
    results: list[list[T]] = [[] for _ in works]
    for number in range(rounds):
        order = range(len(works)) if number % 2 == 0 else reversed(range(len(works)))
        for index in order:
            results[index].append(works[index]())
    return results


def per_second(rate: float) -> str:
    """How a rate is shown."""
    return f"{rate:,.0f}/s"


def _seconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds / _MILLISECOND:.2f} ms"
