"""``worker``."""

from __future__ import annotations

import click

from api.commands.parameters import parent_option
from api.commands.session import read_settings


@click.command()
@parent_option
def worker() -> None:
    """Run what follows the ledgers, until the process is told to stop.

    That is the projections (AUDIT_LEDGER_PROJECTIONS), the snapshots, and erasures that a crash has left open; also
    rotations of the KEK (AUDIT_LEDGER_ROTATE_DAYS), and the statements that erasures are final. Any number of workers
    may run, on any machine that reaches the databases. Told to stop, a worker finishes what it is
    doing, within seconds.
    """
    # Imported here: no other command needs what it brings along, and each would start later for it.
    from api.worker import work

    work(read_settings())
