"""``drill``."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from api.backups import BackupError, require_apart, require_private_folder
from api.commands.errors import CommandError
from api.commands.session import opened, read_settings
from api.drill.checks import FAILED, HELD, NOT_LOOKED_AT, Verdict, overall
from api.wiring import OK, Service

if TYPE_CHECKING:
    from api.drill.notes import Notes

_WHAT_WILL_HAPPEN: Final = """\
This is done to the real installation: a made-up person is recorded in the ledger "drill" and erased; then the KEK is
rotated for all ledgers, the key vault is backed up into DIR, and the KEKs of all epochs up to now are DESTROYED.
Every backup of the key vault from before opens nothing any more; the new one in DIR is the one to keep."""
_WHAT_WILL_HAPPEN_LESS: Final = """\
A made-up person is recorded in the ledger "drill" and erased. Nothing is rotated and nothing is destroyed, so the drill
cannot show that old backups open nothing."""


@click.group()
def drill() -> None:
    """Show that an erasure holds, on this installation, and write it down."""


@drill.command("erase", short_help="Erase a made-up person, and search every copy.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the report goes, and the new backup of the key vault: a folder of your own, 0700.",
)
@click.option(
    "--data-directory",
    "data_directories",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The data directory of a PostgreSQL server, to look into its heap files and write-ahead log; once for each.",
)
@click.option("--url", metavar="URL", help="A running server of this installation, to be asked as well.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Holds the API key for --url, with the role auditor.",
)
@click.option("--without-destruction", is_flag=True, help="Do not rotate and destroy; less is shown then.")
@click.option("--keep-backups", is_flag=True, help="Keep the backups from before the erasure too.")
@click.option("--allow-unseen", is_flag=True, help="Exit status 0 although something was not looked at.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def erase(
    out: Path,
    data_directories: tuple[Path, ...],
    url: str | None,
    key_file: Path | None,
    *,
    without_destruction: bool,
    keep_backups: bool,
    allow_unseen: bool,
    yes: bool,
) -> None:
    """Record a made-up person in every way, erase it, and search for what is left of it.

    This rotates the KEK and destroys the old ones for the whole installation. Searched are the tables, files and
    backups of both databases, running readers, KEKs and journal; each search has to find the person before the erasure,
    or it counts for nothing. The report (drill-TIME.json, signed, and drill-TIME.html) is written to --out.

    Exit status 0 only if every check held and everything was looked at.
    """
    # Imported here: no other command needs the web framework, and each would start later for it.
    from api.drill.notes import Plan
    from api.drill.places import is_sqlite
    from api.drill.report import report_of, write_report
    from api.drill.running import run_drill

    if (url is None) != (key_file is None):
        raise click.UsageError("--url and --key-file belong together")
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.UsageError("--url must be http://HOST:PORT or https://HOST")
    settings = read_settings()
    with opened(settings) as service, _alone_in(out, service.vault.kek_place):
        _require_everything(service)
        plan = Plan(
            environment=dict(os.environ),
            settings=settings,
            out=out.resolve(),
            data_directories=data_directories,
            url=url,
            api_key=key_file.read_text().strip() if key_file is not None else None,
            keep_backups=keep_backups,
            without_destruction=without_destruction,
        )
        if data_directories and all(map(is_sqlite, plan.databases.values())):
            raise click.UsageError("--data-directory is for PostgreSQL, and neither database is there")
        _announce(without_destruction=without_destruction, yes=yes)
        notes = run_drill(plan, service, _Lines())
        json_path, page_path = write_report(report_of(plan, service, notes), plan.out, service.deps.clock())
    _tell(notes)
    click.echo(f"{json_path}\n{page_path}")
    _end_with(overall(notes.checks), allow_unseen=allow_unseen)


@contextmanager
def _alone_in(out: Path, keks: Path | None) -> Iterator[None]:
    """The folder is private, apart from the KEKs, and no other drill uses it."""
    try:
        require_private_folder(out)
        require_apart(out, keks)
    except BackupError as error:
        raise CommandError(str(error)) from None
    fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CommandError(f"another drill is writing to {out}; wait for it, or give another folder") from None
    finally:
        os.close(fd)


def _require_everything(service: Service) -> None:
    """What was not there half-way would leave a drill half done."""
    missing = [f"{name}: {state}" for name, state in service.check().items() if state != OK]
    if missing:
        raise CommandError(f"not everything that a drill needs is there. {'; '.join(missing)}")


def _announce(*, without_destruction: bool, yes: bool) -> None:
    click.echo(_WHAT_WILL_HAPPEN_LESS if without_destruction else _WHAT_WILL_HAPPEN, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("a drill changes the real installation, and nobody can be asked here: add --yes")
    click.confirm("Go on?", abort=True, err=True)


def _tell(notes: Notes) -> None:
    for check in notes.checks:
        click.echo(f"{check.verdict}: {check.name} ({check.where}): {check.found}")
    for told in notes.told:
        click.echo(f"note: {told.name}: {told.text}")


def _end_with(verdict: Verdict, *, allow_unseen: bool) -> None:
    if verdict == FAILED:
        raise CommandError("the drill has failed: what did not hold is named above and in the report")
    if verdict == NOT_LOOKED_AT and not allow_unseen:
        raise CommandError(
            "nothing failed, and not everything was looked at: what is left out is named above. Look at that too, or "
            "accept it with --allow-unseen"
        )
    if verdict != HELD:
        click.echo("nothing failed, and not everything was looked at: the report does not show what it leaves out")


class _Lines:
    """Satisfies ``api.drill.notes.Follower``: lines on standard error."""

    def begins(self, step: str) -> None:
        """Say what is being done."""
        click.echo(f"{step} …", err=True)

    def ends(self, step: str) -> None:
        """Say nothing."""
