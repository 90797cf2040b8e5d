"""Several things that are measured in turns: how many events a second each takes, and whose processors that costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from scripts.benchmarks.frame import Report, per_second, results_in_turns
from scripts.benchmarks.support.load import CLIENT, Loaded
from scripts.benchmarks.support.processors import OTHERS, Accounts

Side = Callable[[], Callable[[], Loaded]]
"""Prepares, which is not measured, and gives what is."""

_MICROSECONDS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one side. ``cpu``: CPU seconds by process."""

    loaded: Loaded
    cpu: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.loaded.count / self.loaded.seconds


def measure_sides(
    sides: Mapping[str, Side], counts: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[Turn]]:
    """Measure them in turns. ``counts``: who else uses the processors meanwhile, as CPU seconds so far."""

    def turn(side: Side) -> Turn:
        work = side()
        accounts = Accounts(counts)
        accounts.begin()
        loaded = work()
        return Turn(loaded, accounts.end({CLIENT: loaded.cpu}))

    results = results_in_turns([partial(turn, side) for side in sides.values()], rounds)
    return dict(zip(sides, results, strict=True))


def rates(turns: Sequence[Turn]) -> list[float]:
    """Events a second in each round."""
    return [turn.rate for turn in turns]


def note_costs(report: Report, turns: Mapping[str, Sequence[Turn]], what: str = "event") -> None:
    """One line a side: its rate, and the CPU microseconds that each event took, by process."""
    for name, rounds in turns.items():
        rate = statistics.median(rates(rounds))
        shares = [
            f"{who} {statistics.median(_MICROSECONDS * turn.cpu[who] / turn.loaded.count for turn in rounds):,.1f}"
            for who in rounds[0].cpu
            if who != OTHERS
        ]
        busy = statistics.median(turn.cpu[OTHERS] / turn.loaded.seconds for turn in rounds)
        report.note(
            f"{name:<46} {per_second(rate):>10}; CPU µs of each {what}: {', '.join(shares)}; "
            f"others on this machine: {busy:.1f} processors"
        )
