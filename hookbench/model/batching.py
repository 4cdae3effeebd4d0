"""How many tasks a wake-up finds: the batch effect between a low rate and saturation."""

import numpy as np

from hookbench.model.terms import Floats

__all__ = ["mean_batch"]

_HALVINGS = 60


def mean_batch(
    rate_per_s: Floats | float,
    task_us: Floats | float,
    wakeup_us: Floats | float,
    most: Floats | float,
) -> Floats:
    """Mean batch of a server that takes all that waits at each wake-up, of Poisson arrivals.

    While it works on n tasks, for ``wakeup + n task``, the next batch arrives; if none does, the
    one after it begins with the first arrival. With x tasks expected meanwhile the mean is
    ``n = x + exp(-x)``, taken at the mean batch: bulk service with an unlimited batch (Bailey, On
    queueing processes with bulk service, J. R. Stat. Soc. B 16, 1954), where only the chance of an
    empty interval is approximated. It is 1 at a low rate, and grows without a bound as the rate
    nears ``1 / task``.

    Args:
        rate_per_s: of one server.
        task_us: cost of a task in a batch.
        wakeup_us: cost of a wake-up.
        most: that a batch can have.
    """
    rate, task, wakeup, top = np.broadcast_arrays(
        np.asarray(rate_per_s, dtype=np.float64) / 1e6, task_us, wakeup_us, most
    )

    def beyond(batch: Floats) -> Floats:
        expected = rate * (wakeup + batch * task)
        return np.asarray(expected + np.exp(-expected) - batch)

    low, high = np.ones(rate.shape), np.maximum(1.0, top.astype(np.float64))
    full = beyond(high) >= 0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = beyond(middle) > 0
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.where(full, np.maximum(1.0, top), low)
