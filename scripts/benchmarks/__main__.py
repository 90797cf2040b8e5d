"""``scripts/bench``: run benchmarks; exit status 1 when a bar is missed."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence

import scripts.benchmarks
from scripts.benchmarks.frame import ENGINES, Report


def names() -> list[str]:
    """The benchmarks that there are."""
    found = (module.name for module in pkgutil.iter_modules(scripts.benchmarks.__path__))
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
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(names()))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    with Report(full=chosen.full, engines=tuple(chosen.engine or ENGINES)) as report:
        for name in chosen.names or names():
            report.heading(name)
            load(name)(report)
        if report.missed:
            report.heading(f"{len(report.missed)} missed: {'; '.join(report.missed)}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
