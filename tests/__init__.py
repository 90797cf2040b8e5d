"""The promises of the ledger, each with the test that fails when it is broken."""
