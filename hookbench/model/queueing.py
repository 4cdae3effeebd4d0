"""How long tasks wait: utilisation-based formulas, for arrays."""

import numpy as np
import numpy.typing as npt

from hookbench.model.terms import Floats

__all__ = ["chance_to_wait", "mean_wait", "wait_percentile"]


def chance_to_wait(load: npt.ArrayLike, servers: npt.ArrayLike) -> Floats:
    """The chance that an arrival waits, ``rho^(sqrt(2 (m + 1)) - 1)``; exact for one server.

    Sakasegawa, An approximation formula L_q = alpha rho^beta / (1 - rho), Annals of the Institute
    of Statistical Mathematics 29, 1977.

    Args:
        load: utilisation, 0 to 1.
        servers: m.
    """
    rho = np.clip(np.asarray(load, dtype=np.float64), 0.0, 1.0)
    return np.asarray(rho ** (np.sqrt(2 * (np.asarray(servers) + 1.0)) - 1))


def mean_wait(
    rate_per_s: npt.ArrayLike, service_s: npt.ArrayLike, servers: npt.ArrayLike, spread: float
) -> Floats:
    """Mean wait in s, infinite from a utilisation of 1 on: Allen and Cunneen's formula.

    ``Wq = chance / (m (1 - rho)) * service * spread``, where ``spread`` is half the sum of the
    squared coefficients of variation of the gaps between arrivals and of the service times: 1 for
    M/M/m, 1/2 for M/D/m (Allen, Probability, Statistics and Queueing Theory, 1978; for one server
    it is Kingman's bound in heavy traffic, 1961).

    Args:
        rate_per_s: of the arrivals.
        service_s: mean service time.
        servers: m.
        spread: see above.
    """
    service = np.asarray(service_s, dtype=np.float64)
    m = np.asarray(servers, dtype=np.float64)
    rho = np.asarray(rate_per_s, dtype=np.float64) * service / m
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = chance_to_wait(rho, m) / (m * (1 - rho)) * service * spread
    return np.asarray(np.where(rho < 1, wait, np.inf))


def wait_percentile(
    percentile: float,
    rate_per_s: npt.ArrayLike,
    service_s: npt.ArrayLike,
    servers: npt.ArrayLike,
    spread: float = 1.0,
) -> Floats:
    """A percentile of the wait in s, with an exponential tail.

    ``P(wait > t) = chance exp(-t chance / Wq)``: those that wait do so for an exponential time,
    such that the mean is that of ``mean_wait``. Exact for M/M/1, where it is
    ``rho exp(-(mu - lambda) t)``; in heavy traffic right for any other (Kingman, 1961).

    Args:
        percentile: 0 to 100, exclusive.
        rate_per_s: of the arrivals.
        service_s: mean service time.
        servers: m.
        spread: see ``mean_wait``.
    """
    service = np.asarray(service_s, dtype=np.float64)
    rho = np.asarray(rate_per_s, dtype=np.float64) * service / np.asarray(servers)
    chance = chance_to_wait(rho, servers)
    mean = mean_wait(rate_per_s, service, servers, spread)
    beyond = 1 - percentile / 100
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = mean / chance * np.log(chance / beyond)
    return np.asarray(np.where(chance > beyond, np.where(rho < 1, wait, np.inf), 0.0))
