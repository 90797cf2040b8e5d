"""``query``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import click

from api.commands.parameters import NAMES_NOTE, moment, name_or_ref, stream_ref, subject_ref, time, who_options
from api.commands.session import opened, the_ledger
from api.json_writing import json_bytes
from api.rendering import render_event, render_proven_event
from ledger.domain.query import EventQuery
from ledger.services.proving.answers import ProofKind, ProvenEvent, export_proven
from ledger.services.read import export_events


@click.command(epilog=NAMES_NOTE)
@click.option("--ledger", "ledger_name", required=True, help="The ledger to ask.")
@who_options("stream", stream_ref, "The events of one stream")
@who_options("subject", subject_ref, "Events whose main subject this is")
@who_options("actor", subject_ref, "Events in which this subject acted")
@who_options("involving", subject_ref, "Events in which this subject has any part")
@click.option("--category", help="The category of the streams.")
@click.option("--type", "types", multiple=True, help="The type of the events; may be given several times.")
@click.option("--correlation-id", type=click.UUID, help="Events of one correlation.")
@click.option("--as-of", type=moment, help="What was recorded up to a time or a position, that event included.")
@click.option("--recorded-from", type=time, help="Recorded at or after this time.")
@click.option("--recorded-to", type=time, help="Recorded before this time.")
@click.option("--occurred-from", type=time, help="Occurred at or after this time.")
@click.option("--occurred-to", type=time, help="Occurred before this time.")
@click.option(
    "--order-by",
    type=click.Choice(["recorded", "occurred"]),
    default="recorded",
    show_default=True,
    help="By which time.",
)
@click.option(
    "--order", type=click.Choice(["asc", "desc"]), default="asc", show_default=True, help="Oldest or newest first."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many events; without it all that match.")
@click.option("--as-recorded", is_flag=True, help="Not in the newest shape of their types, but as they were recorded.")
@click.option(
    "--proof",
    type=click.Choice(["true", "opened"]),
    help="With the proof that each event is recorded; opened: and of what it says, for `opened verify`.",
)
def query(ledger_name: str, limit: int | None, proof: str | None, *, as_recorded: bool, **asked: Any) -> None:
    """Print the events that match, one JSON object a line, in the form of the HTTP API.

    With --proof a line with the checkpoint stands before them, and one with their number behind. Times are RFC 3339
    with an offset, like 2026-03-15T15:00:00Z. Who reads the events is not noted anywhere: this command works on the
    databases, without an API key.
    """
    question = _question(asked)
    with opened() as service:
        ledger = the_ledger(service, ledger_name)
        if proof is not None:
            kind: ProofKind = "opened" if proof == "opened" else "placed"
            note, proven = export_proven(service.deps, ledger.ledger_id, question, kind, as_recorded=as_recorded)
            _print_proven(note, islice(chain.from_iterable(proven), limit))
            return
        pages = export_events(service.deps, ledger.ledger_id, question, as_recorded=as_recorded)
        for event in islice(chain.from_iterable(pages), limit):
            _print_line(render_event(event))


def _print_proven(note: str, events: Iterator[ProvenEvent]) -> None:
    _print_line({"checkpoint": note})
    count = 0
    for event in events:
        _print_line(render_proven_event(event))
        count += 1
    _print_line({"end": True, "count": count})


def _print_line(value: dict[str, Any]) -> None:
    click.echo(json_bytes(value))


def _question(asked: dict[str, Any]) -> EventQuery:
    for field in ("stream", "subject", "actor", "involving"):
        asked[field] = name_or_ref(field, asked[field], asked.pop(f"{field}_ref"))
    return EventQuery(**asked)
