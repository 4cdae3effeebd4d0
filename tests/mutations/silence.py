"""How a planted bug stays unseen by a search, in the fewest words."""

__all__ = ["HARMLESS", "HEALED", "NOT_CALLED"]

NOT_CALLED = "not called"
"""The planted code never ran."""
HARMLESS = "harms no task"
"""It ran, and did not say that it harmed a task."""
HEALED = "harmed, and not seen"
"""It harmed tasks, and every run was valid."""
