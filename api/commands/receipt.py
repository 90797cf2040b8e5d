"""``receipt``: check the receipt of an erasure, offline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from api.commands.errors import CommandError
from api.commands.offline import KEY_NOTE, checkpoint_opener, trust_options
from api.receipt_files import LARGEST_FILE, CheckedReceipt, UnprovenReceiptError, check_receipt
from keyvault.signatures import verify_ed25519
from ledger.domain.names import name_fault
from ledger.domain.notes import VerifierKey

_CANNOT: Final = (
    "It cannot show that no copy of a key exists anywhere, nor that no later event uses one: audit the log for that."
)


@click.group()
def receipt() -> None:
    """Check what the answer to an erasure and `GET …/erasures/{id}/receipt` have given out."""


@receipt.command("verify", epilog=KEY_NOTE, short_help="Check a receipt with nothing but the public key.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@trust_options
@click.option(
    "--whose",
    is_flag=True,
    help="Ask for a name and the salt, and check that it is that person's. Without a terminal: two lines of standard "
    "input. A salt that FILE has is not asked for.",
)
def verify(file: Path, key: VerifierKey, policy: Path | None, *, whose: bool) -> None:
    """Check the receipt in FILE: the receipt itself, or the whole answer to the erasure, as JSON.

    Prints what it proves. Exit status 0 only if everything in it holds, and with --whose only if it is that person's.
    """
    try:
        with file.open("rb") as handle:
            text = handle.read(LARGEST_FILE + 1)
        checked = check_receipt(
            text,
            lambda signature, message: verify_ed25519(key.public_key, signature, message),
            checkpoint_opener(key, policy),
        )
        lines = _lines(checked)
        if whose:
            checked.require_name(*_asked(checked))
            lines.append("whose: it commits to that name")
    except UnprovenReceiptError as error:
        raise CommandError(f"{file}: {error.detail}") from None
    click.echo("\n".join([*lines, _CANNOT]))
    if checked.checkpoint is None:
        raise CommandError(f"{file} is signed, but not linked to a checkpoint: ask for the receipt again")


def _asked(checked: CheckedReceipt) -> tuple[str, str]:
    """A name and the salt, from the terminal or from standard input; never from the command line."""
    if sys.stdin.isatty():
        name = click.prompt("Name", err=True)
        return name, checked.name_salt or click.prompt("Salt", err=True)
    try:
        name, given = (sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n") for _ in range(2))
    except UnicodeDecodeError:
        raise click.UsageError("standard input is not UTF-8") from None
    if name_fault(name) is not None:
        raise click.UsageError(f"the name {name_fault(name)}")
    salt = given or checked.name_salt
    if salt is None:
        raise click.UsageError("the second line of standard input must be the salt: FILE has none")
    return name, salt


def _lines(checked: CheckedReceipt) -> list[str]:
    payload = checked.payload
    lines = [
        f"erasure {payload['id']} of {payload['subject_ref']}",
        f"signed by the ledger: {len(payload['key_ids'])} keys were ordered to be destroyed at "
        f"{payload['requested_at']}, and recorded as dead at {payload['erased_at']}; {payload['events']} events had "
        "parts under them",
    ]
    if checked.checkpoint is None:
        lines.append("not shown to be recorded: it is not linked to a checkpoint")
    else:
        lines.append(
            f"recorded: at position {payload['position']}, in the tree of the checkpoint of "
            f"{checked.checkpoint.origin} with {checked.checkpoint.size} events; the log itself names the dead keys"
        )
    for statement in checked.statements:
        line = f"{statement.kind} since {statement.at}: signed"
        if statement.checkpoint is not None:
            # The receipt has the event's leaf, and not the part that says since when.
            line += f"; proven to be recorded, at position {statement.position}, is that it was stated, not the time"
        lines.append(line)
    return lines
