"""What the commands share that work on the databases: settings, opening the service, finding the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from api.commands.errors import CommandError
from api.config import Settings
from api.guard import Guard
from api.logs import configure_logs
from api.wiring import Service, open_service
from ledger.domain.access import LedgerInfo
from ledger.errors import NotFoundError
from ledger.services.ledgers import create_ledger, find_ledger


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
