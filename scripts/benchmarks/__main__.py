"""``scripts/bench``: run benchmarks; exit status 1 when a bar is missed."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import scripts.benchmarks
from scripts.benchmarks.frame import ENGINES, Report
from scripts.benchmarks.support.surroundings import surroundings


def names() -> list[str]:
    """The benchmarks that there are."""
    found = (module.name for module in pkgutil.iter_modules(scripts.benchmarks.__path__) if not module.ispkg)
    return sorted(name for name in found if name not in ("frame", "__main__"))


def load(name: str) -> Callable[[Report], None]:
    """The ``run`` of a benchmark."""
    run: Callable[[Report], None] = importlib.import_module(f"scripts.benchmarks.{name}").run
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure, in turns, what the documentation says."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(names())}")
    parser.add_argument("--full", action="store_true", help="the sizes that the documentation speaks of; takes long")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only on this database")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every line there, with machine and versions")
    parser.add_argument("--scale", type=_sizes, default=(), metavar="N,N…", help="sizes of the ledgers of `scale`")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw there how things grow, as SVG")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(names()))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    engines = tuple(chosen.engine or ENGINES)
    with Report(full=chosen.full, engines=engines, scales=chosen.scale, plots=chosen.plots) as report:
        for name in chosen.names or names():
            report.heading(name)
            load(name)(report)
            # After each, so that a run that is cut short leaves what it has.
            _write_json(chosen.json, report)
        if report.missed:
            report.heading(f"{len(report.missed)} missed: {'; '.join(report.missed)}")
    return 1 if report.missed else 0


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(sorted(int(size) for size in text.split(",")))
    if not sizes or sizes[0] < 1:
        raise ValueError
    return sizes


def _write_json(path: Path | None, report: Report) -> None:
    if path is not None:
        document = {**surroundings(report), "missed": report.missed, "results": report.results}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
