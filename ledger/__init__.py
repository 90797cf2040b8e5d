"""The audit ledger: what happened, in order, provably unchanged. Knows of keys only that they seal."""
