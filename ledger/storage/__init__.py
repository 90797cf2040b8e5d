"""The ledger database: tables, statements, dialect differences and migrations."""
