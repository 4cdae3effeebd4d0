"""Load: open-loop arrivals through the reference producer."""
