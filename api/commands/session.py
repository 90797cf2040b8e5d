"""What the commands share: opening the service, finding the ledger, and errors as one line that says what to do."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from api.config import Settings, SettingsError
from api.guard import Guard
from api.importing import MappingError, UnreadableFileError, explain
from api.logs import configure_logs
from api.wiring import Service, open_service
from keyvault.errors import KeyVaultError, NotInitialisedError, UnknownSubjectError, VaultUnavailableError
from ledger.domain.access import LedgerInfo
from ledger.errors import LedgerError, NotFoundError, StoreUnavailableError
from ledger.services.ledgers import create_ledger, find_ledger


class CommandError(click.ClickException):
    """What was asked does not hold or cannot be done; exit status 1."""


def read_settings() -> Settings:
    """The settings of the environment. Raises ``SettingsError``."""
    return Settings.from_environment(os.environ)


@contextmanager
def opened(settings: Settings | None = None, *, guarded: bool = True) -> Iterator[Service]:
    """The service, for one command. Raises :class:`CommandError` while something is there that was restored from an
    older copy, unless the command is not to be ``guarded``."""
    settings = settings or read_settings()
    configure_logs("warning")
    service = open_service(settings)
    try:
        service.store.check()
        guard = Guard(service) if guarded else None
        if guard is not None and guard.start():
            raise CommandError(guard.state)
        yield service
        if guard is not None:
            guard.finish()
    finally:
        service.close()


def the_ledger(service: Service, name: str, *, create: bool = False) -> LedgerInfo:
    """The ledger of this name. Raises ``CommandError`` that says how to make it, unless it may be made."""
    try:
        return find_ledger(service.deps, name)
    except NotFoundError:
        if create:
            return create_ledger(service.deps, name)
        raise CommandError(f"there is no ledger {name!r}; make it with: audit-ledger ledgers create {name}") from None


@contextmanager
def explained() -> Iterator[None]:
    """Ends the process with one clear line for whatever goes wrong inside."""
    try:
        yield
    except MappingError as error:
        _fail(str(error), 2)
    except (LedgerError, KeyVaultError, SettingsError, UnreadableFileError) as error:
        _fail(describe(error), 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}", 1)
    except Exception as error:  # noqa: BLE001 - a traceback could show values, and values are personal data
        _fail(_unexpected(error), 1)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)


def describe(error: Exception) -> str:
    """What went wrong and what to do. Our own errors never hold personal data, so their text may be shown."""
    text = explain(error) if isinstance(error, LedgerError) else str(error)
    if isinstance(error, LedgerError) and error.faults and error.detail not in text:
        text = f"{error.detail}: {text}"
    if isinstance(error, StoreUnavailableError):
        return (
            f"{text}. Is the database of AUDIT_LEDGER_DATABASE_URL there, and was `audit-ledger init` run "
            "(or, with PostgreSQL, `audit-ledger migrate`)?"
        )
    if isinstance(error, VaultUnavailableError) and not isinstance(error, NotInitialisedError):
        return f"{text}. Are AUDIT_LEDGER_KEYVAULT_URL, AUDIT_LEDGER_KEK and AUDIT_LEDGER_JOURNAL right and reachable?"
    if isinstance(error, UnknownSubjectError):
        return "the ledger knows nobody of this name or ref; look at its spelling (names are compared exactly)"
    return text


def _unexpected(error: Exception) -> str:
    """Where a fault of ours happened. Messages of foreign errors and values are left out: they can be personal data."""
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"\n  {os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames)
    return f"an unexpected {type(error).__name__}; please report it with these places:{places}"
