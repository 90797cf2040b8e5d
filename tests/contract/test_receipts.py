"""Receipts are complete, always the same bytes, and checked by anybody: on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from api.json_text import json_bytes
from api.receipt_files import CheckedReceipt, UnprovenReceiptError, check_receipt
from api.rendering import render_outcome, render_receipt
from keyvault import tables as vault_tables
from keyvault.finality import Custody
from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import open_checkpoint
from ledger.domain.events import RecordedEvent
from ledger.domain.merkle import EMPTY_ROOT
from ledger.domain.notes import ED25519, VerifierKey
from ledger.domain.receipts import STATEMENT_DOMAIN, canonical_json
from ledger.errors import IntegrityError, StoreUnavailableError
from ledger.services import finality, receipts
from ledger.services.erase import ErasureOutcome
from ledger.services.finality import sign_final_erasures
from ledger.services.proving.publishing import log_key, publish
from ledger.services.receipts import Receipt, get_receipt
from ledger.services.unlinking import DAY, unlink_due
from ledger.storage import tables
from tests.support.ledgers import Ledger, a_fact, a_visit


class CrashError(BaseException):
    """The process dies here: nothing may hold this up."""


def crash(*_arguments: Any, **_options: Any) -> Any:
    """Die."""
    raise CrashError


def fail(*_arguments: Any, **_options: Any) -> Any:
    """What is called is not there."""
    raise StoreUnavailableError("not now")


def again(ledger: Ledger, outcome: ErasureOutcome) -> Receipt:
    """The receipt, as it is asked for later."""
    return get_receipt(ledger.deps, ledger.ledger_id, outcome.erasure.entry.erasure_id)


def check(ledger: Ledger, shown: Any, key: VerifierKey | None = None) -> CheckedReceipt:
    """Check a receipt as it is sent, with the public key alone."""
    of = key or log_key(ledger.deps, ledger.ledger_id)
    text = shown if isinstance(shown, bytes) else json_bytes(shown)
    return check_receipt(
        text,
        lambda signature, message: verify_ed25519(of.public_key, signature, message),
        lambda note: open_checkpoint(note, of, verify_ed25519),
    )


def refused(ledger: Ledger, shown: Any) -> str:
    """Why a receipt is refused."""
    with pytest.raises(UnprovenReceiptError) as caught:
        check(ledger, shown)
    return caught.value.detail


def erased(ledger: Ledger, *, before: int = 3, name: str = "A") -> ErasureOutcome:
    """Somebody of whom something was recorded, erased."""
    ledger.append(a_visit(name), *(a_fact() for _ in range(before - 1)))
    return ledger.erase(f"patient:{name}")


def altered(shown: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A copy of a receipt, altered."""
    copied: dict[str, Any] = json.loads(json_bytes(shown))
    change(copied)
    return copied


# Complete


@pytest.mark.parametrize("before", [1, 2, 7, 256, 300])
def test_a_receipt_is_proven_offline(ledger: Ledger, before: int) -> None:
    """Its leaf, and the roots before and after it, are linked to a checkpoint, wherever in the tree it stands."""
    outcome = erased(ledger, before=before)
    checked = check(ledger, render_receipt(outcome.receipt))
    assert checked.payload == outcome.receipt.payload
    assert (checked.payload["position"], checked.payload["events"]) == (before, 1)
    assert checked.checkpoint is not None
    assert checked.checkpoint.size == before + 1
    ledger.assert_intact()


def test_a_receipt_can_be_the_first_thing_in_a_ledger(ledger: Ledger) -> None:
    """Before it there was the empty tree."""
    outcome = ledger.erase("patient:Z", block_unknown=True)
    assert base64.b64decode(outcome.receipt.payload["root_before"]) == EMPTY_ROOT
    assert check(ledger, render_receipt(outcome.receipt)).payload["key_ids"] == []


def test_a_receipt_that_is_made_later_is_linked_to_a_later_checkpoint(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consistency proof leads from its roots to there."""
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "publish", fail)
        outcome = erased(ledger, before=5)
    ledger.append(*(a_fact() for _ in range(300)))
    publish(ledger.deps, ledger.ledger_id, at_least=306)
    checked = check(ledger, render_receipt(again(ledger, outcome)))
    assert checked.checkpoint is not None
    assert (checked.payload["position"], checked.checkpoint.size) == (5, 306)


def test_the_answer_to_the_erasure_shows_whose_it_is(ledger: Ledger) -> None:
    """With name and salt, and only then."""
    outcome = erased(ledger)
    checked = check(ledger, render_outcome(outcome))
    assert checked.name_salt is not None
    checked.require_name("patient:A", checked.name_salt)
    other = base64.b64encode(bytes(32)).decode()
    for name, salt in (("patient:B", checked.name_salt), ("patient:A", other), ("", checked.name_salt)):
        with pytest.raises(UnprovenReceiptError, match="not the receipt of that name"):
            checked.require_name(name, salt)
    assert check(ledger, render_receipt(outcome.receipt)).name_salt is None


def test_a_name_and_a_salt_are_cut_apart_in_one_place_only(ledger: Ledger) -> None:
    """What is hashed are the same bytes wherever they are cut: a salt of another length would show a part of the name,
    or more than it, for the name."""
    checked = check(ledger, render_outcome(erased(ledger)))
    assert checked.name_salt is not None
    salted = base64.b64decode(checked.name_salt) + b"patient:A"
    for cut in range(len(salted)):
        name, salt = salted[cut:].decode(errors="replace"), base64.b64encode(salted[:cut]).decode()
        if cut == 32:
            checked.require_name(name, salt)
        else:
            with pytest.raises(UnprovenReceiptError, match="32 bytes"):
                checked.require_name(name, salt)


def test_every_altered_byte_is_refused_or_changes_nothing(ledger: Ledger) -> None:
    """Payload, leaf, roots, proof, checkpoint, signature, statements: each byte in turn."""
    outcome = erased(ledger)
    ledger.backend.clock.now += 91 * DAY
    unlink_due(ledger.deps, ledger.ledger_id)
    good = json_bytes(render_receipt(again(ledger, outcome)))
    key = log_key(ledger.deps, ledger.ledger_id)
    expected = json.loads(good)
    assert [one["payload"]["kind"] for one in expected["statements"]] == ["unlinked"]
    for index in range(len(good)):
        changed = good[:index] + bytes((good[index] ^ 1,)) + good[index + 1 :]
        try:
            check(ledger, changed, key)
        except UnprovenReceiptError:
            continue
        assert json.loads(changed) == expected


def test_what_the_ledger_signs_must_have_a_form(ledger: Ledger) -> None:
    """Whatever an operator signs: what is printed of it is a ref, a time, a number."""
    shown = render_receipt(erased(ledger).receipt)
    wrong = {"subject_ref": "\x1b[2J", "requested_at": "soon", "events": -1, "name_commitment": "AAAA", "position": 3.0}
    for member, value in wrong.items():
        payload = {**shown["payload"], member: value}
        message = b"audit-ledger v1 receipt\n" + canonical_json(payload)
        signature = base64.b64encode(ledger.deps.vault.sign(ledger.ledger_id, message)).decode()
        refused(ledger, {**shown, "payload": payload, "signature": signature})


def test_another_receipts_pieces_do_not_do(ledger: Ledger) -> None:
    """Proof, checkpoint, signature and statements belong to one erasure; nothing may be missing or added."""
    one, other = (render_receipt(erased(ledger, name=name).receipt) for name in "AB")
    for member in ("payload", "proof", "checkpoint", "signature"):
        refused(ledger, {**one, member: other[member]})
        refused(ledger, {name: value for name, value in one.items() if name != member})
    for member in ("index", "hashes", "frontier"):
        refused(ledger, {**one, "proof": {**one["proof"], member: other["proof"][member]}})
    refused(ledger, {**one, "proof": {**one["proof"], "consistency": one["proof"]["hashes"]}})
    refused(ledger, {**one, "proof": None})
    refused(ledger, {**one, "checkpoint": None})
    refused(ledger, {**one, "verdict": "done"})
    refused(ledger, altered(one, lambda shown: shown["payload"].update(verdict="done")))
    refused(ledger, {**one, "statements": [one]})
    stranger = ledger.backend.new_ledger()
    stranger.append(a_fact())
    with pytest.raises(UnprovenReceiptError, match="not signed by this key"):
        check(ledger, one, log_key(stranger.deps, stranger.ledger_id))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"null", b"\xff", b'{"a":1,"a":2}', b"[" * 100_000, b'{"receipt":1}']
)
def test_what_is_no_receipt_is_refused(ledger: Ledger, text: bytes) -> None:
    """In one line."""
    refused(ledger, text)


# Always the same bytes


def test_a_receipt_keeps_its_bytes_whatever_comes_after(ledger: Ledger) -> None:
    """Payload, signature, proof and checkpoint are what was first handed out."""
    outcome = erased(ledger)
    ledger.append(*(a_fact() for _ in range(20)))
    erased(ledger, name="B")
    ledger.backend.clock.now += 10_000_000
    publish(ledger.deps, ledger.ledger_id)
    assert json_bytes(render_receipt(again(ledger, outcome))) == json_bytes(render_receipt(outcome.receipt))


@pytest.mark.parametrize("step", ["publish", "prove_inclusion", "prove_consistency", "note_of", "add_receipt"])
def test_while_there_is_no_checkpoint_a_receipt_says_so(
    ledger: Ledger, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in the way, the erasure is answered, with its salt; payload and signature are what they stay; the
    next one who asks has it completed."""
    with monkeypatch.context() as patch:
        patch.setattr(type(ledger.deps.transparency) if step == "add_receipt" else receipts, step, fail)
        outcome = erased(ledger)
        assert outcome.name_salt is not None
        assert (outcome.receipt.proof, outcome.receipt.checkpoint) == (None, None)
        assert check(ledger, render_receipt(outcome.receipt)).checkpoint is None
    completed = again(ledger, outcome)
    assert (completed.payload, completed.signature) == (outcome.receipt.payload, outcome.receipt.signature)
    assert check(ledger, render_receipt(completed)).checkpoint is not None
    assert again(ledger, outcome) == completed


def test_whoever_dies_before_storing_it_has_lost_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published, and not stored: the next one makes it again."""
    with monkeypatch.context() as patch:
        patch.setattr(type(ledger.deps.transparency), "add_receipt", crash)
        with pytest.raises(CrashError):
            erased(ledger)
    outcome = ledger.erase("patient:A")
    assert outcome.repeated
    assert check(ledger, render_receipt(outcome.receipt)).checkpoint is not None


def test_of_makers_who_race_the_first_one_is_given_by_all(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are linked to different checkpoints, each of them true; one stays."""
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "publish", fail)
        outcome = erased(ledger)
    barrier, made = Barrier(3), []

    def meet(*arguments: Any, **options: Any) -> Any:
        barrier.wait(20)
        return publish(*arguments, **options)

    monkeypatch.setattr(receipts, "publish", meet)
    makers = [Thread(target=lambda: made.append(again(ledger, outcome))) for _ in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(30)
    assert len(made) == 3
    assert made[0] == made[1] == made[2] == again(ledger, outcome)
    assert made[0].checkpoint is not None


def test_a_receipt_of_before_the_roots_were_kept_stays_what_it_was(ledger: Ledger) -> None:
    """Without ``root_before`` in its payload, as it was signed then; and with a proof now."""
    with ledger.backend.engine.connect() as connection:
        kept = {column["name"] for column in sa.inspect(connection).get_columns("erasure_roots")}
    assert "root_before" in kept
    ledger.append(a_visit("A"))
    roots = tables.erasure_roots
    outcome = _without_receipt(ledger)
    ledger.backend.tamper(sa.update(roots).where(roots.c.ledger_id == ledger.ledger_id).values(root_before=None))
    receipt = again(ledger, outcome)
    assert receipt.payload == {name: value for name, value in outcome.receipt.payload.items() if name != "root_before"}
    assert check(ledger, render_receipt(receipt)).checkpoint is not None


def _without_receipt(ledger: Ledger) -> ErasureOutcome:
    """An erasure whose receipt nobody has stored yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipts, "publish", fail)
        return ledger.erase("patient:A")


# Hands in the database


def test_a_stored_receipt_that_was_altered_is_not_given_out(ledger: Ledger) -> None:
    """I10: the ledger has not signed it."""
    outcome = erased(ledger)
    stored = tables.receipts
    of_it = stored.c.ledger_id == ledger.ledger_id
    ledger.backend.tamper(sa.update(stored).where(of_it).values(payload='{"id":"another"}'))
    with pytest.raises(IntegrityError, match="not what was signed"):
        again(ledger, outcome)


def test_no_hash_of_a_name_is_stored_outside_of_the_vault(ledger: Ledger) -> None:
    """I5: the commitment is put in when the receipt is shown."""
    commitment = erased(ledger).receipt.payload["name_commitment"]
    with ledger.backend.engine.connect() as connection:
        rows = [repr(row) for table in tables.metadata.tables.values() for row in connection.execute(sa.select(table))]
    assert not any(commitment in row or repr(base64.b64decode(commitment)) in row for row in rows)


def test_a_receipt_whose_commitment_was_lost_is_signed_without(ledger: Ledger) -> None:
    """After an older vault was put back and the erasure done again: the same but for that, and with the same proof."""
    outcome = erased(ledger)
    entries = vault_tables.erasures
    of_it = entries.c.erasure_id == outcome.erasure.entry.erasure_id
    ledger.backend.vault_execute(sa.update(entries).where(of_it).values(name_commitment=None))
    receipt = again(ledger, outcome)
    assert receipt.payload == {**outcome.receipt.payload, "name_commitment": None}
    assert (receipt.proof, receipt.checkpoint) == (outcome.receipt.proof, outcome.receipt.checkpoint)
    with pytest.raises(UnprovenReceiptError, match="commits to no name"):
        check(ledger, render_receipt(receipt)).require_name("patient:A", "")


def test_nothing_is_signed_of_an_event_that_was_altered(ledger: Ledger) -> None:
    """A receipt says what the leaf says, or nothing."""
    ledger.append(a_visit("A"))
    outcome = _without_receipt(ledger)
    events = tables.events
    of_it = sa.and_(events.c.ledger_id == ledger.ledger_id, events.c.position == 1)
    ledger.backend.tamper(sa.update(events).where(of_it).values(recorded_at=5))
    with pytest.raises(IntegrityError, match="not what its leaf says"):
        again(ledger, outcome)


def test_a_root_that_was_altered_is_never_proven(ledger: Ledger) -> None:
    """With an alarm; nothing is stored."""
    ledger.append(a_visit("A"))
    outcome = _without_receipt(ledger)
    roots = tables.erasure_roots
    of_it = roots.c.ledger_id == ledger.ledger_id
    ledger.backend.tamper(sa.update(roots).where(of_it).values(root_before=bytes(32)))
    assert again(ledger, outcome).proof is None
    assert "a receipt cannot be proven" in ledger.alarms[-1][2]
    assert ledger.deps.transparency.receipt(ledger.ledger_id, outcome.erasure.entry.erasure_id) is None


# Statements


def finalised(ledger: Ledger) -> list[RecordedEvent]:
    """What the worker does once the epochs are gone. Gives the events that say so."""
    sign_final_erasures(ledger.deps)
    return [event for event in ledger.recorded() if event.envelope.event_type == "ErasureFinal"]


@pytest.fixture
def apart(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger whose KEKs lie apart from the vault, so that erasures become final."""
    monkeypatch.setattr(ledger.backend.vault, "_custody", Custody())
    # What other tests have erased in the same vault is stated before, and not in the middle of this one.
    retire(ledger)
    sign_final_erasures(ledger.deps)
    return ledger


def retire(ledger: Ledger) -> None:
    """Rotate, back up, destroy what came before."""
    epochs = ledger.backend.vault.epochs
    epochs.rotate()
    epochs.note_backup(ledger.deps.clock(), "made")
    for row in epochs.overview().rows:
        if row.state == "retiring":
            epochs.destroy(row.epoch)


def test_what_is_stated_later_is_an_event_with_a_proof_of_its_own(apart: Ledger) -> None:
    """Final, then unlinked: signed, recorded in the erasure's own stream with no name, and proven offline; the receipt
    keeps its bytes."""
    outcome = erased(apart)
    retire(apart)
    assert len(finalised(apart)) == 1
    apart.backend.clock.now += 91 * DAY
    unlink_due(apart.deps, apart.ledger_id)
    unlink_due(apart.deps, apart.ledger_id)
    receipt = again(apart, outcome)
    checked = check(apart, render_receipt(receipt))
    assert [(one.kind, one.position) for one in checked.statements] == [("final", 4), ("unlinked", 5)]
    assert all(one.checkpoint is not None for one in checked.statements)
    assert (receipt.payload, receipt.proof) == (outcome.receipt.payload, outcome.receipt.proof)
    assert again(apart, outcome) == receipt
    erasure_id = outcome.erasure.entry.erasure_id
    own = apart.query(after_position=2)
    assert [event.recorded.stream_version for event in own] == [1, 2, 3]
    assert {event.stream for event in own} == {f"ledger-{erasure_id}"}
    assert "patient" not in json.dumps([event.nonpersonal for event in own])
    apart.assert_intact()


def test_a_crash_between_event_and_statement_is_made_good(apart: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event, and the statement says what it says, though by then another time would be said."""
    outcome = erased(apart)
    retire(apart)
    with monkeypatch.context() as patch:
        patch.setattr(type(apart.backend.vault), "add_statement", crash)
        with pytest.raises(CrashError):
            finalised(apart)
    (event,) = [event for event in apart.recorded() if event.envelope.event_type == "ErasureFinal"]
    said = apart.event_at(event.position).nonpersonal
    payload = finality._payload
    monkeypatch.setattr(finality, "_payload", lambda entry, state, at: payload(entry, state, at + 5_000_000))
    assert finalised(apart) == [event]
    (statement,) = again(apart, outcome).statements
    assert {name: statement.payload[name] for name in said or {}} == said
    assert statement.payload["position"] == event.position
    check(apart, render_receipt(again(apart, outcome)))


def test_an_event_that_somebody_put_in_its_place_is_not_signed(apart: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is derived with a key of the vault; were it taken all the same, nothing is stated."""
    taken = apart.append_one(a_fact()).event_id
    outcome = erased(apart)
    retire(apart)
    monkeypatch.setattr(type(apart.backend.vault), "derive_ids", lambda *_: [taken])
    error = sign_final_erasures(apart.deps)[outcome.erasure.entry.erasure_id]
    assert isinstance(error, IntegrityError)
    assert "event of a statement" in str(error)
    assert not again(apart, outcome).statements


def test_statements_of_before_they_were_recorded_stay_valid(apart: Ledger) -> None:
    """Signed without an event: shown without a proof, and checked; nothing is stated twice."""
    outcome = erased(apart)
    entry = outcome.erasure.entry
    payload = {
        "kind": "final",
        "erasure_id": str(entry.erasure_id),
        "ledger_id": str(apart.ledger_id),
        "subject_ref": f"sub_{entry.subject_ref.hex()}",
        "final_at": "2026-01-01T00:00:00.000000Z",
        "epochs": [],
    }
    vault = apart.backend.vault
    signature = vault.sign(apart.ledger_id, STATEMENT_DOMAIN + canonical_json(payload))
    vault.add_statement(apart.ledger_id, entry.erasure_id, "final", 1, canonical_json(payload).decode(), signature)
    shown = render_receipt(again(apart, outcome))
    assert shown["statements"][0]["proof"] is None
    (statement,) = check(apart, shown).statements
    assert (statement.kind, statement.position, statement.checkpoint) == ("final", None, None)
    (old,) = shown["statements"]
    # As an older version gave it out.
    check(apart, {**shown, "statements": [{"payload": old["payload"], "signature": old["signature"]}]})
    retire(apart)
    assert finalised(apart) == []
    refused(apart, altered(shown, lambda copied: copied["statements"].append(copied["statements"][0])))
    refused(apart, altered(shown, lambda copied: copied["statements"][0]["payload"].update(epochs=[1])))


def test_a_statement_about_another_erasure_is_refused(apart: Ledger) -> None:
    """Though the ledger has signed it."""
    one, other = erased(apart), erased(apart, name="B")
    retire(apart)
    finalised(apart)
    shown, strange = (render_receipt(again(apart, outcome)) for outcome in (one, other))
    assert "another erasure" in refused(apart, {**shown, "statements": strange["statements"]})
    (own,), (theirs,) = shown["statements"], strange["statements"]
    refused(apart, {**shown, "statements": [{**own, "proof": theirs["proof"], "checkpoint": theirs["checkpoint"]}]})
    assert check(apart, {**shown, "statements": []}).statements == ()


def test_a_key_of_another_name_opens_no_checkpoint(ledger: Ledger) -> None:
    """The signature of the payload is by the key; the checkpoint's origin is the key's name."""
    shown = render_receipt(erased(ledger).receipt)
    key = log_key(ledger.deps, ledger.ledger_id)
    with pytest.raises(UnprovenReceiptError, match="no signature by"):
        check(ledger, shown, VerifierKey("log.example/other", ED25519, key.public_key))
