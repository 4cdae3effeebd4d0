"""Faults of a simulated site: each waits for its time, does something, and takes it back."""

from hookbench.sim.connection import Direction
from hookbench.sim.errors import SimulationError
from hookbench.sim.migration import NATS, REDIS, Fault, SimulatedSite
from hookbench.sim.wire_rules import WireAction, WireRule

__all__ = ["cut_off", "kill_broker", "kill_worker", "lose_replies", "stop_worker"]

_NODES = {"redis": REDIS, "nats": NATS}


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
        if not site.network.node(_NODES[broker]).up:
            return
        (site.kill_redis if broker == "redis" else site.kill_nats)()
        await site.clock.sleep(for_s)
        (site.start_redis if broker == "redis" else site.start_nats)()

    return fault


def cut_off(
    client: str, broker: str, *, at_s: float, for_s: float, ways: tuple[Direction, ...] = ()
) -> Fault:
    """Let nothing pass between a process and a broker, one way or both."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        link = site.network.link(client, _NODES[broker])
        site.network.cut(link, *ways)
        await site.clock.sleep(for_s)
        site.network.heal(link)

    return fault


def lose_replies(client: str, broker: str, *, at_s: float, count: int = 1) -> Fault:
    """Lose the next replies of a broker to a process; the connections stand."""

    async def fault(site: SimulatedSite) -> None:
        await site.clock.sleep(at_s)
        rule = WireRule(WireAction.LOSE, Direction.TO_CLIENT, times=count)
        site.network.link(client, _NODES[broker]).rules.append(rule)

    return fault
