"""What several benchmarks share: load over HTTP, peers, ceilings, and who used the processors."""
