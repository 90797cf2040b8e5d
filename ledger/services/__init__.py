"""The use cases, one module each, written against `ledger.ports`."""
