"""``checkpoint`` and ``proof``."""

from __future__ import annotations

from uuid import UUID

import click

from api.commands.session import opened, the_ledger
from ledger.services.proving import publishing
from ledger.services.proving.proofs import prove_event
from ledger.services.proving.publishing import log_key, note_of, publish


@click.command()
@click.option("--ledger", "ledger_name", required=True, help="The ledger.")
@click.option("--key", "only_key", is_flag=True, help="Print the verifier key instead, under which it verifies.")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Go on from the last published one, where what was signed last is lost or too old and there is no newer copy.",
)
def checkpoint(ledger_name: str, *, only_key: bool, accept_loss: bool) -> None:
    """Print the newest checkpoint: the signed statement how many events there are, and the root over all of them.

    Whoever keeps one can tell later whether anything before it was changed. A ledger that has grown is published for
    this.
    """
    with opened() as service:
        ledger = the_ledger(service, ledger_name)
        if only_key:
            click.echo(log_key(service.deps, ledger.ledger_id).text)
            return
        if accept_loss:
            publishing.accept_loss(service.deps, ledger.ledger_id)
        size = service.store.head(ledger.ledger_id).size
        text = note_of(service.deps, publish(service.deps, ledger.ledger_id, at_least=size))
    click.echo(text, nl=False)


@click.command()
@click.argument("event_id", type=click.UUID)
@click.option("--ledger", "ledger_name", required=True, help="The ledger.")
def proof(event_id: UUID, ledger_name: str) -> None:
    """Print the proof that the event of this id is recorded, under the newest checkpoint (C2SP tlog-proof).

    The line `extra` holds the event's leaf, which shows its type and its times, but nothing of what is sealed.
    """
    with opened() as service:
        ledger = the_ledger(service, ledger_name)
        text = str(prove_event(service.deps, ledger.ledger_id, event_id))
    click.echo(text, nl=False)
