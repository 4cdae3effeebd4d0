"""Which broker a fault concerns, and what it can undo there."""

import re
from typing import NamedTuple

from hookbench.ledger.events import Broker

__all__ = ["Reach", "reach_of"]

_UNDOING = frozenset(
    {
        "kill",
        "restart",
        "rolling_restart",
        "power_cut",
        "promote",
        "step_down",
        "delete_consumer",
        "recreate_consumer",
    }
)
_LOSING = frozenset(
    {
        "kill",
        "restart",
        "rolling_restart",
        "power_cut",
        "promote",
        "maxmemory",
        "stream_limits",
    }
)
_HOLDING = frozenset({"pause", "wire"})
_FAILING_OVER = frozenset({"pause", "partition"})
"""What makes a NATS cluster go on without a node that clients still reach."""
_SIDES = {
    "worker": (False, True),
    "workers": (False, True),
    "producer": (True, False),
    "producers": (True, False),
}


class Reach(NamedTuple):
    """What a fault can do, by its kind and target.

    Attributes:
        brokers: those concerned; none for a fault of a worker, a producer or the load.
        puts: whether puts are concerned.
        deliveries: whether deliveries and acknowledgements are.
        undoes: a broker may come out of it without acknowledgements that it had before.
        loses: a broker may come out of it without tasks that it had before.
        holds: acknowledgements that are sent while it lasts may not arrive, or too late.
    """

    brokers: frozenset[Broker] = frozenset()
    puts: bool = True
    deliveries: bool = True
    undoes: bool = False
    loses: bool = False
    holds: bool = False


def reach_of(kind: str, target: str) -> Reach:
    """The reach of a fault.

    A broker that is paused keeps what it has, but a NATS cluster leads on without a node that is
    paused or cut off, and without what that one had not passed on; what a quorum has it does not
    lose. A Redis whose replica is cut off has all, until somebody promotes the replica. A link has
    no memory, so what is done to one of workers or producers undoes nothing.

    Args:
        kind: its name in a scenario, ``power_cut``.
        target: ``redis``, ``nats-2``, ``stream_leader``, ``redis_master``, ``worker-0``,
            ``workers-redis``, ``producers``.
    """
    words = re.split("[^a-z0-9]+", target.lower())
    brokers = set()
    if "redis" in words:
        brokers.add(Broker.REDIS)
    if "nats" in words or "stream" in words:
        brokers.add(Broker.NATS)
    puts, deliveries = _SIDES.get(words[0], (True, True))
    link = words[0] in _SIDES
    node = Broker.NATS in brokers and not link and (len(words) > 1 or kind == "partition")
    leads_on = node and kind in _FAILING_OVER
    return Reach(
        brokers=frozenset(brokers),
        puts=puts,
        deliveries=deliveries,
        undoes=bool(brokers) and not link and (kind in _UNDOING or leads_on),
        loses=bool(brokers) and not link and kind in _LOSING,
        holds=bool(brokers) and deliveries and (kind in _HOLDING or leads_on),
    )
