"""One server of a simulated cluster: its clients, and what it has of streams and consumers."""

from typing import TYPE_CHECKING, Any

from hookbench.sim.nats.server import NatsServer

if TYPE_CHECKING:
    from hookbench.sim.loop import SimulatedLoop
    from hookbench.sim.nats.cluster import NatsCluster
    from hookbench.sim.nats.disk import Disk
    from hookbench.sim.nats.jetstream import JetStream
    from hookbench.sim.network import Node

__all__ = ["ClusterServer"]


class ClusterServer(NatsServer):
    """A server that passes on what others are there for.

    Args:
        loop: of the simulation.
        node: where it runs.
        cluster: of which it is one.
        jetstream: the replicas of this node.
        disk: how it syncs.
    """

    def __init__(
        self,
        loop: "SimulatedLoop",
        node: "Node",
        cluster: "NatsCluster",
        jetstream: "JetStream",
        disk: "Disk",
    ) -> None:
        super().__init__(loop, node, disk=disk)
        self.jetstream = jetstream
        self._cluster = cluster

    @property
    def name(self) -> str:
        """Of its node."""
        return self._node.name

    def _more_info(self) -> dict[str, Any]:
        return {"cluster": "simulated", "connect_urls": self._cluster.names}

    def has_local_interest(self, subject: str) -> bool:
        """Whether one of its own clients subscribes to it."""
        return super().has_interest(subject)

    def deliver_here(
        self, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes
    ) -> None:
        """Send a message to its own clients."""
        super().deliver(inbox, subject, reply, headers, payload)

    def has_interest(self, subject: str) -> bool:
        """Whether a client of any node that it knows subscribes to it."""
        return self._cluster.has_interest(self.name, subject)

    def deliver(self, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Send a message to clients of all nodes."""
        self._cluster.deliver(self.name, inbox, subject, reply, headers, payload)

    def advise(self, what: str, told: dict[str, Any]) -> None:
        """Publish an advisory about a consumer."""
        self._cluster.advise(self.name, what, told)

    def publish(self, subject: str, reply: str, headers: bytes, payload: bytes) -> bool:
        """What a client has published; whether anybody is there to take it."""
        return self._cluster.publish(self.name, subject, reply, headers, payload)
