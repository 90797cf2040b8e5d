"""Commands whose modules are imported when they are asked for: each would start later for what all others need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
from typing_extensions import override


class Later(click.Command):
    """Stands for a command, with what the help of the program shows of it, until the command itself is asked for."""

    def __init__(self, name: str, place: str, short_help: str) -> None:
        """``place``: where the command is defined, as ``module:name``."""
        super().__init__(name, short_help=short_help)
        self._place = place

    def load(self) -> click.Command:
        """The command itself."""
        module, _, name = self._place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    @override
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """A context of the command itself: parsing, help and running go on there."""
        return self.load().make_context(info_name, args, parent, **extra)
