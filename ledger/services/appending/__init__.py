"""Record events: a batch (``append``), the lines of an upload (``ingest``). What waits for one ledger's head shares a
transaction (group commit, docs/adr/0012-group-commit.md)."""
