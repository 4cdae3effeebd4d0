"""The NATS cluster: its leader is killed, and its power is cut."""

import asyncio
import shutil
from pathlib import Path

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.nats_cluster import NatsCluster
from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.errors import BrokerUnsuitableError, HazardError
from hookbench.faults.sync_calls import SyncCalls
from hookbench.hazards.bench import Bench
from hookbench.hazards.findings import EXAMPLES
from hookbench.hazards.model import Harm, Hazard, Observation, Protection
from hookbench.hazards.producer import Producer
from hookbench.hazards.watching import accepted_are_done, cluster_of, first_ns, wait_until_not_put
from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import Phase

__all__ = ["ROWS"]

_TRIES = 4_000
_PAUSE_S = 0.01
_AFTERWARDS = 20
"""Tasks that must be accepted before publishing counts as back."""
_STALL_S = 1.0
"""A producer that is told yes or no within it has not stalled."""
_ACK_WAIT_S = 2.0
_KEPT = 10
_CUT_OFF = 200
_SYNC_INTERVAL = "  sync_interval: "


async def _leader_killed(bench: Bench) -> list[Observation]:
    """N1: the leader of the stream is killed while a producer on another node sends on.

    It sends one task after the other with a pause of 10 ms, and repeats none.
    """
    cluster = cluster_of(bench)
    await bench.enter(Phase.NATS_PRIMARY)
    await bench.worker("--ack-wait", str(_ACK_WAIT_S))
    leader = await cluster.stream_leader(bench.names.stream)
    other = next(node for node in cluster.nodes if node is not leader)
    producer = await bench.producer(nats_url=other.url)
    before = await producer.send_all(bench.tasks(20))
    await cluster.wait_until_current(bench.names.stream)
    leader.kill()
    killed_ns = bench.clock.monotonic_ns()
    bench.note(f"{before} tasks accepted, then {leader.name} killed, which led the stream")
    await _send_until_back(bench, producer)
    await wait_until_not_put(bench, Broker.NATS, since_ns=killed_ns)
    await bench.wait_until(producer.swept, "the outbox is empty")
    await bench.wait_until(lambda: accepted_are_done(bench), "every accepted task is done")
    await asyncio.to_thread(leader.restart)
    await cluster.wait_until_current(bench.names.stream)
    await bench.quiesce()
    return [*_stall(bench, killed_ns), *await bench.conclude()]


async def _send_until_back(bench: Bench, producer: Producer) -> None:
    """Send until tasks are accepted again."""
    accepted = 0
    for tried, task in enumerate(bench.tasks(_TRIES), 1):
        accepted += await producer.send(task)
        if accepted == _AFTERWARDS:
            bench.note(f"{tried} tasks sent, of which {accepted} were accepted")
            return
        await bench.clock.sleep(_PAUSE_S)
    raise HazardError(f"of {_TRIES} tasks {accepted} were accepted: the stream has no leader")


def _stall(bench: Bench, killed_ns: int) -> list[Observation]:
    """What the caller of the producer was told after the kill."""
    ledger = bench.ledger()
    invoked = first_ns(ledger, Event.PUT_INVOKED)
    refused = first_ns(ledger, Event.REFUSED)
    doubtful = first_ns(ledger, Event.DOUBTFUL)
    accepted_ns = first_ns(ledger, Event.ACCEPTED).values()
    back_ns = min(time_ns for time_ns in accepted_ns if time_ns > killed_ns)
    gap_s = (back_ns - killed_ns) / NS_PER_S
    failed = [*refused, *doubtful]
    if not failed and gap_s < _STALL_S:
        return []
    told_ms = sorted((refused[task] - invoked[task]) / NS_PER_MS for task in refused)
    text = f"no task was accepted for {gap_s:.1f} s: {len(refused)} refused"
    if told_ms:
        text += f" (after {told_ms[len(told_ms) // 2]:.1f} ms, the median)"
    text += f", {len(doubtful)} in doubt"
    return [
        Observation(
            text=text,
            harm=Harm.STALLED,
            count=max(1, len(failed)),
            tasks=tuple(failed[:EXAMPLES]),
        )
    ]


async def _power_cut(bench: Bench) -> list[Observation]:
    """N10: all nodes lose their power, and what they had not synced, after 200 more tasks.

    The nodes run with the interval that a nats-server has as shipped (2 minutes). All are stopped
    for the copies, and killed after the tasks. The folders go back to their copies unless strace
    counted a sync in between: what is synced survives a power cut. Without strace the interval
    alone has to be believed.

    A producer that refuses such servers gets some that sync always. Theirs go back to the copies
    unless there were as many syncs as tasks.
    """
    cluster = cluster_of(bench)
    await _run_with(cluster, None)
    bench.note("sync_interval as shipped")
    await bench.enter(Phase.NATS_PRIMARY)
    found = await _refused(bench)
    if found:
        await _run_with(cluster, "always")
        bench.note("sync_interval: always")
    producer = await bench.producer()
    kept = await producer.send_all(bench.tasks(_KEPT))
    await cluster.wait_until_current(bench.names.stream)
    copies = bench.folder / "copies"
    copies.mkdir()
    calls = await _copy(bench, cluster.nodes, copies)
    await cluster.wait_until_current(bench.names.stream)
    accepted = await producer.send_all(bench.tasks(_CUT_OFF))
    bench.note(f"{kept} tasks accepted before the copy, {accepted} after it")
    calls.look()
    for node in cluster.nodes:
        node.kill()
    synced = await calls.end(bench.clock)
    told = f"fsync calls between copy and cut: {synced}"
    if synced is None:
        told = f"fsync calls between copy and cut: not counted ({calls.problem})"
    if not synced or (found and synced < accepted):
        await asyncio.to_thread(_roll_back, cluster.nodes, copies)
    bench.note(f"power cut; {told}")
    await _start_together(cluster)
    await cluster.wait_until_current(bench.names.stream)
    held = (await (await bench.nats()).jetstream.stream_info(bench.names.stream)).state.messages
    bench.note(f"started again: the stream holds {held} tasks")
    await bench.worker()
    await bench.wait_until_done(held)
    await bench.quiesce()
    found += await bench.conclude()
    text = f"of {kept + accepted} accepted tasks the stream held {held} after the cut; {told}"
    return [*found, Observation(text=text, count=kept + accepted - held)]


async def _refused(bench: Bench) -> list[Observation]:
    """Whether the producer refuses the servers as they are."""
    try:
        producer = await bench.producer()
    except BrokerUnsuitableError as error:
        bench.note(f"the producer refuses: {error}")
        text = f"the producer refuses to start: {error}"
        return [Observation(text=text, protection=Protection.REFUSED)]
    await producer.close()
    return []


async def _run_with(cluster: NatsCluster, sync_interval: str | None) -> None:
    """Start the nodes again with a sync interval, or without one, as a server is shipped."""
    for node in cluster.nodes:
        node.stop()
        _set_sync_interval(Path(node.command[-1]), sync_interval)
    await _start_together(cluster)


def _set_sync_interval(configuration: Path, value: str | None) -> None:
    lines = configuration.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(_SYNC_INTERVAL)]
    if value is None and len(kept) == len(lines):
        raise HazardError(f"{configuration}: no line {_SYNC_INTERVAL.strip()!r} to leave out")
    if value is not None:
        block = next(number for number, line in enumerate(kept) if line.startswith("jetstream"))
        kept.insert(block + 1, f"{_SYNC_INTERVAL}{value}")
    configuration.write_text("\n".join(kept) + "\n")


async def _start_together(cluster: NatsCluster) -> None:
    for node in cluster.nodes:
        await asyncio.to_thread(node.restart)
    await cluster.wait_until_ready()


async def _copy(bench: Bench, nodes: list[EmbeddedBroker], copies: Path) -> SyncCalls:
    """Copy the folders of all nodes at one moment; what they sync from then on is counted."""
    for node in nodes:
        node.pause()
    try:
        for node in nodes:
            await asyncio.to_thread(shutil.copytree, node.data, copies / node.name)
        return await SyncCalls.begin([node.pid for node in nodes], bench.folder, bench.clock)
    finally:
        for node in nodes:
            node.resume()


def _roll_back(nodes: list[EmbeddedBroker], copies: Path) -> None:
    for node in nodes:
        shutil.rmtree(node.data)
        shutil.move(copies / node.name, node.data)


ROWS = (
    Hazard(
        id="N1",
        where="phase 3",
        mechanism="while the stream elects a leader every publish fails, most of them at once",
        harm=Harm.STALLED,
        scenario=_leader_killed,
        topology="nats_cluster",
    ),
    Hazard(
        id="N10",
        where="phase 3",
        mechanism="acknowledged means written by a quorum, and not synced: a power cut of all nodes"
        " takes what came after the last sync",
        harm=Harm.LOST,
        scenario=_power_cut,
        topology="nats_cluster",
    ),
)
