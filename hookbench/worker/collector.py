"""Python's collector of cycles, in a process that leaves few of them."""

import gc

__all__ = ["NEW_OBJECTS", "collect_seldom"]

NEW_OBJECTS = 50_000
"""As many more objects than before make a look at the young ones worth it."""


def collect_seldom() -> None:
    """Leave what was loaded alone, and look at new objects less often.

    By default it looks whenever 700 objects are there that were not. A worker with a hundred tasks
    in work has thousands, all alive, so each look is in vain: a fifth of its CPU. Cycles, as an
    exception makes with its traceback, still go.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
