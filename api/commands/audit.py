"""``audit``: look at a ledger from outside, and keep what was seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import click

from api.commands.errors import CommandError
from api.commands.witness import verifier_key
from ledger.domain.notes import ED25519, VerifierKey, to_base64
from ledger.domain.witness_policy import PolicyError, WitnessPolicy, parse_policy

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("url", metavar="URL")
@click.option("--key", "key_", required=True, type=verifier_key, metavar="VERIFIER_KEY", help="Of the ledger.")
@click.option(
    "--ledger-state",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="What you keep of this ledger from one audit to the next, and evidence. Back it up.",
)
@click.option("--api-key-file", type=_file, metavar="FILE", help="Holds an API key with the role auditor.")
@click.option("--policy", "policy_file", type=_file, metavar="FILE", help="The witnesses that must have cosigned.")
@click.option("--entries", is_flag=True, help="Follow the leaves too: takes an API key.")
def audit(
    url: str, key_: VerifierKey, folder: Path, api_key_file: Path | None, policy_file: Path | None, *, entries: bool
) -> None:
    """Check over HTTP that a ledger still has the history that it had last time, with nothing but its public key.

    URL is that of the ledger: https://HOST/v1/ledgers/NAME. Needs no setting, no database and no trust. The signature
    of the checkpoint is verified, all hashes of the tree since the last audit are fetched, and its root is computed.

    Exit status 0 only if all of that holds. A fork or a rollback is kept as evidence in the folder.
    """
    # Imported here: no other command needs what it brings along, and each would start later for it.
    from api.audit.auditing import Audit, FindingError
    from api.audit.fetching import AuditError, LogClient
    from api.audit.memory import MemoryFolder

    policy = _policy(policy_file, key_)
    if key_.kind != ED25519:
        raise click.UsageError("--key is the key of a witness; give the verifier_key of the ledger")
    api_key = api_key_file.read_text(encoding="ascii").strip() if api_key_file is not None else None
    bar: Any = click.progressbar(length=1, label="auditing", file=sys.stderr) if sys.stderr.isatty() else nullcontext()
    memory = MemoryFolder(folder)
    try:
        with closing(LogClient(url, api_key)) as log, memory.alone(), bar as shown:
            now = time.time_ns() // 1000
            found = Audit(log, memory, key_, policy, now=now, progress=_show(shown)).run(entries=entries)
    except FindingError as finding:
        raise CommandError(
            f"{finding.kind}: {finding.detail}. The evidence is in {finding.evidence}: keep it, show it to the "
            "operator and to the supervisory authority, and do not go on with an empty folder"
        ) from None
    except AuditError as error:
        raise CommandError(f"the audit could not be done: {error.detail}") from None
    checkpoint = found.checkpoint
    click.echo(f"size {checkpoint.size} (before: {found.before})\nroot {to_base64(checkpoint.root)}")
    if entries:
        click.echo(f"entries {found.entries}")
    click.echo("consistent with all that was seen before" if found.before else "seen for the first time")


def _policy(path: Path | None, key: VerifierKey) -> WitnessPolicy | None:
    if path is None:
        return None
    try:
        policy = parse_policy(path.read_bytes())
    except PolicyError as error:
        raise CommandError(f"{path}: {error.detail}") from None
    if policy.logs and key not in [log.key for log in policy.logs]:
        raise CommandError(f"{path} names other logs than {key.name}")
    return policy


def _show(bar: Any) -> Callable[[int, int], None]:
    def show(done: int, size: int) -> None:
        if bar is not None:
            bar.length = max(size, 1)
            bar.update(done - bar.pos)

    return show
