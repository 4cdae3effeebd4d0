"""One rehearsal, from start to verdict."""
