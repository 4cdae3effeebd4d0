"""A moment of a chaotic timeline: what is there that a fault could be aimed at."""

import random
from collections.abc import Callable

import msgspec

from hookbench.faults.registry import AnyFault
from hookbench.migration.done_store import Authority, authority_of
from hookbench.migration.phases import Phase, ReadRoute, WriteRoute, read_route, write_route
from hookbench.rehearsal.settings import RehearsalSettings

__all__ = ["WITHIN_S", "Maker", "Moment"]

WITHIN_S = 300.0
"""What waits for a frame or a step may wait for the end of a procedure as well."""


class Moment(msgspec.Struct, frozen=True):
    """When a fault begins, and what is there then.

    Attributes:
        at_s: from the beginning of the change into the phase.
        for_s: how long it lasts, if it does.
        phase_index: the place of the phase in the timeline.
        left_s: until the phase ends, at the earliest.
        before: the phases that everybody has entered before.
    """

    at_s: float
    for_s: float
    phase_index: int
    left_s: float
    before: tuple[Phase, ...]
    settings: RehearsalSettings

    @property
    def rest_s(self) -> float:
        """Until the load ends, at the earliest."""
        later = len(self.settings.phases) - self.phase_index - 1
        return self.left_s + later * self.settings.phase_seconds

    @property
    def consumed(self) -> bool:
        """Whether workers have read NATS, so that there is a consumer."""
        return any(read_route(phase) is not ReadRoute.REDIS for phase in self.before)

    @property
    def published(self) -> bool:
        """Whether producers have written to NATS, so that there is a stream."""
        return any(write_route(phase) is not WriteRoute.REDIS for phase in self.before)

    @property
    def phase(self) -> Phase:
        """Into which the change is."""
        return self.settings.phases[self.phase_index]

    @property
    def writes_redis(self) -> bool:
        """Whether every put goes to Redis."""
        return write_route(self.phase) in (WriteRoute.REDIS, WriteRoute.BOTH)

    @property
    def writes_nats(self) -> bool:
        """Whether every put goes to NATS."""
        return write_route(self.phase) is not WriteRoute.REDIS

    @property
    def reads_redis(self) -> bool:
        """Whether workers read Redis all along."""
        return read_route(self.phase) is ReadRoute.REDIS

    @property
    def reads_nats(self) -> bool:
        """Whether workers read NATS."""
        return read_route(self.phase) is not ReadRoute.REDIS

    @property
    def claims_on_redis(self) -> bool:
        """Whether workers ask Redis for each task, whichever broker it came from."""
        asked = authority_of(self.phase) is not Authority.NATS
        return self.settings.effective_measures.done_store and asked

    @property
    def claims_on_nats(self) -> bool:
        """Whether workers ask JetStream for each task."""
        asked = authority_of(self.phase) is not Authority.REDIS
        return self.settings.effective_measures.done_store and asked

    @property
    def redis_used(self) -> bool:
        """Whether anybody uses Redis."""
        return self.writes_redis or self.reads_redis or self.claims_on_redis

    @property
    def nats_used(self) -> bool:
        """Whether anybody uses NATS."""
        return self.writes_nats or self.reads_nats


Maker = Callable[[random.Random, Moment], AnyFault | None]
"""A fault for a moment, ``None`` where it could not fire."""
