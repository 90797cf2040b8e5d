"""When an erasure becomes final, and the signed statement of it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import text

from api.rendering import render_erasure, render_receipt
from keyvault import database, epoch_store
from keyvault.errors import KeyVaultError, VaultUnavailableError
from keyvault.finality import DAY, Custody
from ledger.domain.events import OPERATOR
from ledger.domain.ids import format_ref
from ledger.domain.query import NameOrRef
from ledger.domain.times import parse_time
from ledger.errors import IntegrityError
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, ErasureOutcome, erase_subject, get_erasure, list_erasures
from ledger.services.finality import sign_final_erasures
from ledger.services.receipts import get_receipt
from ledger.services.subjects import describe_subject
from ledger.storage import tables
from ledger.storage.database import open_engine
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up


class Scene:
    """A ledger, KEKs that lie apart from the vault, and what an operator does."""

    def __init__(self, service: Service, ledger: str = "test") -> None:
        self.service = service
        self.deps = service.deps
        self.vault = service.vault
        self.vault._custody = Custody()
        self.ledger_id = new_ledger(service, ledger).ledger_id

    def record(self, name: str, **fields: Any) -> None:
        """Something is recorded about somebody."""
        new = event(f"case-{name.replace(':', '')}", subject=name, data={"n": 1}, **fields)
        append_events(self.deps, self.ledger_id, [new], OPERATOR)

    def erase(self, name: str, purposes: list[str] | None = None, *, block: bool = False) -> ErasureOutcome:
        """Somebody is erased."""
        order = ErasureOrder(NameOrRef(name, None), purposes, None, None, block, OPERATOR)
        return erase_subject(self.deps, self.ledger_id, order)

    def retire(self, *epochs: int) -> None:
        """Rotate, back up, destroy."""
        self.vault.epochs.rotate()
        self.vault.epochs.note_backup(self.deps.clock(), "made")
        for epoch in epochs:
            self.vault.epochs.destroy(epoch)

    def pending(self, outcome: ErasureOutcome) -> str | None:
        """The word for what stands in the way, as the API shows it."""
        shown = render_erasure(get_erasure(self.deps, self.ledger_id, outcome.erasure.entry.erasure_id))
        assert (shown["final_at"] is None) == (shown["final_pending"] is not None)
        word: str | None = shown["final_pending"]["reason"] if shown["final_pending"] else None
        return word


@pytest.fixture
def scene(place: Place) -> Any:
    """A ledger to erase in."""
    service = set_up(place)
    yield Scene(service)
    service.close()


def test_an_erasure_is_final_when_the_epoch_of_its_time_is_gone(scene: Scene) -> None:
    """Not before; and the receipt keeps its bytes."""
    scene.record("person:a")
    outcome = scene.erase("person:a")
    assert scene.pending(outcome) == "epochs-alive"
    assert sign_final_erasures(scene.deps) == {}
    scene.retire(1)
    assert scene.pending(outcome) == "unsigned"
    assert sign_final_erasures(scene.deps) == {outcome.erasure.entry.erasure_id: None}
    assert sign_final_erasures(scene.deps) == {}
    assert scene.pending(outcome) is None
    receipt = get_receipt(scene.deps, scene.ledger_id, outcome.erasure.entry.erasure_id)
    assert (receipt.payload, receipt.signature) == (outcome.receipt.payload, outcome.receipt.signature)


def test_the_statement_is_signed_by_the_ledger_and_says_what_went(scene: Scene) -> None:
    """An outsider checks it with the ledger's verifying key, as a receipt."""
    scene.record("person:a")
    outcome = scene.erase("person:a")
    scene.retire(1)
    sign_final_erasures(scene.deps)
    entry = outcome.erasure.entry
    (statement,) = render_receipt(get_receipt(scene.deps, scene.ledger_id, entry.erasure_id))["statements"]
    payload = statement["payload"]
    message = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = Ed25519PublicKey.from_public_bytes(scene.vault.verifying_key(scene.ledger_id))
    key.verify(base64.b64decode(statement["signature"]), b"audit-ledger v1 statement\n" + message)
    row = scene.vault.epochs.overview().rows[0]
    assert set(payload) == {
        *("kind", "erasure_id", "ledger_id", "subject_ref", "final_at", "epochs", "position", "leaf")
    }
    assert (payload["kind"], payload["erasure_id"]) == ("final", str(entry.erasure_id))
    assert (payload["ledger_id"], payload["subject_ref"]) == (
        str(entry.ledger_id),
        format_ref("sub", entry.subject_ref),
    )
    assert parse_time(payload["final_at"]) == row.gone_at
    (epoch,) = payload["epochs"]
    assert (epoch["epoch"], parse_time(epoch["destroyed_at"]), parse_time(epoch["gone_at"])) == (
        1,
        row.destroyed_at,
        row.gone_at,
    )


def test_statements_are_never_changed(scene: Scene) -> None:
    """The first one stays, and the database refuses hands."""
    scene.record("person:a")
    entry = scene.erase("person:a").erasure.entry
    for signature in (b"first", b"second"):
        scene.vault.add_statement(scene.ledger_id, entry.erasure_id, "final", 1, "{}", signature)
    (kept,) = scene.vault.statements(scene.ledger_id, [entry.erasure_id])[entry.erasure_id]
    assert kept.signature == b"first"
    for statement in ("UPDATE statements SET at = 2", "DELETE FROM statements"):
        with pytest.raises(KeyVaultError), database.writing(scene.vault.engine) as connection:
            connection.execute(text(statement))


def test_an_epoch_that_was_only_begun_counts(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation that came to nothing leaves no false ``final_at``: a copy under its epoch is not excluded."""
    scene.record("person:a")

    def fail(_epoch: int) -> None:
        raise VaultUnavailableError("the keeper is not there")

    with monkeypatch.context() as patch:
        patch.setattr(scene.vault._keyring.provider, "create", fail)
        with pytest.raises(VaultUnavailableError):
            scene.vault.epochs.rotate()
    outcome = scene.erase("person:a")
    assert get_erasure(scene.deps, scene.ledger_id, outcome.erasure.entry.erasure_id).entry.epoch == 2
    scene.retire(1)
    assert scene.pending(outcome) == "epochs-alive"
    scene.retire(2)
    assert scene.pending(outcome) == "unsigned"


def test_a_rewrap_that_was_rolled_back_counts(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wraps under the new epoch are in the write-ahead log and in dead rows, though no row shows them."""
    scene.record("person:a")
    rewrap = epoch_store.rewrap_keys

    def rewrap_and_fail(*arguments: Any) -> Any:
        rewrap(*arguments)
        raise VaultUnavailableError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(epoch_store, "rewrap_keys", rewrap_and_fail)
        with pytest.raises(VaultUnavailableError):
            scene.vault.epochs.rotate()
    outcome = scene.erase("person:a")
    assert get_erasure(scene.deps, scene.ledger_id, outcome.erasure.entry.erasure_id).entry.epoch == 2
    scene.retire(1)
    assert scene.pending(outcome) == "epochs-alive"
    assert sign_final_erasures(scene.deps) == {}


def test_a_kek_that_came_back_stops_the_signing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is signed rests on the keeper's word, not on the vault's row."""
    scene.record("person:a")
    outcome = scene.erase("person:a")
    scene.retire(1)
    with monkeypatch.context() as patch:
        patch.setattr(scene.vault._keyring.provider, "epochs", lambda: frozenset({1, 2}))
        assert sign_final_erasures(scene.deps) == {}
    assert scene.pending(outcome) == "unsigned"
    assert sign_final_erasures(scene.deps) == {outcome.erasure.entry.erasure_id: None}


def test_copies_and_shared_places_keep_it_open(scene: Scene) -> None:
    """Each with its own word, and only as long as it lasts."""
    scene.record("person:a")
    outcome = scene.erase("person:a")
    scene.retire(1)
    for custody, word in (
        (Custody(copies_kept=30 * DAY), "copies-kept"),
        (Custody(shared_place=True), "shared-place"),
        (Custody(), "unsigned"),
    ):
        scene.vault._custody = custody
        assert scene.pending(outcome) == word


def test_the_embedded_default_shares_its_place(place: Place) -> None:
    """KEKs beside the vault's file: never final, and it says why. On PostgreSQL they lie apart."""
    service = set_up(place)
    scene = Scene(service)
    scene.record("person:a")
    outcome = scene.erase("person:a")
    scene.retire(1)
    fresh = open_service(place)
    scene.vault, scene.deps = fresh.vault, fresh.deps
    assert scene.pending(outcome) == ("shared-place" if place.vault_url.startswith("sqlite") else "unsigned")
    fresh.close()
    service.close()


def test_an_erasure_without_keys_waits_for_the_same_epochs(scene: Scene) -> None:
    """Its list of keys could have come from a vault that was restored: too late does no harm."""
    outcome = scene.erase("person:unknown", block=True)
    assert outcome.erasure.entry.key_ids == ()
    assert scene.pending(outcome) == "epochs-alive"
    scene.retire(1)
    assert sign_final_erasures(scene.deps) == {outcome.erasure.entry.erasure_id: None}


def test_a_subject_is_final_when_all_its_erasures_are(scene: Scene) -> None:
    """Those of single purposes too; never while it is not erased as a whole."""
    who = NameOrRef("person:a", None)
    scene.record("person:a")
    scene.record("person:a", purpose="billing")
    scene.erase("person:a", ["billing"])
    scene.retire(1)
    sign_final_erasures(scene.deps)
    assert describe_subject(scene.deps, scene.ledger_id, who).final_at is None
    whole = scene.erase("person:a")
    assert describe_subject(scene.deps, scene.ledger_id, who).final_at is None
    scene.retire(2)
    sign_final_erasures(scene.deps)
    final_at = describe_subject(scene.deps, scene.ledger_id, who).final_at
    assert final_at is not None
    assert final_at == get_erasure(scene.deps, scene.ledger_id, whole.erasure.entry.erasure_id).final.at


def test_many_erasures_are_signed_page_by_page(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; the count of those that are not final goes down."""
    monkeypatch.setattr("ledger.services.finality._PAGE", 2)
    for number in range(5):
        scene.record(f"person:{number}")
        scene.erase(f"person:{number}")
    assert scene.vault.count_erasures_without("final") == 5
    assert scene.vault.count_erasures_without("final", erased_before=scene.deps.clock() - DAY) == 0
    assert scene.vault.count_erasures_without("final", erased_before=scene.deps.clock() + DAY) == 5
    scene.retire(1)
    assert len(set(sign_final_erasures(scene.deps))) == 5
    assert scene.vault.count_erasures_without("final") == 0
    listed = list_erasures(scene.deps, scene.ledger_id, reference=None, done=None, after=None, limit=10)
    assert all(one.final.at is not None for one in listed)


def test_nothing_is_signed_about_what_the_ledger_has_never_recorded(scene: Scene) -> None:
    """I9: whoever drives the vault alone gets no statement about it, and others get theirs; the subject is not called
    erased."""
    for name in ("a", "b"):
        scene.record(name)
    begun = scene.vault.begin_erasure(
        scene.ledger_id,
        "a",
        erasure_id=scene.deps.new_id(),
        purposes=None,
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=scene.deps.clock(),
        requested_by=OPERATOR,
        block_unknown=False,
    )
    scene.vault.finish_erasure(scene.ledger_id, begun.erasure_id, scene.deps.clock())
    honest = scene.erase("b").erasure.entry
    scene.retire(1)
    assert sign_final_erasures(scene.deps) == {honest.erasure_id: None}
    assert scene.vault.statements(scene.ledger_id, [begun.erasure_id]) == {}
    with pytest.raises(IntegrityError):
        describe_subject(scene.deps, scene.ledger_id, NameOrRef("a", None))
    assert describe_subject(scene.deps, scene.ledger_id, NameOrRef("b", None)).state == "erased"


def test_a_damaged_ledger_does_not_keep_the_others_from_their_statements(scene: Scene) -> None:
    """The error is told with its erasure, and the next call makes it good once the ledger is whole again."""
    scene.record("a")
    ours = scene.erase("a").erasure.entry.erasure_id
    other = Scene(scene.service, "other")
    other.record("a")
    theirs = other.erase("a").erasure.entry.erasure_id
    scene.retire(1)
    heads, of_ours = tables.heads, tables.heads.c.ledger_id == scene.ledger_id
    engine = open_engine(scene.service.place.ledger_url)
    with engine.begin() as connection:
        whole = connection.execute(sa.select(heads.c.frontier).where(of_ours)).scalar_one()
        connection.execute(sa.update(heads).where(of_ours).values(frontier=b"x" * len(whole) * 3))
    outcomes = sign_final_erasures(scene.deps)
    assert outcomes[theirs] is None
    assert isinstance(outcomes[ours], IntegrityError)
    with engine.begin() as connection:
        connection.execute(sa.update(heads).where(of_ours).values(frontier=whole))
    engine.dispose()
    assert sign_final_erasures(scene.deps) == {ours: None}
