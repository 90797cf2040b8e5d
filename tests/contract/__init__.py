"""One suite for every store and every key provider."""
