"""Checkpoints and proofs from the command line: what is printed verifies with the printed key."""

from __future__ import annotations

from pathlib import Path

from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import open_checkpoint, parse_tlog_proof
from ledger.domain.merkle import hash_leaf, verify_inclusion
from ledger.domain.notes import parse_verifier_key
from tests.e2e.cli_support import Cli, event, ndjson


def test_a_checkpoint_and_a_proof_are_files_for_others(tmp_path: Path) -> None:
    """Of all that is recorded now; an event that is not there is an error."""
    cli = Cli(tmp_path / "home", {"AUDIT_LEDGER_ORIGIN": "log.example"})
    cli.must("init")
    cli.must("import", "-", "--source", "s", "--ledger", "er", "--create", text=ndjson([event(), event()]))
    (_, second) = cli.lines("query", "--ledger", "er")

    key = parse_verifier_key(cli.must("checkpoint", "--ledger", "er", "--key").strip())
    checkpoint = open_checkpoint(cli.must("checkpoint", "--ledger", "er"), key, verify_ed25519)
    proof = parse_tlog_proof(cli.must("proof", second["id"], "--ledger", "er"))
    missing = cli.run("proof", second["id"].replace(second["id"][:8], "00000000"), "--ledger", "er")

    assert (key.name, checkpoint.size, proof.index) == ("log.example/er", 2, 1)
    assert proof.extra is not None
    leaf_hash = hash_leaf(proof.extra)
    verify_inclusion(index=1, size=2, leaf_hash=leaf_hash, proof=proof.hashes, root=checkpoint.root)
    assert (missing.returncode, missing.stderr) == (1, "Error: there is no event of this id in this ledger\n")
