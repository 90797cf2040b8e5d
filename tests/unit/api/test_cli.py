"""The command line as a program."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from api.cli import cli
from api.commands.later import Later

WEB = frozenset({"flask", "granian", "marshmallow"})
DATABASES = frozenset({"alembic", "psycopg", "sqlalchemy"})
COMMANDS = [command for command in cli.commands.values() if isinstance(command, Later)]
OFFLINE = frozenset({"audit", "opened", "receipt", "witness"})


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a process has loaded when it has done a command."""
    program = "import sys; from api.cli import main\ntry: main()\nfinally: print('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", program, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def test_the_help_of_the_program_waits_for_no_command() -> None:
    """It shows every command, and loads the module of none."""
    loaded = loaded_by("--help")
    assert "api.commands.later" in loaded
    assert set(cli.commands) == {command.name for command in COMMANDS}
    assert not loaded & {command.load().callback.__module__ for command in COMMANDS if command.load().callback}
    assert not loaded & (WEB | DATABASES | {"cryptography"})


def test_a_command_that_opens_no_database_waits_for_none() -> None:
    """What is checked offline is checked with little."""
    for name in sorted(OFFLINE):
        loaded = loaded_by(name, "--help")
        assert f"api.commands.{name}" in loaded
        assert not loaded & (WEB | DATABASES), name


@pytest.mark.parametrize("name", ["keys", "verify", "serve", "worker"])
def test_no_command_waits_for_the_web_framework(name: str) -> None:
    """Only those that need it load it, when they run: it takes as long as all the rest."""
    loaded = loaded_by(name, "--help")
    assert "api.commands.session" in loaded
    assert not loaded & WEB


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_place_holds_the_command_of_the_name(command: Later) -> None:
    """So that a usage error and a help name the command that was typed."""
    loaded = command.load()
    assert isinstance(loaded, click.Command)
    assert loaded.name == command.name
