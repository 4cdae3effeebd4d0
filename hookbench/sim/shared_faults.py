"""Faults that the simulator takes from a rehearsal: the same code, on simulated brokers."""

from collections.abc import Callable

from hookbench.faults.consumer_gone import DeleteConsumer, RecreateConsumer
from hookbench.faults.failing_handler import FailingHandler
from hookbench.faults.maxmemory import MaxMemory
from hookbench.faults.oversize import Oversize
from hookbench.faults.poison import Poison
from hookbench.faults.registry import AnyFault
from hookbench.faults.slow_handler import SlowHandler
from hookbench.faults.stream_limits import StreamLimits
from hookbench.sim.schedule import FaultKind, SimFault

__all__ = ["SHARED", "shared_fault"]

_WINDOW_S = 0.5
_LEAST_FOR_S = 0.1
_OVERSIZE_BYTES = 1_200_000
"""Beyond any limit, and no more than a seed is to carry about."""


def shared_fault(fault: SimFault) -> AnyFault:
    """The fault of a rehearsal; its times are those of the simulator's.

    Raises:
        KeyError: a rehearsal has no fault of this kind that the simulator shares.
    """
    return SHARED[fault.kind](fault, max(fault.for_s, _LEAST_FOR_S))


SHARED: dict[FaultKind, Callable[[SimFault, float], AnyFault]] = {
    FaultKind.MAXMEMORY: lambda fault, for_s: MaxMemory(
        target=fault.target, at_s=fault.at_s, for_s=for_s, headroom_bytes=0
    ),
    FaultKind.STREAM_LIMITS: lambda fault, for_s: StreamLimits(
        target=fault.target, at_s=fault.at_s, for_s=for_s, duplicate_window_s=_WINDOW_S
    ),
    FaultKind.DELETE_CONSUMER: lambda fault, for_s: DeleteConsumer(
        target=fault.target, at_s=fault.at_s, for_s=for_s
    ),
    FaultKind.RECREATE_CONSUMER: lambda fault, _for_s: RecreateConsumer(
        target=fault.target, at_s=fault.at_s
    ),
    FaultKind.FAILING_HANDLER: lambda fault, for_s: FailingHandler(
        target=fault.target, at_s=fault.at_s, for_s=for_s, probability=fault.probability
    ),
    FaultKind.SLOW_HANDLER: lambda fault, for_s: SlowHandler(
        target=fault.target, at_s=fault.at_s, for_s=for_s, service_ms=fault.delay_ms
    ),
    FaultKind.POISON: lambda fault, _for_s: Poison(
        target=fault.target, at_s=fault.at_s, count=fault.count
    ),
    FaultKind.OVERSIZE: lambda fault, for_s: Oversize(
        target=fault.target,
        at_s=fault.at_s,
        for_s=for_s,
        count=fault.count,
        payload_bytes=_OVERSIZE_BYTES,
    ),
}
