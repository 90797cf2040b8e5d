"""``vault reconcile``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import click

from api.commands.errors import CommandError
from api.commands.session import opened
from api.receipts import ReceiptError, read_receipts
from api.wiring import OK, Service
from keyvault import database as vault_database
from keyvault.errors import BusyError, DamagedKeyError, JournalError, ProviderError
from keyvault.restoring import Restored
from ledger.domain.marks import Finding
from ledger.ports import Lost
from ledger.services.reconciling.going_on import (
    NOTHING_LOST,
    LedgerLoss,
    concerned,
    follow_new_journal,
    go_on,
    lead_to_streams_again,
    lost_keys,
    record_erasures_again,
    record_reconciliation,
)
from ledger.services.reconciling.looking import look
from ledger.services.reconciling.mending import Mended, mend, note_sizes

_SHOWN_KEYS = 20
_WAIT_SECONDS = 30.0
_PAUSE_SECONDS = 0.05


@click.group()
def vault() -> None:
    """What to do after a backup was put back: of the key vault, of a ledger, of the journal, of the KEKs."""


@vault.command(short_help="Mend what a restored backup has undone, and say what is lost.")
@click.option(
    "--receipts",
    type=click.Path(path_type=Path),
    help="A folder of receipts (*.json) that were kept elsewhere: what they say was erased is erased again.",
)
@click.option("--new-journal", is_flag=True, help="Keep the journal that does not fit beside, and begin a new one.")
@click.option("--yes", is_flag=True, help="Go on from what is there, without asking.")
def reconcile(receipts: Path | None, new_journal: bool, yes: bool) -> None:
    """Compare key vault, ledgers, journal and KEKs, and mend what a restored backup has undone.

    Erases again what was erased, restricts whom it was restricted, destroys again KEKs that were destroyed. Then it
    lists what is lost with the older copy: put back a newer one if there is any, and run this again. Only when you say
    so does the service go on from what is there. The exit status is 0 when it may serve.
    """
    with opened(guarded=False) as service, _alone(service):
        journal, earlier = _mend_journal(service, new_journal=new_journal)
        found = [*journal, *look(service.deps, thorough=True)]
        _say_found(found)
        mended = mend(service.deps, [*_read(service, receipts), *earlier.erasures])
        service.vault.guard.settle_what(earlier)
        mended.states |= {*earlier.states, *earlier.unlinked}
        _say_mended(mended)
        _leave_destroyed_epochs(service, mended)
        left = [*look(service.deps, thorough=True), *_behind(earlier)]
        if not left:
            _record(service, found, mended, {})
            _require_everything(service)
            click.echo("all fits: the service may serve")
            return
        _go_on(service, found, left, mended, yes=yes)
        _require_everything(service)
    click.echo("the service goes on from what is there")


@contextmanager
def _alone(service: Service) -> Iterator[None]:
    """Nobody else mends meanwhile. A service that is not ready tries to every second, and is waited for."""
    deadline = time.monotonic() + _WAIT_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(vault_database.only_one(service.vault.engine, "reconciling"))
                break
            except BusyError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_SECONDS)
        yield


def _mend_journal(service: Service, *, new_journal: bool) -> tuple[list[Finding], Restored]:
    """See to it that there is a journal that fits. Gives what was found, and what journals say that do not any more."""
    guard = service.vault.guard
    try:
        with suppress(ProviderError, DamagedKeyError):  # its KEK may have been destroyed since: that is told below
            guard.require_pinned_key()
        guard.verify_journal()
        guard.restored()
    except JournalError as error:
        if not new_journal:
            raise CommandError(str(error)) from None
        earlier = guard.said_before(not_fitting=True)
        aside, mark = guard.begin_new_journal()
        follow_new_journal(service.deps, mark.n)
        kept = f"; the old one is kept as {aside}" if aside is not None else ""
        click.echo(f"a new journal was begun with all that the vault knows{kept}")
        return [Finding("journal", None, "the journal was missing, or not the one that was there")], earlier
    if new_journal:
        raise CommandError("the journal fits: there is no reason for a new one")
    return [], guard.said_before(not_fitting=False)


def _behind(earlier: Restored) -> Iterator[Finding]:
    """What a journal that is set aside now has seen, and is not there."""
    for ledger_id in sorted(earlier.ledgers):
        what = "the journal that was set aside has seen key vault and ledger further than they are"
        yield Finding("vault-behind", ledger_id, what)


def _read(service: Service, folder: Path | None) -> Sequence[Lost]:
    if folder is None:
        return ()
    try:
        return read_receipts(service, folder)
    except ReceiptError as error:
        raise CommandError(str(error)) from None


def _say_found(found: Sequence[Finding]) -> None:
    for finding in found:
        click.echo(f"found: {_where(finding)}{finding.what}")


def _where(finding: Finding) -> str:
    return "" if finding.ledger_id is None else f"ledger {finding.ledger_id}: "


def _say_mended(mended: Mended) -> None:
    for lost in mended.erased:
        click.echo(f"erased again: {lost.erasure_id} ({len(lost.keys)} keys)")
    if mended.states:
        click.echo(f"restrictions set or lifted again: {len(mended.states)}")
    for epoch in sorted(mended.epochs):
        click.echo(f"KEK destroyed again: epoch {epoch}")
    for erasure_id, error in mended.failed.items():
        click.echo(f"could not be erased again: {erasure_id} ({error})", err=True)


def _leave_destroyed_epochs(service: Service, mended: Mended) -> None:
    """Take what still lives in this older vault out from under KEKs that were destroyed and are back; then destroy
    those once more."""
    guard = service.vault.guard
    stale = sorted({*guard.restored().destroyed, *guard.said_before(not_fitting=False).destroyed})
    if not stale:
        return
    names = ", ".join(map(str, stale))
    if not set(stale) <= service.vault.kek_epochs():
        raise CommandError(
            f"this key vault is from before the destruction of the epochs {names}: what is in it cannot be opened by "
            "anybody any more. Put back a backup of the vault that is newer than that"
        )
    rotation = service.vault.epochs.rotate()
    if rotation is not None and rotation.damaged:
        raise CommandError(f"{rotation.damaged} keys do not unwrap; see `audit-ledger epochs rotate`")
    service.vault.guard.settle()
    mended.epochs |= service.vault.guard.destroy_returned_keks()
    click.echo(f"living keys were taken out of the destroyed epochs {names}, whose KEKs were destroyed again")


def _go_on(service: Service, found: Sequence[Finding], left: Sequence[Finding], mended: Mended, *, yes: bool) -> None:
    if mended.failed:
        raise CommandError("not everything that was erased could be erased again; nothing is served before it is")
    deps = service.deps
    behind = {one.ledger_id for one in left if one.trouble in ("vault-behind", "ledger-unknown")}
    everywhere = None in behind
    losses = {}
    for finding in left:
        click.echo(f"lost: {_where(finding)}{finding.what}")
    for ledger_id in sorted(deps.store.sizes()):
        keys = tuple(lost_keys(deps, ledger_id)) if everywhere or ledger_id in behind else ()
        losses[ledger_id] = LedgerLoss(keys)
        for key in keys[:_SHOWN_KEYS]:
            events = f"{key.usage.events} events, positions {key.usage.first} to {key.usage.last}"
            click.echo(f"lost key: {key.key_id.hex()} of ledger {ledger_id}: {events}")
        if len(keys) > _SHOWN_KEYS:
            click.echo(f"… and {len(keys) - _SHOWN_KEYS} more keys of ledger {ledger_id}")
    if not yes and not _agrees():
        raise CommandError("the service stays closed: put back a newer copy, or run this again with --yes")
    for ledger_id, loss in losses.items():
        learnt = lead_to_streams_again(deps, ledger_id) if everywhere or ledger_id in behind else 0
        again = record_erasures_again(deps, ledger_id)
        losses[ledger_id] = LedgerLoss(loss.keys, again, learnt)
        if learnt:
            click.echo(f"names led to their streams again: {learnt} in ledger {ledger_id}")
        if again:
            click.echo(f"recorded again: {again} erasures in ledger {ledger_id}")
    go_on(deps)
    _record(service, found or left, mended, losses)


def _require_everything(service: Service) -> None:
    """Nothing is said to serve that lacks a KEK: what fits may still be out of reach."""
    missing = {name: state for name, state in service.check().items() if state != OK}
    if missing:
        what = "; ".join(f"{name}: {state}" for name, state in missing.items())
        raise CommandError(f"all fits, but not everything that the service needs is there. {what}")


def _agrees() -> bool:
    if not sys.stdin.isatty():
        return False
    return click.confirm("What is lost stays lost if a newer copy is not put back first. Go on from what is there?")


def _record(service: Service, found: Sequence[Finding], mended: Mended, losses: Mapping[UUID, LedgerLoss]) -> None:
    """Let the ledgers that it concerns say that it happened, and the journal how far all is now."""
    ledgers = concerned(service.deps, found, mended)
    for ledger_id in ledgers:
        record_reconciliation(service.deps, ledger_id, found, mended, losses.get(ledger_id, NOTHING_LOST))
    note_sizes(service.deps)
    service.vault.guard.write_checkpoint(ledgers)
