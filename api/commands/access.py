"""``ledgers`` and ``keys``."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import click

from api.commands.parameters import time, word
from api.commands.session import opened, the_ledger
from api.rendering import render_api_key, render_ledger
from ledger.domain.access import AccessRole
from ledger.domain.names import name_fault
from ledger.services.api_keys import create_api_key, list_api_keys, revoke_api_key
from ledger.services.ledgers import create_ledger, describe_ledger, list_ledgers


@click.group()
def ledgers() -> None:
    """Make and list ledgers."""


@ledgers.command("create")
@click.argument("name")
def create_one(name: str) -> None:
    """Make an empty ledger.

    NAME: lower-case letters, digits and hyphens. It stands in URLs and logs: no personal data.
    """
    with opened() as service:
        ledger = create_ledger(service.deps, name)
        _print(render_ledger(describe_ledger(service.deps, ledger), service.settings.origin))


@ledgers.command("list")
def list_all() -> None:
    """Print every ledger with its size, one JSON object a line."""
    with opened() as service:
        for ledger in list_ledgers(service.deps):
            _print(render_ledger(describe_ledger(service.deps, ledger), service.settings.origin))


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@click.option("--name", required=True, type=word(name_fault), help="What the key is for.")
@click.option(
    "--principal",
    required=True,
    type=word(name_fault),
    help="The person or service behind it; two people are two principals.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in AccessRole]),
    help="What it may do; may be given several times. Roles do not include each other.",
)
@click.option("--ledger", "ledger_name", help="Only for this ledger; without it for all.")
@click.option("--expires-at", type=time, help="When it stops working; without it never.")
def create_key(
    name: str, principal: str, roles: tuple[str, ...], ledger_name: str | None, expires_at: int | None
) -> None:
    """Make an API key. Its secret is printed this once and stored nowhere."""
    with opened() as service:
        if expires_at is not None and expires_at <= service.deps.clock():
            raise click.BadParameter("must be in the future", param_hint="'--expires-at'")
        issued = create_api_key(
            service.deps,
            name=name,
            principal=principal,
            roles=[AccessRole(role) for role in roles],
            ledger_id=the_ledger(service, ledger_name).ledger_id if ledger_name is not None else None,
            expires_at=expires_at,
        )
    _print({"id": str(issued.key.key_id), "secret": issued.secret})


@keys.command("list")
def list_keys() -> None:
    """Print every API key, revoked ones too, one JSON object a line. Secrets are stored nowhere."""
    with opened() as service:
        names = {ledger.ledger_id: ledger.name for ledger in list_ledgers(service.deps)}
        for key in list_api_keys(service.deps):
            _print(render_api_key(key, names))


@keys.command("revoke")
@click.argument("key_id", metavar="ID", type=click.UUID)
def revoke(key_id: UUID) -> None:
    """Revoke an API key for good, from its next request on."""
    with opened() as service:
        revoke_api_key(service.deps, key_id)


def _print(members: dict[str, Any]) -> None:
    click.echo(json.dumps(members, ensure_ascii=False))
