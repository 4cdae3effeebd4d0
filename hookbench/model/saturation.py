"""What tasks cost each role, and what processes that share cores make of it at saturation."""

from dataclasses import dataclass

from hookbench.model.batching import mean_batch
from hookbench.model.observations import Setup

__all__ = [
    "BROKER_THREADS",
    "Flood",
    "RoleCost",
    "broker_threads",
    "flood_of",
    "limits_per_s",
    "most_batch",
    "processes_of",
    "saturated_us",
]

BROKER_THREADS = {"redis_list": 1, "redis_stream": 1}
"""Redis executes commands in one thread. All other routes: as many as there are cores, for a NATS
server has many, and both servers run where a phase uses both."""
_PUT_SHARE = 0.5
"""Of a broker's cost of a task, what putting it takes; the rest is taking and acknowledging."""
_HALVINGS = 60
_US_PER_S = 1e6
_BYTES_PER_KIB = 1024


@dataclass(frozen=True, slots=True)
class RoleCost:
    """CPU time of a task in one role of a pair, us.

    Attributes:
        task_us: of a task in a large batch.
        kib_us: of each KiB of payload.
        wakeup_us: of a wake-up, which the tasks of a batch share.
    """

    task_us: float
    kib_us: float
    wakeup_us: float

    def in_batch_us(self, payload_bytes: float) -> float:
        """Of a task without its part of a wake-up."""
        return self.task_us + self.kib_us * payload_bytes / _BYTES_PER_KIB

    def of_batch(self, payload_bytes: float, batch: float) -> float:
        """Of a task in batches of a size."""
        return self.in_batch_us(payload_bytes) + self.wakeup_us / batch

    def batch_at(self, rate_per_s: float, payload_bytes: float, most: float) -> float:
        """Mean batch of one process at its rate."""
        task_us = self.in_batch_us(payload_bytes)
        return float(mean_batch(rate_per_s, task_us, self.wakeup_us, most))


def processes_of(role: str, setup: Setup) -> int:
    """Of a role; the broker counts as one."""
    return {"producer": setup.producers, "worker": setup.workers}.get(role, 1)


def most_batch(role: str, setup: Setup) -> float:
    """The largest batch of a role: what is under way in a producer, or in a worker."""
    if role == "worker":
        return float(setup.concurrency)
    return max(1.0, setup.callers / setup.producers)


@dataclass(frozen=True, slots=True)
class Flood:
    """What comes of producers that put as fast as they can.

    Attributes:
        accepted_per_s, done_per_s: tasks.
    """

    accepted_per_s: float
    done_per_s: float


def flood_of(route: str, costs_us: dict[str, float], setup: Setup) -> Flood:
    """Rates at saturation of processes that share the cores of one machine fairly.

    Producers and workers always have something to do, a broker only what they ask of it. A process
    has at most one core; where the cores do not suffice each has the same share (max-min fairness,
    as of a fair scheduler), and what a broker does not need is the others'.

    Args:
        route: a queue or a phase.
        costs_us: of a task in large batches, by role.
        setup: how many processes and cores.
    """
    threads = broker_threads(route, setup.cores)

    def at(level: float) -> tuple[Flood, float]:
        accepted = setup.producers * level / costs_us["producer"]
        done = min(setup.workers * level / costs_us["worker"], accepted)
        share = _PUT_SHARE * accepted + (1 - _PUT_SHARE) * done
        asked = share * costs_us["broker"]
        held = min(1.0, threads * level / asked)
        accepted, done, asked = accepted * held, done * held, asked * held
        used = accepted * costs_us["producer"] + done * costs_us["worker"] + asked
        return Flood(accepted * _US_PER_S, done * _US_PER_S), used

    low, high = 0.0, 1.0
    if at(high)[1] <= setup.cores:
        return at(high)[0]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] <= setup.cores else (low, middle)
    return at(low)[0]


def broker_threads(route: str, cores: int) -> int:
    """That the brokers of a route can use."""
    return min(BROKER_THREADS.get(route, cores), cores)


def saturated_us(
    costs: dict[str, RoleCost], payload_bytes: float, setup: Setup
) -> dict[str, float]:
    """CPU time of a task by role, us, in the largest batches."""
    return {
        role: cost.of_batch(payload_bytes, most_batch(role, setup)) for role, cost in costs.items()
    }


def limits_per_s(
    route: str, costs_us: dict[str, float], setup: Setup, *, shared: bool = True
) -> dict[str, float]:
    """The highest rate that each role has CPU time for, where all that is put is done.

    Args:
        route: a queue or a phase.
        costs_us: of a task, by role.
        setup: processes, and cores of the machine, or of the brokers'.
        shared: whether all roles share the cores.
    """
    limits = {
        "producer": setup.producers / costs_us["producer"],
        "broker": broker_threads(route, setup.cores) / costs_us["broker"],
        "worker": setup.workers / costs_us["worker"],
    }
    if shared:
        limits["machine"] = setup.cores / sum(costs_us.values())
    return {name: value * _US_PER_S for name, value in limits.items()}
