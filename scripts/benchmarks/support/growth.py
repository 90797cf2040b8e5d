"""How the time of many questions grows with a ledger: a line each, and one drawing of all."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from scripts.benchmarks.frame import Bar, Report
from scripts.benchmarks.support.drawing import line_chart

Growth = Mapping[str, Mapping[int, Sequence[float]]]
"""By question and size of the ledger: the seconds of each round."""

_MILLISECOND: Final = 1e-3


def report_growth(report: Report, title: str, growth: Growth, bar: Bar | None) -> None:
    """Compare each question in the largest ledger with the same in the smallest; ``--plots`` draws them."""
    report.note(title)
    for name, sizes in growth.items():
        small, large = min(sizes), max(sizes)
        steps = ", ".join(f"{_shown(seconds)} at {size:,}" for size, seconds in sorted(sizes.items()))
        report.ratio_of(f"    {name}: at {large:,} events ÷ at {small:,}", sizes[small], sizes[large], bar)
        if len(sizes) > 2:
            report.note(f"        {steps}")
    if report.plots is not None:
        lines = {
            name: [(size, statistics.median(seconds) / _MILLISECOND) for size, seconds in sizes.items()]
            for name, sizes in growth.items()
        }
        report.plots.mkdir(parents=True, exist_ok=True)
        path = report.plots / f"{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"
        path.write_text(line_chart(title, "events in the ledger", "milliseconds", lines), encoding="utf-8")


def _shown(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) / _MILLISECOND:.2f} ms"
