"""What waiting and stored tasks take on each broker: bytes of memory and disk."""

import msgspec
import numpy as np

from hookbench.brokers.durability import Durability
from hookbench.model.terms import Floats

__all__ = ["ENVELOPE_BYTES", "Storage", "encoded_bytes"]

ENVELOPE_BYTES = 198
"""Of an encoded task beside its filling: id, names, time; a test holds it against the codec."""
_MIB = 2**20


def encoded_bytes(payload_bytes: float) -> float:
    """Of a task on the wire."""
    return payload_bytes + ENVELOPE_BYTES


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes per task and of an empty broker.

    The defaults are from redis-server 8.2.3 and nats-server 2.15.1 with 5,000 to 120,000 waiting
    tasks of 64, 256 and 4,096 bytes: a Redis list took 277 and 5,167 bytes for encoded tasks of 262
    and 4,294; a stream in a file 36 bytes more than the task on the disk, and no memory that grew
    with it; a stream in memory 2.1 times the task, for Go's collector lets the heap double. ``make
    growth`` measures ``bytes_per_waiting`` of the machine at hand, which is to be given here.

    Attributes:
        redis_waiting_bytes, nats_waiting_bytes: of memory per task that waits; ``None`` for the
            defaults.
        redis_base_bytes, nats_base_bytes: of memory without tasks, caches included.
        aof_least_bytes: up to which Redis does not rewrite its AOF
            (``auto-aof-rewrite-min-size``).
        aof_growth: by which part it grows before it is rewritten
            (``auto-aof-rewrite-percentage``, 100).
    """

    redis_waiting_bytes: float | None = None
    nats_waiting_bytes: float | None = None
    redis_base_bytes: float = 8.0 * _MIB
    nats_base_bytes: float = 45.0 * _MIB
    aof_least_bytes: float = 64.0 * _MIB
    aof_growth: float = 1.0

    def redis_memory(self, tasks: Floats, payload_bytes: float) -> Floats:
        """Resident memory, bytes."""
        each = self.redis_waiting_bytes
        if each is None:
            each = 1.2 * encoded_bytes(payload_bytes) + 15
        return self.redis_base_bytes + each * tasks

    def redis_disk(
        self, tasks: Floats, put: Floats, payload_bytes: float, durability: Durability
    ) -> Floats:
        """The AOF, bytes: what was put, until a rewrite leaves what waits.

        Args:
            tasks: that wait.
            put: up to then, in all.
            payload_bytes: of each.
            durability: class; ``memory`` has none.
        """
        if durability is Durability.MEMORY:
            return np.zeros_like(tasks)
        each = encoded_bytes(payload_bytes) + 30
        most = np.maximum(self.aof_least_bytes, (1 + self.aof_growth) * each * tasks)
        return np.minimum(each * put, most)

    def nats_memory(self, tasks: Floats, payload_bytes: float, durability: Durability) -> Floats:
        """Resident memory, bytes."""
        each = self.nats_waiting_bytes
        if each is None:
            in_memory = durability is Durability.MEMORY
            each = 2.1 * (encoded_bytes(payload_bytes) + 22) if in_memory else 0.0
        return self.nats_base_bytes + each * tasks

    def nats_disk(self, tasks: Floats, payload_bytes: float, durability: Durability) -> Floats:
        """The stream's files, bytes."""
        if durability is Durability.MEMORY:
            return np.zeros_like(tasks)
        return (encoded_bytes(payload_bytes) + 36) * tasks
