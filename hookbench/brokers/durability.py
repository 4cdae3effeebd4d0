"""Durability classes: what a broker has on its disk when it acknowledges."""

import enum

__all__ = ["Durability"]


class Durability(enum.StrEnum):
    """Only equal classes are compared.

    - ``memory``: Redis without AOF, JetStream memory storage;
    - ``lazy``: AOF ``everysec``, JetStream file storage with ``sync_interval: 1s``;
    - ``fsync``: AOF ``always``, JetStream ``sync_interval: always``;
    - ``replicated``: ``lazy`` on every node, and more than one of them: a Redis master with a
      replica, JetStream with three replicas. Nearest, not equal: a stream acknowledges what a
      quorum has, Redis what the master has, unless the client asks with WAIT.

    ``replicated`` syncs as ``lazy`` does, for what it adds is the other node and not the disk: a
    quorum of JetStream does not wait for its disks either.
    """

    MEMORY = "memory"
    LAZY = "lazy"
    FSYNC = "fsync"
    REPLICATED = "replicated"

    @property
    def redis_arguments(self) -> list[str]:
        """Options of redis-server; snapshots are off in every class."""
        if self is Durability.MEMORY:
            return ["--save", "", "--appendonly", "no"]
        policy = "always" if self is Durability.FSYNC else "everysec"
        return ["--save", "", "--appendonly", "yes", "--appendfsync", policy]

    @property
    def nats_sync_interval(self) -> str:
        """``sync_interval`` of the jetstream block; without meaning for memory storage."""
        return "always" if self is Durability.FSYNC else "1s"

    @property
    def stream_storage(self) -> str:
        """Storage of the hook stream."""
        return "memory" if self is Durability.MEMORY else "file"

    @property
    def stream_replicas(self) -> int:
        """Replicas of the hook stream and of its consumer."""
        return 3 if self is Durability.REPLICATED else 1

    @property
    def of_one_node(self) -> "Durability":
        """The class that is left of this one where a broker has one node only."""
        return Durability.LAZY if self is Durability.REPLICATED else self
