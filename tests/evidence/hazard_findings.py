"""What was learned about each hazard beyond its figures, for the document."""

__all__ = ["FINDINGS", "OTHERWISE"]

OTHERWISE: frozenset[str] = frozenset()
"""Rows that the table of hazards has wrong, as far as real brokers go; FINDINGS says how."""

FINDINGS: dict[str, str] = {}
