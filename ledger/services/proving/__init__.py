"""The ledger as a transparency log: checkpoints that are published, and proofs under them."""
