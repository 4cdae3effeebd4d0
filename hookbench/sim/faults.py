"""Faults of a simulated site: each waits for its time, does something, and takes it back."""

import msgspec

from hookbench.sim.brokers import ClusteredNats
from hookbench.sim.connection import Direction
from hookbench.sim.errors import SimulationError
from hookbench.sim.migration import Fault, SimulatedSite
from hookbench.sim.nats.cluster import NatsCluster
from hookbench.sim.network import Link
from hookbench.sim.wire_rules import WireAction, WireRule
from hookbench.task import Names

__all__ = [
    "cut_off",
    "kill_broker",
    "kill_leader",
    "kill_nodes",
    "kill_worker",
    "lose_replies",
    "power_cut",
    "step_down",
    "stop_worker",
]


def kill_worker(*, at_s: float, back_after_s: float = 0.5) -> Fault:
    """SIGKILL the oldest worker, and start another one."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        if not site.workers:
            raise SimulationError(f"no worker runs {at_s:g} s after the start: nobody to kill")
        site.kill_worker(min(site.workers))
        await site.clock.sleep(back_after_s)
        site.start_worker()

    return fault


def stop_worker(*, at_s: float, for_s: float) -> Fault:
    """SIGSTOP the oldest worker that runs, and let it go on unless it was killed meanwhile."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        running = [number for number, item in site.workers.items() if not item.stopped]
        if not running:
            return
        process = site.workers[min(running)]
        site.loop.processes.stop(process)
        await site.clock.sleep(for_s)
        if process.stopped:
            site.loop.processes.resume(process)

    return fault


def kill_broker(broker: str, *, at_s: float, for_s: float = 1.0) -> Fault:
    """SIGKILL a broker, and start it again on its data; nothing, where it is down already."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        target = site.broker(broker)
        if not target.is_up():
            return
        target.kill()
        await site.clock.sleep(for_s)
        target.start()

    return fault


def kill_leader(*, at_s: float, for_s: float = 1.0, consumer: bool = False) -> Fault:
    """SIGKILL the NATS node that leads the hook stream, or the workers' consumer, for a while.

    Args:
        at_s: when.
        for_s: until it is started.
        consumer: the consumer's leader; of several consumers that of the first.

    Needs a plan with durability ``replicated``; nothing, where nobody leads at that time.
    """

    async def fault(site: SimulatedSite) -> None:
        cluster = _cluster_of(site)
        await site.clock.sleep(at_s)
        leader = _leading(site, consumer=consumer).leader
        if not leader:
            return
        cluster.kill(leader)
        await site.clock.sleep(for_s)
        if not site.network.node(leader).up:
            cluster.restart(leader)

    return fault


def kill_nodes(*, at_s: float, for_s: float = 1.0, nodes: tuple[int, ...]) -> Fault:
    """SIGKILL several NATS nodes, by their numbers from 0, and start them again together.

    Needs a plan with durability ``replicated``; a node that is down already is left alone.
    """

    async def fault(site: SimulatedSite) -> None:
        cluster = _cluster_of(site)
        await site.clock.sleep(at_s)
        killed = cluster.running([site.nats.nodes[number] for number in nodes])
        for name in killed:
            cluster.kill(name)
        await site.clock.sleep(for_s)
        for name in killed:
            if not site.network.node(name).up:
                cluster.restart(name)

    return fault


def step_down(*, at_s: float, consumer: bool = False) -> Fault:
    """The leader of the hook stream, or of the workers' consumer, gives up; see ``kill_leader``."""

    async def fault(site: SimulatedSite) -> None:
        cluster = _cluster_of(site)
        await site.clock.sleep(at_s)
        led = _leading(site, consumer=consumer)
        if led.leader:
            cluster.step_down(led.stream, led.consumer)

    return fault


def power_cut(
    broker: str, *, at_s: float, for_s: float = 1.0, nodes: tuple[int, ...] = ()
) -> Fault:
    """Nodes lose their power at one moment, with all that was not synced, and start again.

    Clients and other nodes are not told: they find out when nothing answers, or at the restart.

    Args:
        broker: ``redis`` or ``nats``.
        at_s: when.
        for_s: until all are started.
        nodes: which, from 0 in the order of the broker's ``nodes``; by default all of them.
    """

    async def fault(site: SimulatedSite) -> None:
        target = site.broker(broker)
        await site.clock.sleep(at_s)
        target.cut_power(tuple(target.nodes[number] for number in nodes))
        await site.clock.sleep(for_s)
        target.start()

    return fault


class _Led(msgspec.Struct, frozen=True):
    stream: str
    consumer: str
    leader: str


def _cluster_of(site: SimulatedSite) -> NatsCluster:
    """The cluster of a site.

    Raises:
        SimulationError: it has one node.
    """
    if not isinstance(site.nats, ClusteredNats):
        raise SimulationError("NATS has one node: use a plan with durability replicated")
    return site.nats.cluster


def _leading(site: SimulatedSite, *, consumer: bool) -> _Led:
    cluster, stream = _cluster_of(site), Names().stream
    if consumer:
        for (owner, name), asset in cluster.consumers.items():
            if owner == stream:
                return _Led(stream, name, asset.group.leader())
        return _Led(stream, "", "")
    found = cluster.streams.get(stream)
    return _Led(stream, "", "" if found is None else found.group.leader())


def cut_off(
    client: str, broker: str, *, at_s: float, for_s: float, ways: tuple[Direction, ...] = ()
) -> Fault:
    """Let nothing pass between a process and a broker, one way or both."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        links = _links(site, client, broker)
        for link in links:
            site.network.cut(link, *ways)
        await site.clock.sleep(for_s)
        for link in links:
            site.network.heal(link)

    return fault


def lose_replies(client: str, broker: str, *, at_s: float, count: int = 1) -> Fault:
    """Lose the next replies of a broker to a process; the connections stand."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        rule = WireRule(WireAction.LOSE, Direction.TO_CLIENT, times=count)
        for link in _links(site, client, broker):
            link.rules.append(rule)

    return fault


def _links(site: SimulatedSite, client: str, broker: str) -> list[Link]:
    """Between a process and every node of a broker."""
    return [site.network.link(client, node) for node in site.broker(broker).nodes]
