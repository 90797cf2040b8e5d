"""Errors as one line that says what to do."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import click

from api.config import SettingsError
from api.importing import MappingError, UnreadableFileError, explain
from keyvault.errors import KeyVaultError, NotInitialisedError, UnknownSubjectError, VaultUnavailableError
from ledger.errors import LedgerError, StoreUnavailableError


def complain(error: Exception) -> NoReturn:
    """End the process with one clear line for whatever went wrong."""
    match error:
        case MappingError():
            _fail(str(error), 2)
        case LedgerError() | KeyVaultError() | SettingsError() | UnreadableFileError():
            _fail(describe(error), 1)
        case OSError():
            _fail(f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}", 1)
        case _:  # a traceback could show values, and values are personal data
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
