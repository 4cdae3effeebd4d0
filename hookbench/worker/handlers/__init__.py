"""Handlers: what a worker does with a task."""
