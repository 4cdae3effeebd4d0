"""Faults: what is done to the system on purpose, when, to whom, and whether it happened."""
