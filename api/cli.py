"""``audit-ledger``: the command line."""

from __future__ import annotations

from typing import Final

import click

from api.commands.access import keys, ledgers
from api.commands.asking import query
from api.commands.audit import audit
from api.commands.drill import drill
from api.commands.epochs import backup, epochs
from api.commands.erasing import erase
from api.commands.loading import import_file
from api.commands.opened import opened
from api.commands.proving import checkpoint, proof
from api.commands.receipt import receipt
from api.commands.session import explained
from api.commands.setup import demo, init, migrate, serve
from api.commands.vault import vault
from api.commands.verifying import verify
from api.commands.witness import witness
from api.commands.worker import worker

PROGRAM: Final = "audit-ledger"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="gdpr-audit-ledger", message="%(version)s")
def cli() -> None:
    """An append-only audit ledger that can prove its past, answer questions about any moment of it, and still forget a
    person.

    Settings come from the environment: AUDIT_LEDGER_HOME (./var) and others, see docs/reference/settings.md.
    Exit status: 0 only when what was asked holds, 1 when it does not, 2 when the command line itself is wrong.
    """


_COMMANDS: Final = (
    init,
    migrate,
    serve,
    worker,
    ledgers,
    import_file,
    query,
    erase,
    verify,
    audit,
    checkpoint,
    proof,
    opened,
    receipt,
    keys,
    epochs,
    backup,
    drill,
    vault,
    witness,
    demo,
)

for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """The entry point of ``audit-ledger``: every error ends in one clear line and an exit status, never a traceback."""
    with explained():
        cli(prog_name=PROGRAM)
