"""The administrative side of the brokers that a run started."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hookbench.brokers import nats_nodes, redis_nodes
from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.redis_replica import RedisReplica
from hookbench.clock import Clock
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.faults.base import Fault
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.stage import Stage
from hookbench.task import Names

__all__ = ["RunAdministration", "check_needs"]

_TASK_TYPE = "sync"


class RunAdministration:
    """Commands and requests straight to the nodes: no proxy of a link is in between."""

    def __init__(self, stage: Stage, *, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock

    @property
    def names(self) -> Names:
        """What the run uses on the brokers."""
        return self._stage.names

    def nodes(self, broker: str) -> list[str]:
        """Names of the nodes of a broker that was started here."""
        return [node.name for node in self._stage.nodes(broker)]

    def data_folder(self, node: str) -> Path:
        """Where a node keeps its data."""
        return self._node(node).data

    def _node(self, name: str) -> EmbeddedBroker:
        for node in self._stage.nodes(name.partition("-")[0]):
            if node.name == name:
                return node
        raise SettingError(f"no node {name!r} was started by this run")

    async def redis(self, node: str, *words: str | int) -> Any:
        """One command to one Redis node."""
        return await redis_nodes.ask_node(self._node(node), *words)

    async def jetstream(
        self, request: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The answer of the first NATS node that gives one."""
        failures = []
        for node in self._stage.nodes("nats"):
            if not node.running:
                failures.append(f"{node.name} is down")
                continue
            try:
                return await nats_nodes.ask_node(node, f"$JS.API.{request}", body)
            except BrokerUnreachableError as error:
                failures.append(str(error))
        raise BrokerUnreachableError(f"no NATS node answered {request}: {'; '.join(failures)}")

    async def put(self, broker: str, payloads: Sequence[bytes]) -> None:
        """Put payloads straight into the hook queue of a broker that was started here."""
        self._stage.nodes(broker)
        if broker == "redis":
            client = connect_redis(self._stage.redis_url)
            try:
                queue = RedisListQueue(client, names=self.names, task_type=_TASK_TYPE)
                for payload in payloads:
                    await queue.put(payload)
            finally:
                await client.aclose()
            return
        async with await AppTransport.connect(
            self._stage.nats_url, names=self.names, clock=self._clock
        ) as transport:
            for payload in payloads:
                await transport.publish(self.names.subject(_TASK_TYPE), payload)

    def redis_replica(self) -> RedisReplica:
        """The Redis master and its replica."""
        group = self._stage.redis
        if not isinstance(group, RedisReplica):
            raise SettingError(
                "no Redis of this run has a replica: use a topology with a master and a replica"
            )
        return group


def check_needs(fault: Fault, stage: Stage) -> bool:
    """Refuse a fault whose brokers are somebody else's, or have too few nodes.

    Returns:
        Whether the fault names what it needs, so that its target is none that a run has to find.

    Raises:
        SettingError: the text names the fault and the broker.
    """
    needs = fault.needs()
    if needs is None:
        return False
    for broker, least in needs.items():
        try:
            nodes = stage.nodes(broker)
        except SettingError as error:
            raise SettingError(f"fault {fault.name}: {error}") from error
        if len(nodes) < least:
            raise SettingError(
                f"fault {fault.name}: it needs {least} nodes of {broker} and this run has"
                f" {len(nodes)}: use a topology with more"
            )
    return True
