"""The application in the test's own process, with a first API key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask.testing import FlaskClient

from api.app import create_app
from api.commands.first_key import ensure_first_key
from api.config import Settings
from api.wiring import Service, migrate_databases, open_service, prepare_home


@contextmanager
def service_at(home: Path) -> Iterator[Service]:
    """A service on SQLite whose files are in ``home``, which is made."""
    settings = Settings.from_environment({"AUDIT_LEDGER_HOME": str(home)})
    prepare_home(settings)
    migrate_databases(settings)
    service = open_service(settings)
    service.vault.initialise()
    try:
        yield service
    finally:
        service.close()


def client_of(service: Service) -> tuple[FlaskClient, dict[str, str]]:
    """A client of the application, and the headers of somebody with all roles."""
    path = ensure_first_key(service.deps, service.settings.home)
    assert path is not None
    return create_app(service).test_client(), {"Authorization": f"Bearer {path.read_text().strip()}"}
