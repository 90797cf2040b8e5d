"""Real PostgreSQL, several processes."""
