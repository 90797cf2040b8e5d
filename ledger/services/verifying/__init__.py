"""Check a ledger against itself, against its checkpoints, and against the key vault (I10)."""
