"""Write the reference of the command line: ``python -m api.commands.reference [FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from api.cli import PROGRAM, cli
from api.commands.later import Later

DEFAULT_FILE: Final = "docs/reference/command-line.md"
_WIDTH: Final = 100
_INTRODUCTION: Final = """\
# Command line

`scripts/start` puts the program into the virtual environment: `.venv/bin/audit-ledger`. It works on the databases that
the [settings](settings.md) name, with the rules of the HTTP API, and without an API key: who can read the databases
and the KEK needs none. What it records bears the nil UUID as `recorded_by`.

Results are printed on standard output, as text or JSON; complaints and progress on standard error. Exit status: 0 only
when what was asked holds, 1 when it does not, 2 when the command line itself is wrong.

**Names are personal data.** What is typed on a command line is kept in the shell's history and shown to everybody who
lists the processes of the machine. Wherever the name of a subject or stream is asked for, `@-` reads it from standard
input instead, and `--…-ref` takes the ref.
"""


def reference_text() -> str:
    """The page: an introduction, and the help of each command as it prints it."""
    blocks = [f"## {' '.join(path)}\n\n```text\n{text.rstrip()}\n```\n" for path, text in _helps(cli, (PROGRAM,), None)]
    return "\n".join([_INTRODUCTION, *blocks])


def _helps(
    command: click.Command, path: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = command.context_class(command, info_name=path[-1], parent=parent, **settings)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _helps(below.load() if isinstance(below, Later) else below, (*path, name), context)


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_FILE).write_text(reference_text(), encoding="utf-8")
