"""``import``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from api.commands.errors import CommandError
from api.commands.session import opened, the_ledger
from api.importing import (
    LABEL_PREFIX,
    CsvRows,
    FieldTemplate,
    bounded_lines,
    csv_delimiter,
    explain,
    parse_field_template,
    plan_columns,
    read_event,
    read_row,
)
from api.verification import root_text
from keyvault.errors import VaultUnavailableError
from ledger.domain.events import OPERATOR
from ledger.domain.merkle import root_of
from ledger.errors import DependencyError
from ledger.services.appending.ingest import LineReader, LineResult, Source, ingest_lines

STDIN: Final = "-"
_TABLES: Final = frozenset({".csv", ".tsv"})


@dataclass(slots=True)
class _Counts:
    recorded: int = 0
    duplicates: int = 0
    refused: int = 0

    def add(self, result: LineResult) -> None:
        if result.error is not None:
            self.refused += 1
        elif result.duplicate:
            self.duplicates += 1
        else:
            self.recorded += 1


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--ledger", "ledger_name", required=True, help="The ledger to append to.")
@click.option("--create", is_flag=True, help="Make the ledger if there is none of this name.")
@click.option("--source", "label", help="What the file is called (default: its base name). Needed with FILE -.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=TEMPLATE", help="For CSV: what a field of the event is.")
@click.option("--only-mapped", is_flag=True, help="For CSV: leave out the columns that no --map uses.")
@click.option(
    "--as-json", "json_columns", multiple=True, metavar="COLUMN", help="For CSV: its cells are JSON, like 85."
)
@click.option("--delimiter", default=",", show_default=True, help="For CSV: one character, or the word tab.")
def import_file(
    file: str,
    ledger_name: str,
    label: str | None,
    maps: tuple[str, ...],
    json_columns: tuple[str, ...],
    delimiter: str,
    *,
    create: bool,
    only_mapped: bool,
) -> None:
    """Append the events of FILE (- for standard input), one a line, in their order.

    NDJSON: each line is an event as the HTTP API takes it. CSV (with --map): the first line names the columns, and a
    TEMPLATE fills a field with them:

    \b
      --map stream='patient-{case}' --map subject='patient:{case}'
      --map type='{activity}' --map occurred_at='{time}Z'
      --map actor='group:{group}' --map nonpersonal.ward='{ward}'

    Columns that no template uses go into `data` under their names; empty cells are left out, and so is a field whose
    template uses one. Cells are text unless --as-json says otherwise.

    An event without an id gets one from the name of the file and the number of its line. So after an interruption, run
    the same command again: what is recorded is only counted as a duplicate, and the rest follows. It also means that
    the same name is the same file: give another file with the same name a --source of its own.

    A line that cannot be recorded is reported and the others go on; the exit status is then 1.
    """
    templates = [parse_field_template(text) for text in maps]
    if file == STDIN and label is None:
        raise click.UsageError("standard input has no name: add --source LABEL, the same each time for the same events")
    if not templates and (only_mapped or json_columns or Path(file).suffix.lower() in _TABLES):
        raise click.UsageError("a CSV needs to be told what its columns are: add --map, see --help")
    source = Source(OPERATOR, LABEL_PREFIX + (label if label is not None else Path(file).name))
    counts = _Counts()
    with _open(file) as stream, opened() as service:
        lines, read_line = _lines(stream, templates, only_mapped, json_columns, delimiter)
        ledger = the_ledger(service, ledger_name, create=create)
        with _progress(stream, file) as moved:
            try:
                for result in ingest_lines(service.deps, ledger.ledger_id, lines, source, read_line):
                    counts.add(result)
                    moved(result)
            except (DependencyError, VaultUnavailableError) as error:
                raise CommandError(f"{error}; {_interrupted(counts)}") from None
            except KeyboardInterrupt:
                raise CommandError(_interrupted(counts)) from None
        head = service.store.head(ledger.ledger_id)
    for name in ("recorded", "duplicates", "refused"):
        click.echo(f"{name} {getattr(counts, name)}")
    click.echo(f"size {head.size}\nroot {root_text(root_of(head.frontier))}")
    if counts.refused:
        raise CommandError(f"{counts.refused} lines were refused; mend them and run the same command again")


def _interrupted(counts: _Counts) -> str:
    done = counts.recorded + counts.duplicates + counts.refused
    return f"stopped after {done} events; run the same command again, it goes on where this stopped"


def _lines(
    stream: BinaryIO,
    templates: list[FieldTemplate],
    only_mapped: bool,
    json_columns: tuple[str, ...],
    delimiter: str,
) -> tuple[Iterable[bytes], LineReader]:
    if not templates:
        return bounded_lines(stream), read_event
    rows = CsvRows(stream, csv_delimiter(delimiter))
    layout = plan_columns(rows.header, templates, only_mapped=only_mapped, json_columns=json_columns)
    return rows, partial(read_row, layout)


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == STDIN:
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as stream:
        yield stream


@contextmanager
def _progress(stream: BinaryIO, file: str) -> Iterator[Callable[[LineResult], None]]:
    """Reports what each result says, and on a terminal how much of the file is read."""

    def report(result: LineResult) -> None:
        if result.error is not None:
            click.echo(f"line {result.line}: {explain(result.error)}", err=True)

    if file == STDIN or not sys.stderr.isatty():
        yield report
        return
    with click.progressbar(length=Path(file).stat().st_size, label="importing", file=sys.stderr) as bar:

        def report_and_draw(result: LineResult) -> None:
            if result.error is not None:
                click.echo("\r\x1b[K", err=True, nl=False)
                report(result)
            _draw(bar, stream)

        yield report_and_draw


def _draw(bar: Any, stream: BinaryIO) -> None:
    with suppress(OSError):
        bar.update(stream.tell() - bar.pos)
