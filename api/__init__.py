"""The outside: HTTP, command line and settings, and the wiring of ledger and key vault."""
