"""The error that a command ends with; apart from the rest, because the offline commands open no service."""

from __future__ import annotations

import click


class CommandError(click.ClickException):
    """What was asked does not hold or cannot be done; exit status 1."""
