"""Checkpoints and proof files are those of C2SP tlog-checkpoint and tlog-proof, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.checkpoints import (
    PROOF_HASHES,
    Checkpoint,
    TlogProof,
    open_checkpoint,
    parse_checkpoint,
    parse_tlog_proof,
)
from ledger.domain.merkle import TREE_SIZES
from ledger.domain.notes import ED25519, NoteError, VerifierKey, signed_note

ROOT = bytes(range(32))
ROOT_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SEED = SigningKey(bytes(range(32)))
LOG = VerifierKey("example.org/hospital", ED25519, SEED.public_key)


def published(checkpoint: Checkpoint) -> str:
    """The checkpoint as the log signs it."""
    return str(signed_note(checkpoint.text, LOG, SEED.sign(checkpoint.text.encode())))


def test_a_checkpoint_is_three_lines() -> None:
    """Origin, size, root; further lines are kept as they are."""
    text = f"example.org/hospital\n42\n{ROOT_TEXT}\n"

    assert parse_checkpoint(text) == Checkpoint("example.org/hospital", 42, ROOT)
    assert Checkpoint("example.org/hospital", 42, ROOT).text == text
    assert parse_checkpoint(f"{text}more\n") == Checkpoint("example.org/hospital", 42, ROOT, ("more",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"o\n1\n{ROOT_TEXT}",
        f"o\n\n{ROOT_TEXT}\n",
        "o\n1\n",
        f"o\n01\n{ROOT_TEXT}\n",
        f"o\n-1\n{ROOT_TEXT}\n",
        f"o\n+1\n{ROOT_TEXT}\n",
        f"o\n1.0\n{ROOT_TEXT}\n",
        f"o\n\u0661\n{ROOT_TEXT}\n",
        f"o\n{TREE_SIZES}\n{ROOT_TEXT}\n",
        "o\n1\nAAEC\n",
        "o\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
        f"o\n1\n{ROOT_TEXT}\n\n",
        f"\n1\n{ROOT_TEXT}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """Lines that are missing or empty, other ways to write a number or a hash."""
    with pytest.raises(NoteError):
        parse_checkpoint(text)


def test_a_checkpoint_counts_only_when_its_log_has_signed_it() -> None:
    """Neither another key nor another origin under the right key will do."""
    checkpoint = Checkpoint("example.org/hospital", 42, ROOT)
    other = VerifierKey("example.org/hospital", ED25519, SigningKey(bytes(32)).public_key)

    assert open_checkpoint(published(checkpoint), LOG, verify_ed25519) == checkpoint
    with pytest.raises(NoteError, match="no signature by"):
        open_checkpoint(published(checkpoint), other, verify_ed25519)
    with pytest.raises(NoteError, match="of another log"):
        open_checkpoint(published(Checkpoint("example.org/school", 42, ROOT)), LOG, verify_ed25519)


@given(
    index=st.integers(min_value=0, max_value=TREE_SIZES - 1),
    hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=PROOF_HASHES),
    extra=st.none() | st.binary(),
)
def test_proof_files_survive_the_way_out_and_in(index: int, hashes: list[bytes], extra: bytes | None) -> None:
    """With and without what is extra, and with no hashes in a tree of one leaf."""
    proof = TlogProof(index, tuple(hashes), published(Checkpoint("o", 1, ROOT)), extra)

    assert parse_tlog_proof(str(proof)) == proof


def test_a_proof_file_looks_as_specified() -> None:
    """Header, extra, index, hashes, a blank line, and the checkpoint as it is."""
    proof = TlogProof(7, (ROOT,), "checkpoint\n", b"\x00")

    assert str(proof) == f"c2sp.org/tlog-proof@v1\nextra AA==\nindex 7\n{ROOT_TEXT}\n\ncheckpoint\n"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v2\nindex 7\n\nc\n",
        "c2sp.org/tlog-proof@v1\n\nc\n",
        "c2sp.org/tlog-proof@v1\nindex 07\n\nc\n",
        "c2sp.org/tlog-proof@v1\nextra !\nindex 7\n\nc\n",
        "c2sp.org/tlog-proof@v1\nindex 7\nextra AA==\n\nc\n",
        "c2sp.org/tlog-proof@v1\nindex 7\nAAEC\n\nc\n",
        "c2sp.org/tlog-proof@v1\nindex 7\n" + f"{ROOT_TEXT}\n" * (PROOF_HASHES + 1) + "\nc\n",
    ],
)
def test_what_is_no_proof_file_is_refused(raw: str) -> None:
    """Another header, lines that are missing or out of order, hashes that are none, too many of them."""
    with pytest.raises(NoteError):
        parse_tlog_proof(raw)
