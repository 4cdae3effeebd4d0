"""Faults on the wire: a proxy that knows the frames of both brokers, in a process of its own."""
