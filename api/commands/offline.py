"""What the commands that work offline share: the log's key, and the witnesses that must have cosigned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from api.commands.errors import CommandError
from api.opened_files import OpenCheckpoint
from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, open_checkpoint
from ledger.domain.notes import ED25519, NoteError, VerifierKey, parse_note, parse_verifier_key
from ledger.domain.witness_policy import PolicyError, WitnessPolicy, parse_policy, require_quorum

KEY_NOTE: Final = (
    "VKEY is the ledger's `verifier_key`: keep a copy of it from before, as you would of any key that you check "
    "signatures with. Neither settings nor databases are needed."
)

F = TypeVar("F", bound=Callable[..., Any])


def log_key(text: str) -> VerifierKey:
    """The verifier key of a log (vkey)."""
    try:
        key = parse_verifier_key(text)
    except NoteError as error:
        raise click.BadParameter(error.detail) from None
    if key.kind != ED25519:
        raise click.BadParameter("this verifier key is a witness's, and not a log's")
    return key


def trust_options(command: F) -> F:
    """``--key`` and ``--policy``."""
    by_key = click.option("--key", type=log_key, required=True, metavar="VKEY", help="The log's verifier key.")
    by_policy = click.option(
        "--policy",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A C2SP tlog-policy file: witnesses must have cosigned each checkpoint as it asks.",
    )
    return by_key(by_policy(command))


def checkpoint_opener(key: VerifierKey, policy_file: Path | None) -> OpenCheckpoint:
    """Reads a checkpoint that is signed, and cosigned, as was asked. Raises ``CommandError`` for a policy that cannot
    be read or is of other logs."""
    policy = None if policy_file is None else _policy(policy_file, key)

    def opened(note: str) -> Checkpoint:
        checkpoint = open_checkpoint(note, key, verify_ed25519)
        if policy is not None:
            require_quorum(policy, parse_note(note), verify_ed25519)
        return checkpoint

    return opened


def _policy(file: Path, key: VerifierKey) -> WitnessPolicy:
    try:
        policy = parse_policy(file.read_bytes())
    except PolicyError as error:
        raise CommandError(f"{file}: {error.detail}") from None
    if policy.logs and key not in [log.key for log in policy.logs]:
        raise CommandError(f"{file} names other logs than {key.name}")
    return policy
