"""Bytes in the queue that are no task (hazard S2)."""

import random

import msgspec

from hookbench.errors import SettingError
from hookbench.faults.base import Fault, Targets
from hookbench.migration.phases import ReadRoute, read_route

__all__ = ["QUEUE", "Poison", "check_queue_fault", "junk", "queue_broker", "queue_needs"]

QUEUE = "queue"
"""The target that is the broker which workers read in the phase of the moment."""
MAX_COUNT = 10_000
_MAX_BYTES = 200
_NESTED = 5_000


class Poison(Fault, frozen=True, kw_only=True, tag="poison"):
    """``count`` payloads that are no task, put straight into the queue.

    There is nothing to heal: they are in the queue until a worker buries them. Each is a dead
    letter without an id, which the account counts as ``junk``.

    Attributes:
        count: how many.
        seed: another one makes others.
    """

    count: int = 1
    seed: int = 0

    def check(self) -> None:
        """Refuse another target, and a number beyond reason."""
        check_queue_fault(self, self.count)

    def needs(self) -> dict[str, int]:
        """The brokers that may get them."""
        return queue_needs(self.target)

    async def inject(self, targets: Targets) -> None:
        """Put them, each acknowledged by its broker."""
        broker = queue_broker(targets, self.target)
        await targets.administration.put(broker, junk(self.count, self.seed))
        targets.memory.note(self, "put", f"{self.count} to {broker}")


def junk(count: int, seed: int) -> list[bytes]:
    """Payloads of different kinds that are no tasks; the same for the same seed."""
    rng = random.Random(seed)
    whole = msgspec.json.encode({"id": "7", "repo_id": "r", "task_type": "sync", "payload": {}})
    kinds = (
        lambda: b"\xff" + rng.randbytes(rng.randrange(_MAX_BYTES)),  # not UTF-8
        lambda: whole[: rng.randrange(1, len(whole))],  # cut off
        lambda: whole,  # a wrong id, and no time
        lambda: msgspec.json.encode([rng.random()]),  # no object
        lambda: b"[" * _NESTED,  # deeper than a parser goes
        lambda: b"",
    )
    return [rng.choice(kinds)() for _ in range(count)]


def check_queue_fault(fault: Fault, count: int) -> None:
    """Refuse what a fault that puts payloads into the queue cannot be.

    Raises:
        SettingError: another target, an end, or a number beyond reason.
    """
    if fault.target not in (QUEUE, "redis", "nats"):
        raise SettingError(
            f"fault {fault.name}: target {fault.target!r}: use {QUEUE} (what is read at the time),"
            " redis or nats"
        )
    if fault.for_s > 0:
        raise SettingError(f"fault {fault.name}: for_s {fault.for_s}: leave it out")
    if not 1 <= count <= MAX_COUNT:
        raise SettingError(f"fault {fault.name}: count {count}: use between 1 and {MAX_COUNT}")


def queue_needs(target: str) -> dict[str, int]:
    """The broker that is the target, or both where the phase will tell."""
    return {broker: 1 for broker in ("redis", "nats") if target in (QUEUE, broker)}


def queue_broker(targets: Targets, target: str) -> str:
    """The broker that is the target, or that workers read in the phase of the moment."""
    if target != QUEUE:
        return target
    return "redis" if read_route(targets.phase) is ReadRoute.REDIS else "nats"
