"""The NATS consumer and the connection to it: replayed, ignored, silent."""

import psutil
from nats.js.api import ConsumerConfig

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.nats_nodes import ask_node
from hookbench.errors import HazardError
from hookbench.hazards.bench import Bench
from hookbench.hazards.findings import EXAMPLES
from hookbench.hazards.model import Harm, Hazard, Observation, Protection
from hookbench.hazards.watching import (
    accepted_are_done,
    cluster_of,
    epoch_start,
    first_ns,
    refusal,
    seen,
    wait_until_read,
)
from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase
from hookbench.queues.epochs import current_consumer
from hookbench.rehearsal.fleet import Member

__all__ = ["ROWS"]

_OTHER_ACK_WAIT_S = 5.0
_SILENCE_S = 12.0
"""Longer than a short ping interval would take to notice (10 s)."""
_SHORT_ACK_WAIT_S = 2.0


async def _recreated(bench: Bench) -> list[Observation]:
    """N7: the consumer is deleted between two workers, and the next one makes it anew."""
    await bench.enter(Phase.NATS_PRIMARY)
    producer = await bench.producer()
    worker = await bench.worker()
    tasks = bench.tasks(20)
    accepted = await producer.send_all(tasks)
    await bench.wait_until_done(accepted)
    await bench.stop(worker)
    bench.note(f"{accepted} tasks accepted, {bench.count(Event.DONE)} done")
    transport = await bench.nats()
    durable = await current_consumer(transport)
    await transport.jetstream.delete_consumer(bench.names.stream, durable)
    bench.note(f"consumer {durable} deleted")
    await bench.worker()
    await wait_until_read(bench)
    await bench.quiesce()
    bench.note(f"{bench.count(Event.DONE)} executions")
    return [*await epoch_start(bench), *await bench.conclude()]


async def _other_settings(bench: Bench) -> list[Observation]:
    """N8: a worker is started with another AckWait than the durable consumer has.

    The reference worker compares and refuses, in both designs, and does not use nats-py's
    ``pull_subscribe``, which ignores: that is observed beside it, and is no harm here.
    """
    await bench.enter(Phase.NATS_PRIMARY)
    worker = await bench.worker()
    await bench.stop(worker)
    found = []
    refused = await refusal(bench, "--ack-wait", str(_OTHER_ACK_WAIT_S))
    kept_s = await _ack_wait_s(bench)
    if refused is not None:
        text = f"the worker refuses to start: {refused.splitlines()[-1]}"
        found.append(Observation(text=text, protection=Protection.REFUSED))
    elif kept_s != _OTHER_ACK_WAIT_S:
        text = f"a worker works with AckWait {_OTHER_ACK_WAIT_S:g} s, the consumer has {kept_s:g} s"
        found.append(Observation(text=text, harm=Harm.IGNORED, count=1))
    return [*found, await _subscribe_anyway(bench), *await bench.conclude()]


async def _ack_wait_s(bench: Bench) -> float:
    transport = await bench.nats()
    durable = await current_consumer(transport)
    info = await transport.jetstream.consumer_info(bench.names.stream, durable)
    return float(info.config.ack_wait or 0.0)


async def _subscribe_anyway(bench: Bench) -> Observation:
    """What the client library does with a config that differs."""
    names = bench.names
    transport = await bench.nats()
    subscription = await transport.jetstream.pull_subscribe(
        names.subject("sync"),
        durable=await current_consumer(transport),
        stream=names.stream,
        config=ConsumerConfig(ack_wait=_OTHER_ACK_WAIT_S),
    )
    await subscription.unsubscribe()
    kept_s = await _ack_wait_s(bench)
    return Observation(
        text=f"nats-py's pull_subscribe, which the worker does not use, took an AckWait of"
        f" {_OTHER_ACK_WAIT_S:g} s without an error; the consumer has {kept_s:g} s"
    )


async def _half_open(bench: Bench) -> list[Observation]:
    """N9: the node that a worker is connected to is stopped, and leads nothing.

    The others go on, and the worker's client knows them. It is watched for 12 s, six times the
    AckWait; with its default pings (every 2 minutes, two may be missed) it would be minutes.
    """
    cluster = cluster_of(bench)
    await bench.enter(Phase.NATS_PRIMARY)
    options = ("--ack-wait", str(_SHORT_ACK_WAIT_S))
    maker = await bench.worker(*options)
    durable = await current_consumer(await bench.nats())
    leader, other = await _nodes(bench, durable)
    producer = await bench.producer(nats_url=leader.url)
    worker = await bench.worker(*options, nats_url=other.url)
    await bench.stop(maker)
    await producer.send_all(bench.tasks(1))
    await bench.wait_until_done(1)
    bench.note(f"{worker.name} is connected to {other.name}; {leader.name} leads the stream")
    await cluster.wait_until_current(bench.names.stream)
    _check_connected(worker, other)
    other.pause()
    tasks = bench.tasks(10)
    accepted = await producer.send_all(tasks)
    bench.note(f"{other.name} stopped by SIGSTOP, {accepted} tasks accepted by the others")

    found = []
    if not await seen(bench, lambda: accepted_are_done(bench), _SILENCE_S):
        path = f"{bench.names.stream}.{durable}"
        info = await ask_node(leader, f"$JS.API.CONSUMER.INFO.{path}")
        done = first_ns(bench.ledger(), Event.DONE)
        waiting = [str(task.id) for task in tasks if str(task.id) not in done]
        text = (
            f"{len(waiting)} tasks waited {_SILENCE_S:g} s for a worker that is connected to"
            f" {other.name}, which answers nothing, while the others hold them"
            f" ({info['num_pending']} pending, {info['num_ack_pending']} unacknowledged)"
        )
        found.append(
            Observation(
                text=text, harm=Harm.STALLED, count=len(waiting), tasks=tuple(waiting[:EXAMPLES])
            )
        )
    other.resume()
    await bench.wait_until(lambda: accepted_are_done(bench), "every accepted task is done")
    bench.note(f"{other.name} goes on, all tasks done")
    # A node that was away for so long answers 503 until it has heard of the others again.
    await cluster.wait_until_current(bench.names.stream)
    return [*found, *await bench.conclude()]


def _check_connected(worker: Member, node: EmbeddedBroker) -> None:
    """Whether it is this node's silence that the worker has to notice.

    Raises:
        HazardError: it is not.
    """
    found = psutil.Process(worker.child.pid).net_connections(kind="tcp")
    if not any(item.raddr and item.raddr.port == node.port for item in found):
        raise HazardError(f"{worker.name} is not connected to {node.name}, which is to be stopped")


async def _nodes(bench: Bench, durable: str) -> tuple[EmbeddedBroker, EmbeddedBroker]:
    """The leader of the stream, and a node that leads neither the stream nor the consumer."""
    cluster = cluster_of(bench)
    names = bench.names
    leader = await cluster.stream_leader(names.stream)
    leading = {leader.name}
    info = await ask_node(leader, f"$JS.API.CONSUMER.INFO.{names.stream}.{durable}")
    leading.add(cluster.node(info["cluster"]["leader"]).name)
    return leader, next(node for node in cluster.nodes if node.name not in leading)


ROWS = (
    Hazard(
        id="N7",
        where="phase 3",
        mechanism="a consumer that is deleted and made anew delivers the whole stream again",
        harm=Harm.DUPLICATED,
        scenario=_recreated,
    ),
    Hazard(
        id="N8",
        where="phase 3",
        mechanism="pull_subscribe silently ignores settings that differ from the consumer's",
        harm=Harm.IGNORED,
        scenario=_other_settings,
        otherwise="the reference worker compares the settings at its start and refuses, in both"
        " designs; it does not use pull_subscribe",
    ),
    Hazard(
        id="N9",
        where="phase 3",
        mechanism="a worker connected to a node that has stopped waits for minutes, by the default"
        " pings of its client",
        harm=Harm.STALLED,
        scenario=_half_open,
        topology="nats_cluster",
    ),
)
