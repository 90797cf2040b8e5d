"""Follow the log: catch up, then live; durable subscriptions."""
