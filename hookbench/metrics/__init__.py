"""What a worker or a producer tells Prometheus, and whether that is what its ledger says."""
