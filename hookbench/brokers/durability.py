"""Durability classes: what a broker has on its disk when it acknowledges."""

import enum

__all__ = ["Durability"]


class Durability(enum.StrEnum):
    """Only equal classes are compared.

    - ``memory``: Redis without AOF, JetStream memory storage;
    - ``lazy``: AOF ``everysec``, JetStream file storage with ``sync_interval: 1s``;
    - ``fsync``: AOF ``always``, JetStream ``sync_interval: always``.
    """

    MEMORY = "memory"
    LAZY = "lazy"
    FSYNC = "fsync"

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
