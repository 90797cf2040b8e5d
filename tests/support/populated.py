"""A ledger with something in every table."""

from __future__ import annotations

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import OpenedEvent
from ledger.domain.key_windows import Shape
from ledger.domain.snapshot import EVERY
from ledger.domain.tiles import TILE_WIDTH
from ledger.services.counting import filling
from ledger.services.evolution.copying import copy_stream
from ledger.services.evolution.types import register_type
from ledger.services.following.consumer import consume_batch
from ledger.services.following.subscriptions import create_subscription
from ledger.services.proving.publishing import publish
from ledger.services.timetravel import snapshotting
from tests.support.accounts import TRANSFER, Transfer, open_account, run, until_idle
from tests.support.ledgers import PRIVACY_OFFICER, WRITER, Ledger, a_fact, a_visit, who
from tests.support.projecting import HOLDER, run_all


def populate_log(ledger: Ledger) -> None:
    """At least one row in every append-only table."""
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Registered", 1), PRIVACY_OFFICER)
    ledger.append(a_visit("A"), a_fact(), a_visit("C"))
    copy_stream(ledger.deps, ledger.ledger_id, who("patient-C"), "patient2-C", {}, recorded_by=WRITER)
    ledger.erase("patient:A")
    with ledger.deps.store.locked_head(ledger.ledger_id) as lock:
        lock.abandon(b"s" * 16)
    published = publish(ledger.deps, ledger.ledger_id)
    transparency = ledger.deps.transparency
    transparency.add_cosignature(
        ledger.ledger_id, published.origin, published.size, name="w", line="— w AAAAAAA=\n", timestamp=1
    )


def populate_derived(ledger: Ledger) -> None:
    """At least one row in every table of what is derived from a log."""
    ledger.append(*(a_visit("B") for _ in range(EVERY)))
    ledger.append(*(a_fact() for _ in range(TILE_WIDTH)))
    publish(ledger.deps, ledger.ledger_id, at_least=ledger.size())
    open_account(ledger, "ann", 100)
    open_account(ledger, "bob")
    run(ledger, "account-ann", Transfer(30, "account-bob", "person:bob"))
    until_idle(ledger, TRANSFER)
    run(ledger, "account-ann", Transfer(30, "account-bob", "person:bob"))
    ledger.deps.vault.restrict(ledger.ledger_id, ledger.subject_ref("person:ann"), ledger.deps.clock())
    until_idle(ledger, TRANSFER)
    run_all(ledger.deps, ledger.ledger_id)
    while snapshotting.step(ledger.deps, ledger.ledger_id, HOLDER):
        pass
    while filling.step(ledger.deps, ledger.ledger_id, HOLDER, Shape(window=16, step=4, stretch=1, fewest=2)):
        pass
    create_subscription(ledger.deps, ledger.ledger_id, "mailer", created_by=WRITER, max_tries=1)
    while consume_batch(ledger.deps, ledger.ledger_id, "mailer", _refuse, consumer=HOLDER):
        pass


def _refuse(event: OpenedEvent) -> None:
    raise ValueError(event.recorded.position)
