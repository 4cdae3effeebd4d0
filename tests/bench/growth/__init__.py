"""How rate, memory and latency grow with what there is more of; see ``docs/growth.md``."""
