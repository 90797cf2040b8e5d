"""Projections: folds of the log that are kept up to date as read models."""
