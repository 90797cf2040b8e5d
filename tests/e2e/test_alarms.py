"""What a hand has changed in either database is ``unreadable`` wherever it is asked for, with an alarm in the log and
one in the metrics, and nowhere ``erased``: that is said only where the ledger has recorded it (I9)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from keyvault import database as vault_database
from keyvault import envelope
from keyvault import tables as vault_tables
from keyvault.providers.file import FileProvider
from keyvault.tables import fences, subject_keys
from ledger.domain.encoding import leaf_of
from ledger.domain.events import RecordedEvent, Role
from ledger.domain.merkle import hash_leaf
from ledger.storage import rows, tables
from ledger.storage.database import open_engine
from tests.e2e.conftest import Tenant
from tests.support.keys import aad_of_key
from tests.support.ledgers import tamper
from tests.support.metrics import scrape
from tests.support.rows import event_row
from tests.support.server import NDJSON, Answer

VICTIM, OTHER, BYSTANDER = "patient:A", "patient:B", "patient:C"
PEOPLE = (VICTIM, OTHER, BYSTANDER)
COMMIT = slice(1 + envelope.SALT_SIZE, 1 + envelope.SALT_SIZE + envelope.COMMIT_SIZE)


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody with all rights on both databases and in the folder of KEKs."""

    ledger: sa.Engine
    vault: sa.Engine
    keks: FileProvider
    ledger_id: UUID

    def event_of(self, person: str) -> RecordedEvent:
        """The one event of a person, as it is stored."""
        columns = tables.events.c
        statement = sa.select(tables.events).where(
            columns.ledger_id == self.ledger_id, columns.position == PEOPLE.index(person)
        )
        with self.ledger.connect() as connection:
            return rows.event_from(connection.execute(statement).one())

    def put(self, event: RecordedEvent) -> None:
        """Store an event in its place, with a leaf hash that fits."""
        event = replace(event, leaf_hash=hash_leaf(leaf_of(event)))
        values = event_row(event)
        changed = {name: values[name] for name in ("sealed", "leaf_hash")}
        columns = tables.events.c
        place = (columns.ledger_id == self.ledger_id, columns.position == event.position)
        tamper(self.ledger, sa.update(tables.events).where(*place).values(changed))

    def key_of(self, person: str) -> Any:
        """The row of a person's key."""
        parts = self.event_of(person).parts
        key_id = next(part.key_id for part in parts if part.role is Role.SUBJECT)
        statement = sa.select(subject_keys).where(subject_keys.c.key_id == key_id)
        return vault_database.read(self.vault, lambda connection: connection.execute(statement).one())

    def change_vault(self, *statements: Any) -> None:
        """In one transaction."""
        with vault_database.writing(self.vault) as connection:
            for statement in statements:
                connection.execute(statement)


def a_tampered_part(hand: Hand) -> None:
    """One bit of the ciphertext."""
    event = hand.event_of(VICTIM)
    first, *others = event.parts
    hand.put(replace(event, parts=(replace(first, sealed=_flipped(first.sealed, -1)), *others)))


def a_part_with_a_wrong_commitment(hand: Hand) -> None:
    """The part says that it was made under another key than its own."""
    event = hand.event_of(VICTIM)
    first, *others = event.parts
    assert len(first.sealed[COMMIT]) == envelope.COMMIT_SIZE
    hand.put(replace(event, parts=(replace(first, sealed=_flipped(first.sealed, COMMIT.start)), *others)))


def a_part_of_another_event(hand: Hand) -> None:
    """Whole, with its key's id: a person's words in the mouth of another."""
    event = hand.event_of(VICTIM)
    hand.put(replace(event, parts=(hand.event_of(OTHER).parts[0], *event.parts[1:])))


def swapped_wraps(hand: Hand) -> None:
    """Two key rows have each other's wrapped key."""
    one, two = hand.key_of(VICTIM), hand.key_of(OTHER)
    hand.change_vault(_with_wrap(one.key_id, two.wrapped_dek), _with_wrap(two.key_id, one.wrapped_dek))


def swapped_owners(hand: Hand) -> None:
    """Two key rows have each other's person."""
    pair = [dict(hand.key_of(person)._mapping) for person in (VICTIM, OTHER)]
    refs = [row["subject_ref"] for row in pair]
    swapped = [{**row, "subject_ref": ref} for row, ref in zip(pair, reversed(refs), strict=True)]
    gone = sa.delete(subject_keys).where(subject_keys.c.key_id.in_([row["key_id"] for row in pair]))
    hand.change_vault(gone, sa.insert(subject_keys).values(swapped))


def a_wrap_of_another_key(hand: Hand) -> None:
    """Made with the KEK, bound to the very row: only that a key's id commits to the key tells that it is another."""
    row = hand.key_of(VICTIM)
    forged = hand.keks.wrap(row.epoch, bytes(range(envelope.KEY_SIZE)), aad_of_key(row))
    hand.change_vault(_with_wrap(row.key_id, forged))


def a_deleted_key(hand: Hand) -> None:
    """Nothing says why it is gone."""
    hand.change_vault(_without(hand.key_of(VICTIM)))


def a_forged_fence(hand: Hand) -> None:
    """The vault says that a key is gone that is still there."""
    hand.change_vault(_fence(hand.key_of(VICTIM)))


def a_forged_fence_in_place_of_the_key(hand: Hand) -> None:
    """The vault looks exactly as after an erasure of one purpose."""
    row = hand.key_of(VICTIM)
    hand.change_vault(_fence(row), _without(row))


def a_forged_erasure(hand: Hand) -> None:
    """The vault looks exactly as after an erasure of the whole person, which the ledger has never recorded."""
    row = hand.key_of(VICTIM)
    fence = _fence(row)
    whose = (
        vault_tables.subjects.c.ledger_id == hand.ledger_id,
        vault_tables.subjects.c.subject_ref == row.subject_ref,
    )
    erased = sa.update(vault_tables.subjects).where(*whose).values(state="erased", changed_at=row.created_at)
    entry = sa.insert(vault_tables.erasures).values(
        erasure_id=ERASURE,
        ledger_id=row.ledger_id,
        subject_ref=row.subject_ref,
        key_ids=json.dumps([[row.key_id.hex(), row.purpose]]),
        next_state="erased",
        requested_at=row.created_at,
        requested_by=UUID(int=0),
        erased_at=row.created_at,
        epoch=row.epoch,
        state="done",
    )
    hand.change_vault(fence, _without(row), erased, entry)


ERASURE = uuid4()

# Whose events each of them makes unreadable.
CHANGES: dict[Callable[[Hand], None], tuple[str, ...]] = {
    a_tampered_part: (VICTIM,),
    a_part_with_a_wrong_commitment: (VICTIM,),
    a_part_of_another_event: (VICTIM,),
    swapped_wraps: (VICTIM, OTHER),
    swapped_owners: (VICTIM, OTHER),
    a_wrap_of_another_key: (VICTIM,),
    a_deleted_key: (VICTIM,),
    a_forged_fence: (VICTIM,),
    a_forged_fence_in_place_of_the_key: (VICTIM,),
    a_forged_erasure: (VICTIM,),
}


def _flipped(sealed: bytes, place: int) -> bytes:
    changed = bytearray(sealed)
    changed[place] ^= 1
    return bytes(changed)


def _with_wrap(key_id: bytes, wrapped: bytes) -> sa.Update:
    return sa.update(subject_keys).where(subject_keys.c.key_id == key_id).values(wrapped_dek=wrapped)


def _without(row: Any) -> sa.Delete:
    return sa.delete(subject_keys).where(subject_keys.c.key_id == row.key_id)


def _fence(row: Any) -> sa.Insert:
    names = ("key_id", "ledger_id", "subject_ref", "purpose", "generation", "epoch")
    values = {name: getattr(row, name) for name in names}
    return sa.insert(fences).values(**values, shredded_at=row.created_at, erasure_id=ERASURE)


@pytest.fixture
def hand(tenant: Tenant) -> Iterator[Hand]:
    """On a ledger with one event of each person."""
    events = [
        {
            "stream": f"patient-{person[-1]}",
            "type": "Visit",
            "subject": person,
            "data": {"said": f"words of {person}"},
        }
        for person in PEOPLE
    ]
    assert tenant.client.post(f"{tenant.path}/events", {"events": events}).status == HTTPStatus.CREATED
    home, settings = tenant.server.home, tenant.server.environment
    ledger = open_engine(settings.get("AUDIT_LEDGER_MIGRATE_DATABASE_URL", f"sqlite:///{home}/ledger.db"))
    vault_url = settings.get("AUDIT_LEDGER_MIGRATE_KEYVAULT_URL", f"sqlite:///{home}/keyvault.db")
    vault = vault_database.make_engine(vault_url)
    yield Hand(ledger, vault, FileProvider(Path(home, "kek")), UUID(tenant.ledger_id))
    ledger.dispose()
    vault.dispose()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.replace("_", " "))
def test_what_was_changed_by_hand_is_unreadable_and_raises_alarms(
    tenant: Tenant, hand: Hand, change: Callable[[Hand], None]
) -> None:
    """Over every way to ask, of every process; the others are read as before."""
    hidden = {PEOPLE.index(person) for person in CHANGES[change]}
    assert_read(tenant, set())
    before, told = alarms_of(tenant), scrape(tenant.client, "audit_ledger_integrity_alarms_total") or 0
    assert before == []

    change(hand)
    assert_read(tenant, hidden)
    assert_nobody_is_called_erased(tenant)

    alarms = alarms_of(tenant)
    assert {line["level"] for line in alarms} == {"error"}
    assert {line["position"] for line in alarms} == hidden
    assert scrape(tenant.client, "audit_ledger_integrity_alarms_total") == told + len(alarms)
    # I5: where it was, and nothing of whom.
    assert "words of" not in json.dumps(alarms)
    assert "patient" not in json.dumps(alarms)


def assert_read(tenant: Tenant, hidden: set[int]) -> None:
    """Ask in every way: the events at these positions are unreadable, all others are shown, and nobody is erased."""
    client, path = tenant.client, tenant.path
    page = checked(client.post(f"{path}/query", {"category": "patient"})).json()["events"]
    lines = checked(client.post(f"{path}/query", {"category": "patient"}, {"Accept": NDJSON})).lines()[:-1]
    single = [checked(client.get(f"{path}/events/{event['id']}")).json() for event in page]
    for found in (page, lines, single):
        assert [event["position"] for event in found] == list(range(len(PEOPLE)))
        for event in found:
            assert_shown(event["data"], event["redactions"], event["position"], hidden)
    states = [checked(client.post(f"{path}/state", {"stream": f"patient-{who[-1]}"})).json() for who in PEOPLE]
    listed = checked(client.post(f"{path}/states", {"category": "patient"})).json()["states"]
    for state in states:
        assert {key: state[key] for key in listed[0]} in listed
    for position, state in enumerate(states):
        assert_shown(state["state"] or None, state["redactions"], position, hidden)


def assert_nobody_is_called_erased(tenant: Tenant) -> None:
    """Nor any erasure, and there is no receipt: what only the vault says is an error, or has failed."""
    client, path = tenant.client, tenant.path
    for person in PEOPLE:
        answer = client.post(f"{path}/subjects/lookup", {"subject": person})
        assert answer.status == HTTPStatus.INTERNAL_SERVER_ERROR or answer.json()["state"] == "active"
    for question in ("", "?state=erased", "?state=failed"):
        found = checked(client.get(f"{path}/erasures{question}")).json()["erasures"]
        assert {erasure["state"] for erasure in found} <= ({"failed"} if question != "?state=erased" else set())
        for erasure in found:
            assert checked(client.get(f"{path}/erasures/{erasure['id']}")).json()["state"] == "failed"
            receipt = client.get(f"{path}/erasures/{erasure['id']}/receipt")
            assert receipt.status == HTTPStatus.INTERNAL_SERVER_ERROR
            assert receipt.code == "integrity-error"


def checked(answer: Answer) -> Answer:
    """An answer that was given."""
    assert answer.status == HTTPStatus.OK, answer.body
    return answer


def assert_shown(content: Any, redactions: list[dict[str, Any]], position: int, hidden: set[int]) -> None:
    """As it was written, or unreadable."""
    if position in hidden:
        assert content is None
        assert {redaction["reason"] for redaction in redactions} == {"unreadable"}
    else:
        assert content == {"said": f"words of {PEOPLE[position]}"}
        assert redactions == []


def alarms_of(tenant: Tenant) -> list[dict[str, Any]]:
    """The alarms of this ledger in the log of the server."""
    lines = [json.loads(line) for line in tenant.server.log().splitlines() if "integrity-alarm" in line]
    return [line for line in lines if line["ledger_id"] == tenant.ledger_id]
