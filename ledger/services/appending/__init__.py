"""Appends that wait for one ledger's head share a transaction (group commit, docs/adr/0012-group-commit.md)."""
