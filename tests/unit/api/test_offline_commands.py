"""``opened verify`` and ``receipt verify``: what they print, and when they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from api.cli import cli
from keyvault.signatures import SigningKey
from ledger.domain.encoding import encode_leaf
from ledger.domain.events import Envelope, Role, SealedPart
from ledger.domain.merkle import extend_frontier, hash_leaf, hash_node, root_of
from ledger.domain.notes import COSIGNATURE, VerifierKey, cosignature, cosigned_message, parse_note
from ledger.domain.receipts import RECEIPT_DOMAIN, STATEMENT_DOMAIN, canonical_json
from tests.support import opened_answers as made

WITNESS = SigningKey(bytes(range(64, 96)))
WITNESS_KEY = VerifierKey("witness.example", COSIGNATURE, WITNESS.public_key)


def cosigned(note: str) -> str:
    """The same note with the witness's cosignature."""
    signature = WITNESS.sign(cosigned_message(parse_note(note).text, 1_700_000_000))
    return note + cosignature(WITNESS_KEY, 1_700_000_000, signature).line


def policy(folder: Path, *lines: str) -> str:
    """A policy file."""
    file = folder / "policy"
    file.write_text("".join(f"{line}\n" for line in lines))
    return str(file)


def run(folder: Path, command: str, answer: Any, *arguments: str) -> Result:
    """Check a file."""
    file = folder / "file.json"
    file.write_text(json.dumps(answer))
    return CliRunner().invoke(cli, [command, "verify", str(file), "--key", made.KEY.text, *arguments])


ERASURE_ID = UUID(int=9)


def leaf_of(event_type: str, position: int, event_id: UUID, part: SealedPart) -> bytes:
    """The leaf of an event in the stream of the erasure."""
    envelope = Envelope(made.LEDGER, event_id, ERASURE_ID.bytes, "ledger", event_type, 1, None, None, None)
    return encode_leaf(
        envelope,
        [part],
        position=position,
        stream_version=position,
        recorded_at=1_700_000_000_000_000,
        recorded_by=made.WRITER,
    )


def statement(final_at: str) -> dict[str, Any]:
    """That the erasure is final, which is the third event, whose part says something that nobody sees."""
    leaf = leaf_of("ErasureFinal", 2, UUID(int=10), SealedPart(Role.NONPERSONAL, bytes(32), b"sealed"))
    frontier = [hash_node(*made.HASHES[:2])]
    payload = {
        "kind": "final",
        "erasure_id": str(ERASURE_ID),
        "ledger_id": str(made.LEDGER),
        "subject_ref": made.REF,
        "final_at": final_at,
        "epochs": [],
        "position": 2,
        "leaf": made.b64(leaf),
    }
    return {
        "payload": payload,
        "proof": {
            "index": 2,
            "hashes": [made.b64(frontier[0])],
            "frontier": [made.b64(frontier[0])],
            "consistency": [],
        },
        "checkpoint": made.note_of([*made.HASHES[:2], hash_leaf(leaf)]),
        "signature": made.b64(made.LOG.sign(STATEMENT_DOMAIN + canonical_json(payload))),
    }


def receipt(note: str | None = None) -> dict[str, Any]:
    """The receipt of an erasure that is the second event of its ledger."""
    erasure_id = ERASURE_ID
    leaf = leaf_of("SubjectErased", 1, erasure_id, SealedPart(Role.SHREDDED, bytes(32), b""))
    hashes = [made.HASHES[0], hash_leaf(leaf)]
    payload = {
        "id": str(erasure_id),
        "ledger_id": str(made.LEDGER),
        "subject_ref": made.REF,
        "name_commitment": None,
        "key_ids": [bytes(32).hex()],
        "events": 1,
        "requested_at": "2023-11-14T22:13:19.000000Z",
        "erased_at": "2023-11-14T22:13:20.000000Z",
        "position": 1,
        "leaf": made.b64(leaf),
        "root": made.b64(root_of(extend_frontier(0, (), hashes)[1])),
        "root_before": made.b64(hashes[0]),
    }
    link = {"index": 1, "hashes": [made.b64(hashes[0])], "frontier": [made.b64(hashes[0])], "consistency": []}
    signature = made.b64(made.LOG.sign(RECEIPT_DOMAIN + canonical_json(payload)))
    checkpoint = note or made.note_of(hashes)
    return {"payload": payload, "proof": link, "checkpoint": checkpoint, "signature": signature, "statements": []}


@pytest.mark.parametrize("command", ["opened", "receipt"])
def test_a_policy_asks_for_the_witnesses_that_it_names(tmp_path: Path, command: str) -> None:
    """Without their cosignature the file fails, though the log has signed it."""
    answer = made.page() if command == "opened" else receipt()
    asks = policy(tmp_path, f"log {made.KEY.text}", f"witness W {WITNESS_KEY.text}", "quorum W")
    assert run(tmp_path, command, answer).exit_code == 0
    alone = run(tmp_path, command, answer, "--policy", asks)
    assert (alone.exit_code, "cosigned by none of its witnesses" in alone.output) == (1, True)
    answer["checkpoint"] = cosigned(answer["checkpoint"])
    assert run(tmp_path, command, answer, "--policy", asks).exit_code == 0
    forged = {**answer, "checkpoint": answer["checkpoint"][:-4] + "AA=\n"}
    assert run(tmp_path, command, forged, "--policy", asks).exit_code == 1


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("quorum W",), "line 1"),
        (("log other.example+" + made.KEY.text.split("+", 1)[1], "quorum none"), "line 1"),
        ((f"log {VerifierKey('other.example', 1, WITNESS.public_key).text}", "quorum none"), "names other logs"),
        ((), "no quorum line"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    """With the line; and one of other logs than the key's."""
    result = run(tmp_path, "opened", made.page(), "--policy", policy(tmp_path, *lines))
    assert (result.exit_code, says in result.output) == (1, True)


def test_what_was_shown_is_said(tmp_path: Path) -> None:
    """How much is open and how much hidden, and what nobody proves."""
    assert run(tmp_path, "opened", made.page()).output.splitlines() == [
        "checkpoint of ledger.example/hospital: 3 events, signed by the log's key",
        "3 events shown, and all of them are what was recorded: 6 of their parts opened, 1 hidden",
        "not proven: subject_ref; purpose; schema_status; reason, at and erasure_id of redactions; nor whether other "
        "events were left out",
    ]


def test_each_event_that_fails_gets_a_line(tmp_path: Path) -> None:
    """With its place in the file and in the log; the others are not called proven."""
    answer = made.page()
    answer["events"][0]["subject"] = "canary"
    answer["events"][2]["type"] = "canary"
    result = run(tmp_path, "opened", answer)
    assert result.exit_code == 1
    assert result.output.splitlines()[:2] == [
        "event 1 (position 0): its subject is not what was recorded",
        "event 3 (position 2): its type is not what was recorded",
    ]
    assert "2 of 3 events" in result.output
    assert "canary" not in result.output


def test_a_receipt_without_a_checkpoint_is_not_enough(tmp_path: Path) -> None:
    """It is said that it is signed; a script that looks at the exit status alone does not take it for proven."""
    shown = {**receipt(), "proof": None, "checkpoint": None}
    result = run(tmp_path, "receipt", shown)
    assert result.exit_code == 1
    assert "signed by the ledger: 1 keys" in result.output
    assert "not linked to a checkpoint" in result.output


def test_of_a_statement_it_is_said_what_is_only_signed(tmp_path: Path) -> None:
    """The leaf tells that there is a statement, and of which kind; the same leaf goes with whatever time is signed."""
    for final_at in ("2024-01-01T00:00:00.000000Z", "1999-01-01T00:00:00.000000Z"):
        result = run(tmp_path, "receipt", {**receipt(), "statements": [statement(final_at)]})
        assert result.exit_code == 0
        recorded = "proven to be recorded, at position 2, is that it was stated, not the time"
        assert f"final since {final_at}: signed; {recorded}\n" in result.output
    old = statement("2024-01-01T00:00:00.000000Z")
    old["payload"] = {name: value for name, value in old["payload"].items() if name not in {"position", "leaf"}}
    signature = made.b64(made.LOG.sign(STATEMENT_DOMAIN + canonical_json(old["payload"])))
    answer = {**receipt(), "statements": [{"payload": old["payload"], "signature": signature}]}
    assert "final since 2024-01-01T00:00:00.000000Z: signed\n" in run(tmp_path, "receipt", answer).output


@pytest.mark.parametrize("key", ["", "nonsense", made.KEY.text[:-1], WITNESS_KEY.text])
def test_a_key_that_is_none_of_a_log_is_a_usage_error(tmp_path: Path, key: str) -> None:
    """Mistyped, or a witness's."""
    file = tmp_path / "file"
    file.write_bytes(b"{}")
    for command in ("opened", "receipt"):
        result = CliRunner().invoke(cli, [command, "verify", str(file), "--key", key])
        assert result.exit_code == 2
