"""``init``, ``migrate``, ``serve`` and ``demo``."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import click

from api.commands.errors import CommandError
from api.commands.first_key import KEY_FILE, ensure_first_key, only_one
from api.commands.parameters import parent_option
from api.commands.session import opened, read_settings, the_ledger
from api.config import LARGEST_PORT, Settings
from api.demo import DEMO_LEDGER, DEMO_SUBJECT, demo_lines
from api.importing import LABEL_PREFIX, explain
from api.wiring import migrate_databases, pin_journal_key, prepare_home
from ledger.domain.events import OPERATOR
from ledger.services.appending.ingest import Source, ingest_lines


@click.command()
def init() -> None:
    """Prepare everything that is missing: home folder, tables, KEK, journal and its pinned key, the first API key.

    The first start makes a key with all four roles and writes it to admin-key in the home folder, readable by you
    alone. Safe to repeat: what is there is left as it is.
    """
    settings = read_settings()
    prepare_home(settings)
    with only_one(settings.home):
        migrate_databases(settings)
        with opened(settings, guarded=False) as service:
            service.vault.initialise()
            service.vault.check()
            pin_journal_key(service)
            path = ensure_first_key(service.deps, settings.home)
    if path is not None:
        click.echo(f"ready; the operator's API key is in {path}")
    else:
        click.echo(
            f"ready; there are API keys, but no {settings.home / KEY_FILE}: see `audit-ledger keys create --help`"
        )


@click.command()
def migrate() -> None:
    """Bring both databases to the newest schema.

    With AUDIT_LEDGER_MIGRATE_DATABASE_URL and AUDIT_LEDGER_MIGRATE_KEYVAULT_URL the owners of the tables do it, and the
    roles of the service get the rights that they need, and no more. Names that an older version left in clear in the
    key vault's index are sealed, which takes the KEK; what is interrupted is finished by the next call.
    """
    settings = read_settings()
    prepare_home(settings)
    migrate_databases(settings, lambda sealed: click.echo(f"{sealed} names of the key vault's index are sealed"))
    click.echo("both databases have the newest schema")


@click.command()
@click.option("--port", type=click.IntRange(1, LARGEST_PORT), help="Instead of PORT (default 8080).")
@click.option("--host", help="The address to listen on, instead of AUDIT_LEDGER_HOST (default 127.0.0.1).")
@parent_option
def serve(port: int | None, host: str | None) -> None:
    """Serve the HTTP API until the process is told to stop.

    It speaks plain HTTP: put a proxy that speaks TLS before it when others than this machine shall reach it.
    """
    # Imported here: no other command needs the web framework, and each would start later for it.
    from api.serving import serve as serve_http

    settings = read_settings()
    if port is not None:
        settings = replace(settings, port=port)
    if host is not None:
        settings = replace(settings, host=host)
    serve_http(settings)


@click.command()
def demo() -> None:
    """Load a small made-up ledger, "demo", and print three requests to try. Safe to repeat."""
    settings = read_settings()
    with opened(settings) as service:
        ledger = the_ledger(service, DEMO_LEDGER, create=True)
        source = Source(OPERATOR, f"{LABEL_PREFIX}demo")
        for result in ingest_lines(service.deps, ledger.ledger_id, demo_lines(), source):
            if result.error is not None:
                raise CommandError(f"line {result.line} of the demo was refused: {explain(result.error)}")
        size = service.store.head(ledger.ledger_id).size
    click.echo(f'the ledger "{DEMO_LEDGER}" has {size} made-up events; while the service runs, try:\n')
    click.echo(_requests(settings))


def _requests(settings: Settings) -> str:
    url = f"http://{settings.host}:{settings.port}/v1/ledgers/{DEMO_LEDGER}"
    key = f'"Authorization: Bearer $(cat {shlex.quote(str(settings.home / KEY_FILE))})"'
    asked = {"subject": DEMO_SUBJECT, "order_by": "occurred"}
    requests = (
        ("all that is recorded of one customer, in the order in which it happened", "query", asked),
        ("what had happened by 1 June 2025", "query", {**asked, "occurred_to": "2025-06-01T00:00:00Z"}),
        ("forget her, then send the first one again", "erasures", {"subject": DEMO_SUBJECT, "ground": "17(1)(b)"}),
    )
    return "\n\n".join(
        f"# {what}\ncurl -s {url}/{path} -H {key} \\\n  -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
        for what, path, body in requests
    )
