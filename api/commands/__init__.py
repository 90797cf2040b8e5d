"""The commands of ``audit-ledger``: thin, over the same use cases as the HTTP API."""
