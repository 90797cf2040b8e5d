"""A witness of logs (https://c2sp.org/tlog-witness): small, and apart from the ledger. It needs nothing of the service
but this program: no setting, no database, no key."""
