"""The deterministic simulation: virtual time, simulated brokers, faults from a seed."""
