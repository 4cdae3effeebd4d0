"""What the figures of the price say, in words; by situation, and ``all``."""

__all__ = ["FINDINGS"]

FINDINGS = {"all": "-"}
