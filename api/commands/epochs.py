"""``epochs`` and ``backup``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from api.backups import BackupError, back_up, require_apart, require_private_folder
from api.commands.errors import CommandError
from api.commands.parameters import time
from api.commands.session import opened
from api.config import Settings
from api.wiring import Service
from keyvault import database as vault_database
from keyvault.epoch_store import EpochRow
from keyvault.epochs import EpochOverview
from keyvault.errors import KeyVaultError
from keyvault.finality import DAY
from keyvault.rotation import Rotation
from keyvault.tables import NAME_INDEX
from ledger.domain.times import format_time
from ledger.services.finality import sign_final_erasures

_LINE_EVERY: Final = 100_000


@click.group()
def epochs() -> None:
    """Rotate and destroy the keys that wrap all others (KEKs); each is an epoch.

    An erasure deletes keys from the vault. Old backups still hold them, wrapped, until the KEK of their epoch is
    destroyed: rotate, back the vault up, destroy the old epoch. Then the erasure is final.
    """


@epochs.command("list", short_help="Show every epoch, and what is not final.")
def list_epochs() -> None:
    """Show every epoch: its state, how many keys are wrapped under it, and when what happened to it.

    Below: when the newest backup of the vault was taken that is known of, and how many erasures are not final yet.
    """
    with opened(guarded=False) as service:
        overview = service.vault.epochs.overview()
        overdue = _overdue(service)
    for row in overview.rows:
        click.echo(_line(row, overview))
    newest = overview.newest_backup
    click.echo(f"newest backup of the vault: {format_time(newest) if newest is not None else 'none is known of'}")
    click.echo(f"erasures that are not final: {overview.not_final}{f', {overdue} of them overdue' if overdue else ''}")


@epochs.command(short_help="Make a new epoch, and wrap everything under it.")
def rotate() -> None:
    """Make a new epoch, and wrap every living key under its KEK. The service may go on meanwhile.

    Finishes a rotation that was interrupted instead of beginning another. Then copy the new KEK to where you keep
    copies of KEKs, if it is a file: without it everything is lost. Keys that do not unwrap are named and left under the
    old epoch, and the exit status is then 1.
    """
    with opened() as service, _shown() as follower:
        outcome = service.vault.epochs.rotate(follower=follower)
    if outcome is None:
        raise CommandError("there was nothing to do")
    _tell(outcome, follower.named)


@epochs.command(short_help="Destroy the KEK of an old epoch for good.")
@click.argument("number", metavar="N", type=click.IntRange(min=1))
@click.option(
    "--backup-taken",
    type=time,
    help="A whole backup of the vault was begun at this time, otherwise than with `audit-ledger backup`.",
)
@click.option(
    "--abandon-damaged", is_flag=True, help="Give up the keys under it that do not unwrap. What they seal is lost."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def destroy(number: int, backup_taken: int | None, *, abandon_damaged: bool, yes: bool) -> None:
    """Destroy the KEK of epoch N for good, so that older copies of the keys that were under it open nothing.

    That makes every older backup of the vault useless, for the living too. So it is refused, with the reason and what
    to do, unless nothing is wrapped under it any more, a backup of the vault that is newer than the rewrap is known,
    and every replica of the vault's database has caught up. Destroy the copies of the KEK that you keep elsewhere too.

    Run it again after an interruption: it goes on.
    """
    with opened() as service:
        keeper = service.vault.epochs
        if backup_taken is not None:
            if backup_taken > service.deps.clock():
                raise click.UsageError("--backup-taken lies in the future")
            keeper.note_backup(backup_taken, "attested")
        row = keeper.require_destroyable(number, abandon_damaged=abandon_damaged)
        if not yes and row.destroyed_at is None:
            _confirm(row, abandon_damaged=abandon_damaged)
        row = keeper.destroy(number, abandon_damaged=abandon_damaged)
        outcomes = sign_final_erasures(service.deps)
    gone = format_time(row.gone_at) if row.gone_at is not None else "not yet"
    click.echo(f"epoch {number} is destroyed; its keeper's last copy is gone: {gone}")
    failures = [error for error in outcomes.values() if error is not None]
    click.echo(f"{len(outcomes) - len(failures)} erasures became final")
    if failures:
        click.echo(f"{len(failures)} could not be stated final yet, the worker tries again: {failures[0]}", err=True)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--ledger", "with_ledger", is_flag=True, help="Back the ledger's database up as well.")
def backup(folder: Path, *, with_ledger: bool) -> None:
    """Make a whole and checked backup of the key vault in DIR, and note that there is one.

    The service may go on meanwhile. DIR must be a folder of your own that nobody else can look into, and not where the
    KEKs are: who has both can read what was erased since. PostgreSQL needs pg_dump, on the PATH or in
    AUDIT_LEDGER_PG_DUMP.
    """
    with opened(guarded=False) as service:
        settings = service.settings
        try:
            require_private_folder(folder)
            require_apart(folder, service.vault.kek_place)
            for name, url in _databases(settings, with_ledger=with_ledger):
                if name == "keyvault":
                    _hide_order(url)
                taken_at = service.deps.clock()
                click.echo(back_up(url, folder, name, taken_at, settings.pg_dump))
                if name == "keyvault":
                    service.vault.epochs.note_backup(taken_at, "made")
        except BackupError as error:
            raise CommandError(str(error)) from None


def _hide_order(url: str) -> None:
    """The order of rows would tell, in the backup, which name and which ref came together."""
    engine = vault_database.make_engine(url)
    try:
        vault_database.put_in_random_order(engine, NAME_INDEX)
    except KeyVaultError as error:
        click.echo(
            f"the order of the rows in the backup tells which names and refs came together, as it could not be changed "
            f"({error}): let AUDIT_LEDGER_MIGRATE_KEYVAULT_URL name the owner of the tables",
            err=True,
        )
    finally:
        engine.dispose()


def _databases(settings: Settings, *, with_ledger: bool) -> Iterator[tuple[str, str]]:
    yield "keyvault", settings.migrate_keyvault_url or settings.keyvault_url
    if with_ledger:
        yield "ledger", settings.migrate_database_url or settings.database_url


def _overdue(service: Service) -> int:
    days = service.settings.final_alarm_days
    if not days:
        return 0
    return service.vault.count_erasures_without("final", erased_before=service.deps.clock() - days * DAY)


def _line(row: EpochRow, overview: EpochOverview) -> str:
    times = (
        ("current", row.current_at),
        ("rewrapped", row.rewrapped_at),
        ("empty", row.retired_at),
        ("destroyed", row.destroyed_at),
        ("gone", row.gone_at),
    )
    known = ", ".join(f"{what} {format_time(at)}" for what, at in times if at is not None)
    damaged = f", {row.damaged} damaged" if row.damaged else ""
    state = "destruction under way" if row.ordered else row.state
    return f"epoch {row.epoch} ({row.provider}) {state}: {overview.wrapped.get(row.epoch, 0)} keys{damaged}; {known}"


def _tell(outcome: Rotation, named: int) -> None:
    click.echo(f"epoch {outcome.epoch} is current{' now' if outcome.begun else ''}")
    click.echo(f"rewrapped {outcome.rewrapped}")
    if outcome.deleted:
        click.echo(f"deleted {outcome.deleted} rows of keys that had been shredded")
    if outcome.damaged:
        more = f" (the first {named} are named above)" if named < outcome.damaged else ""
        raise CommandError(
            f"{outcome.damaged} keys do not unwrap and are left under the old epochs{more}: put their rows back from a "
            "backup of the vault and rotate again"
        )


def _confirm(row: EpochRow, *, abandon_damaged: bool) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("a KEK that is destroyed never comes back, and nobody can be asked here: add --yes")
    if abandon_damaged and row.damaged:
        click.echo(f"What {row.damaged} damaged keys seal can then never be read again.", err=True)
    click.confirm(
        f"Destroy the KEK of epoch {row.epoch} for good? Older backups of the vault will open nothing.",
        abort=True,
        err=True,
    )


class _Lines:
    """Satisfies ``keyvault.rotation.Follower``: lines on standard error, or a bar where somebody watches."""

    most_named: Final = 1000

    def __init__(self, bar: Any = None) -> None:
        self.named = 0
        self._bar = bar
        self._moved = 0
        self._told = 0
        self._rows = 0

    def begins(self, epoch: int, rows: int) -> None:
        """Say how much there is."""
        self._rows = rows
        if self._bar is not None:
            self._bar.length = rows
        else:
            click.echo(f"rewrapping {rows} keys for epoch {epoch}", err=True)

    def moves(self, rows: int) -> None:
        """Say how far it is."""
        self._moved += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif self._moved - self._told >= _LINE_EVERY:
            self._told = self._moved
            click.echo(f"{self._moved} of {self._rows}", err=True)

    def finds_damaged(self, what: str, epoch: int) -> None:
        """Name it; of very many, the first."""
        if self.named < self.most_named:
            self.named += 1
            start = "\r\x1b[K" if self._bar is not None else ""
            click.echo(f"{start}epoch {epoch}: {what} does not unwrap", err=True)

    def goes_on(self) -> bool:
        """To the end; what is interrupted is finished by the next rotation."""
        return True


@contextmanager
def _shown() -> Iterator[_Lines]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with click.progressbar(length=1, label="rewrapping", file=sys.stderr) as bar:
        yield _Lines(bar)
