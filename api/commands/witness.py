"""``witness``: run a witness of logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from api.commands.errors import CommandError
from api.commands.parameters import parent_option
from api.config import LARGEST_PORT
from api.logs import configure_logs
from ledger.domain.notes import NoteError, VerifierKey, parse_verifier_key
from ledger.domain.times import format_time

if TYPE_CHECKING:
    from api.witness.state import WitnessState

DEFAULT_PORT: Final = 8081
_SECOND: Final = 1_000_000

_state_option = click.option(
    "--state",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder of this witness: its key, and what it has cosigned. Never to be restored from a backup.",
)


@click.group()
def witness() -> None:
    """Run a witness: it cosigns the checkpoints of logs, and of each log only one history.

    It needs no setting and no database of the ledger. Run it in another department than the ledger: it is worth as much
    as the two are apart.
    """


def verifier_key(text: str) -> VerifierKey:
    """A type of arguments: a public key with its name."""
    try:
        return parse_verifier_key(text)
    except NoteError as error:
        raise click.BadParameter(error.detail) from None


@witness.command(short_help="Make a witness and its key.")
@_state_option
@click.option("--name", required=True, help="The name of its key, best an address of yours: witness.example.org/first.")
def init(folder: Path, name: str) -> None:
    """Make the folder of a new witness, and its key; print the public key for those who rely on it."""
    # Imported here, as below: no other command needs what it brings along, and each would start later for it.
    from api.witness.state import create_state

    click.echo(create_state(folder, name).key.text)


@witness.command(short_help="Print the public key.")
@_state_option
def key(folder: Path) -> None:
    """Print the public key of the witness, for the policies of those who rely on it."""
    with _opened(folder) as state:
        click.echo(state.key.text)


@witness.command(short_help="Cosign a log from now on.")
@_state_option
@click.argument("log_key", type=verifier_key, metavar="VERIFIER_KEY")
def trust(folder: Path, log_key: VerifierKey) -> None:
    """Cosign the log of this key from now on; its name is the log's origin.

    A ledger shows its own as `verifier_key`. It has to reach you on another way than its checkpoints.
    """
    with _opened(folder) as state:
        state.trust(log_key)
    click.echo(f"{log_key.name} is cosigned from now on")


@witness.command(short_help="Show what was cosigned.")
@_state_option
def logs(folder: Path) -> None:
    """Show each log that is trusted, with the size and the time of what was cosigned last."""
    with _opened(folder) as state:
        for log in state.logs():
            at = "never" if log.cosigned_at is None else format_time(log.cosigned_at * _SECOND)
            click.echo(f"{log.key.text} size {log.seen.size} cosigned {at}")


@witness.command(short_help="Serve the witness over HTTP.")
@_state_option
@click.option("--port", type=click.IntRange(1, LARGEST_PORT), default=DEFAULT_PORT, show_default=True, help="The port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@parent_option
def serve(folder: Path, port: int, host: str) -> None:
    """Serve the witness until the process is told to stop.

    It speaks plain HTTP: put a proxy that speaks TLS before it when others than this machine shall reach it. Several
    processes may serve one folder, on one machine.
    """
    from api.witness.server import serve_witness

    with _opened(folder) as state:
        configure_logs("info")
        try:
            serve_witness(state, host, port)
        except OSError as error:
            raise CommandError(f"cannot serve on {host} port {port} ({error.strerror})") from error


@contextmanager
def _opened(folder: Path) -> Iterator[WitnessState]:
    from api.witness.state import open_state

    yield open_state(folder)
