"""Brokers: real servers, found or started here, and stopped whatever happens."""
