"""``opened``: check a file of opened events, offline."""

from __future__ import annotations

from pathlib import Path

import click

from api.commands.errors import CommandError
from api.commands.offline import KEY_NOTE, checkpoint_opener, trust_options
from api.opened_files import Outcome, verify_file
from ledger.domain.notes import NoteError, VerifierKey
from ledger.domain.opened import UNPROVEN, OpenedError
from ledger.domain.witness_policy import QuorumError


@click.group()
def opened() -> None:
    """Check what `query --proof opened` and the HTTP API with `"proof": "opened"` have given out."""


@opened.command("verify", epilog=KEY_NOTE, short_help="Check a file with nothing but the public key.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@trust_options
def verify(file: Path, key: VerifierKey, policy: Path | None) -> None:
    """Check that what the events in FILE show is what was recorded, under the checkpoint in it.

    FILE is a page, a single event or a stream, as it came. Prints a line for each event that fails. Exit status 0 only
    if there is none.
    """

    counts = _Counts()
    try:
        with file.open("rb") as handle:
            checkpoint, outcomes = verify_file(handle, checkpoint_opener(key, policy))
            for outcome in outcomes:
                counts.note(outcome)
    except (OpenedError, NoteError, QuorumError) as error:
        raise CommandError(f"{file}: {error.detail}") from None
    if counts.failed:
        raise CommandError(f"{counts.failed} of {counts.total} events in {file} are not proven to be what was recorded")
    signed = "signed by the log's key" + ("" if policy is None else ", cosigned as the policy asks")
    click.echo(f"checkpoint of {checkpoint.origin}: {checkpoint.size} events, {signed}")
    click.echo(
        f"{counts.total} events shown, and all of them are what was recorded: {counts.opened} of their parts opened, "
        f"{counts.hidden} hidden"
    )
    click.echo(f"not proven: {'; '.join(UNPROVEN)}; nor whether other events were left out")


class _Counts:
    """What was found so far."""

    def __init__(self) -> None:
        self.total = self.failed = self.opened = self.hidden = 0

    def note(self, outcome: Outcome) -> None:
        """Count an event, and say of one that fails why it does."""
        self.total += 1
        if outcome.proven is None:
            self.failed += 1
            where = f" (position {outcome.position})" if outcome.position is not None else ""
            click.echo(f"event {outcome.number}{where}: {outcome.fault}")
        else:
            self.opened += outcome.proven.opened
            self.hidden += outcome.proven.hidden
