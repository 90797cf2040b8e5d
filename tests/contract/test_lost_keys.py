"""A key row that the vault has lost: read models of people say that something is hidden, and are right when it is back
(I9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from keyvault import database, tables
from ledger.errors import NotFoundError
from ledger.ports import Cursor
from ledger.services.projecting.read_models import ReadDocument, read_document
from ledger.services.projecting.runner import LOST_KEY_WAIT
from ledger.services.projecting.shipped import ACTIVITY
from tests.support.ledgers import Ledger, a_visit
from tests.support.projecting import run_all


@contextmanager
def lost_keys(ledger: Ledger, *key_ids: bytes) -> Iterator[None]:
    """These keys (none named: all of the ledger's subjects) are not in the vault, as if it were an older one."""
    keys, vault = tables.subject_keys, ledger.backend.vault
    these: list[Any] = [keys.c.ledger_id == ledger.ledger_id]
    if key_ids:
        these.append(keys.c.key_id.in_(key_ids))
    rows = database.read(
        vault.engine, lambda connection: connection.execute(sa.select(keys).where(*these)).mappings().all()
    )
    kept = [dict(row) for row in rows]
    ledger.backend.vault_execute(sa.delete(keys).where(*these))
    yield
    ledger.backend.vault_execute(sa.insert(keys).values(kept))


def run(ledger: Ledger) -> Cursor:
    """Run the projection, later; gives its cursor."""
    ledger.backend.clock.now += 2 * LOST_KEY_WAIT
    run_all(ledger.deps, ledger.ledger_id, [ACTIVITY])
    (cursor,) = ledger.deps.derived.cursors.cursors(ledger.ledger_id, "projection", ACTIVITY.name)
    return cursor


def activity(ledger: Ledger, name: str = "patient:A") -> ReadDocument:
    """What readers see of somebody."""
    ref = ledger.subject_ref(name)
    return read_document(ledger.deps, ledger.ledger_id, ACTIVITY, ref).documents[0]


def test_a_document_says_that_something_is_hidden(ledger: Ledger) -> None:
    """It shows neither less nor nothing, and there is an alarm; when the row is back, all is as it was."""
    ledger.append(a_visit(), a_visit(purpose="care"), a_visit())
    run(ledger)
    before = activity(ledger)
    assert (before.events, before.complete, before.document["types"]) == (3, True, {"Visit": 3})
    with lost_keys(ledger, ledger.key_of("patient:A")):
        shown = activity(ledger)
        assert (shown.events, shown.complete) == (3, False)
        assert {hidden.redaction.reason for hidden in shown.hidden} == {"unreadable"}
        assert ledger.alarms
    assert activity(ledger) == before


def test_a_runner_waits_for_a_key_that_went_into_a_document(ledger: Ledger) -> None:
    """It does not write down less than there is, says what it waits for, and goes on by itself."""
    ledger.append(a_visit(), a_visit(), a_visit("B"))
    run(ledger)
    with lost_keys(ledger, ledger.key_of("patient:A")):
        ledger.append(a_visit("B", parts=[{"subject": "patient:A", "purpose": "contact", "data": {"n": 1}}]))
        cursor = run(ledger)
        assert (cursor.position, cursor.state, cursor.error) == (2, "running", "IntegrityError")
        assert activity(ledger).complete is False
    cursor = run(ledger)
    assert (cursor.position, cursor.error) == (3, None)
    assert (activity(ledger).events, activity(ledger).complete) == (3, True)
    assert (activity(ledger, "patient:B").events, activity(ledger, "patient:B").complete) == (2, True)


def test_a_runner_does_not_pass_an_event_of_nobody_knows_whom(ledger: Ledger) -> None:
    """Whose document it would go into cannot be told: what comes before it is done, and it is tried again."""
    ledger.append(a_visit("B"), a_visit("A"), a_visit("B"))
    with lost_keys(ledger, ledger.key_of("patient:A")):
        cursor = run(ledger)
        assert (cursor.position, cursor.state, cursor.error) == (0, "running", "IntegrityError")
        with pytest.raises(NotFoundError):
            activity(ledger)
    assert run(ledger).position == 2
    assert (activity(ledger).events, activity(ledger, "patient:B").events) == (1, 2)


def test_what_was_erased_is_not_lost(ledger: Ledger) -> None:
    """The log says why the key is gone, whatever the vault knows of it (I9)."""
    ledger.append(a_visit("A"), a_visit("B"))
    run(ledger)
    ledger.erase("patient:A")
    ledger.append(a_visit("B"))
    assert run(ledger).position == ledger.size() - 1
    assert activity(ledger).complete is False
    assert ledger.alarms == []
