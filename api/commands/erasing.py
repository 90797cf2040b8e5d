"""``erase``."""

from __future__ import annotations

import json
import sys

import click

from api.commands.parameters import FROM_STDIN, NAMES_NOTE, name, name_or_ref, subject_ref, word
from api.commands.session import opened, the_ledger
from api.rendering import render_outcome
from api.schemas.requests import ground_fault, purpose_to_erase_fault
from ledger.domain.events import OPERATOR
from ledger.domain.names import reference_fault
from ledger.services.erase import ErasureOrder, erase_subject


@click.command(epilog=NAMES_NOTE)
@click.option("--ledger", "ledger_name", required=True, help="The ledger to erase in.")
@click.argument("subject", type=name, required=False)
@click.option("--subject-ref", "by_ref", type=subject_ref, help="The subject by its ref (sub_…) instead of the name.")
@click.option(
    "--purpose",
    "purposes",
    multiple=True,
    type=word(purpose_to_erase_fault),
    help="Only this purpose's data; may be given several times.",
)
@click.option(
    "--ground",
    type=word(ground_fault),
    help="The legal ground, for example 17(1)(b). Not a name, not a sentence about the person.",
)
@click.option(
    "--reference",
    type=word(reference_fault),
    help="The case number: letters, digits, spaces, - _ / . only. No personal data.",
)
@click.option("--block-unknown", is_flag=True, help="If nobody has this name yet, refuse it from now on.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def erase(
    ledger_name: str,
    subject: str | None,
    by_ref: bytes | None,
    purposes: tuple[str, ...],
    ground: str | None,
    reference: str | None,
    *,
    block_unknown: bool,
    yes: bool,
) -> None:
    """Erase a subject for good: its keys are deleted, and everybody reads `erased` where its data was.

    Without --purpose, all of the subject's data goes, except what it did as an actor (--purpose actor). Prints the
    erasure with its receipt as JSON. Its name_salt is shown this once and stored nowhere: keep it with the name for as
    long as you may have to show whose receipt it is.
    """
    who = name_or_ref("subject", subject, by_ref)
    if who is None:
        raise click.UsageError("say whom to erase: a name, @- to read the name from standard input, or --subject-ref")
    with opened() as service:
        ledger = the_ledger(service, ledger_name)
        if not yes:
            _confirm(ledger_name)
        order = ErasureOrder(who, purposes or None, ground, reference, block_unknown, requested_by=OPERATOR)
        outcome = erase_subject(service.deps, ledger.ledger_id, order)
    click.echo(json.dumps(render_outcome(outcome), ensure_ascii=False, indent=2))


def _confirm(ledger_name: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"an erasure cannot be undone, and nobody can be asked here: add --yes (needed also with {FROM_STDIN})"
        )
    click.confirm(f"Erase this subject in ledger {ledger_name!r} for good?", abort=True, err=True)
