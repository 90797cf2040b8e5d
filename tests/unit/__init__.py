"""Pure and fast: no database, no network, no clock."""
