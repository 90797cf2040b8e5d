"""Audit a ledger from outside: over HTTP, with its public key, and with what the auditor kept from last time. Nothing
that the server says is believed before it is verified."""
