"""Scenarios: rehearsals as TOML files."""
