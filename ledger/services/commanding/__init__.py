"""Decide: aggregates that handle commands, processes that react to events."""
