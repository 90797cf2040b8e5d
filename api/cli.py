"""``audit-ledger``: the command line."""

from __future__ import annotations

from typing import Final

import click

from api.commands.later import Later

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
    Later("init", "api.commands.setup:init", "Prepare everything that is missing."),
    Later("migrate", "api.commands.setup:migrate", "Bring both databases to the newest schema."),
    Later("serve", "api.commands.setup:serve", "Serve the HTTP API."),
    Later("worker", "api.commands.worker:worker", "Run projections, snapshots and timers."),
    Later("ledgers", "api.commands.access:ledgers", "Make and list ledgers."),
    Later("import", "api.commands.loading:import_file", "Append the events of a file."),
    Later("query", "api.commands.asking:query", "Print the events that match."),
    Later("erase", "api.commands.erasing:erase", "Erase a subject for good."),
    Later("verify", "api.commands.verifying:verify", "Check every row, and name what is wrong."),
    Later("audit", "api.commands.audit:audit", "Check a ledger from outside, over HTTP."),
    Later("checkpoint", "api.commands.proving:checkpoint", "Print the newest checkpoint of a ledger."),
    Later("proof", "api.commands.proving:proof", "Print the proof that an event is recorded."),
    Later("opened", "api.commands.opened:opened", "Check files of opened events, offline."),
    Later("receipt", "api.commands.receipt:receipt", "Check receipts of erasures, offline."),
    Later("keys", "api.commands.access:keys", "Make, list and revoke API keys."),
    Later("epochs", "api.commands.epochs:epochs", "Rotate and destroy the keys that wrap all others."),
    Later("backup", "api.commands.epochs:backup", "Back the key vault up."),
    Later("drill", "api.commands.drill:drill", "Show that an erasure holds."),
    Later("vault", "api.commands.vault:vault", "What to do after a backup was put back."),
    Later("witness", "api.commands.witness:witness", "Run a witness of logs."),
    Later("demo", "api.commands.setup:demo", "Load a small made-up ledger."),
)

for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """The entry point of ``audit-ledger``: every error ends in one clear line and an exit status, never a traceback."""
    try:
        cli(prog_name=PROGRAM)
    except Exception as error:  # noqa: BLE001 - a traceback could show values, and values are personal data
        # Imported here: a command that does what it is asked to needs none of it.
        from api.commands.complaining import complain

        complain(error)
