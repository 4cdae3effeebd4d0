"""What the measures of the hardened design add to a worker; without any it is the guide's."""

import dataclasses
from collections.abc import Callable

from hookbench.ids import Entropy
from hookbench.migration.received import Received
from hookbench.worker.claims import Claims
from hookbench.worker.heartbeats import Heart
from hookbench.worker.retries import NakDelays

__all__ = ["NO_PROTECTIONS", "Protections"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Protections:
    """One part per measure; ``None`` where it is off.

    Attributes:
        claims: ``done_store``.
        heart: ``heartbeats``.
        nak_delays: ``growing_nak``.
        entropy: of the jitter in those delays.
        own_attempts: ``own_attempts`` or ``done_store``: a task that comes after its budget was
            used up is buried, not started.
        trim: ``trim``: is given the payload of what has ended on NATS.
    """

    claims: Claims | None = None
    heart: Heart | None = None
    nak_delays: NakDelays | None = None
    entropy: Entropy | None = None
    own_attempts: bool = False
    trim: Callable[[bytes], None] | None = None

    def history_of(self, item: Received) -> tuple[str, ...]:
        """What is known of the attempts before this delivery; the guide's letters say nothing."""
        if self.claims is None and not self.own_attempts:
            return ()
        return _history(item)


NO_PROTECTIONS = Protections()


def _history(item: Received) -> tuple[str, ...]:
    delivery = item.delivery
    name = delivery.broker.name.lower()
    lines = [f"{name} counts {delivery.attempt} deliveries of this copy"]
    if item.task is not None and item.task.retry_count:
        lines.append(f"put back {item.task.retry_count} times after a failure")
    if item.claim is None:
        return tuple(lines)
    granted = item.claim.granted
    if granted.failures:
        lines.append(f"failed {granted.failures} times, last: {granted.last_failure}")
    if granted.losses:
        lines.append(f"{granted.losses} times its worker died, or stood still until its lease end")
    return tuple(lines)
