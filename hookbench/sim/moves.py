"""How a simulated fleet goes from phase to phase.

The guide tells everybody at once. For the hardened design the moves of its procedures are made in
the operator's place, without their code (measure ``gates``): producers first; the workers when all
producers have followed, and when what the workers will not read any more is empty. Where that does
not come about the phase is not entered, as a gate would have it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hookbench.clock import NS_PER_S
from hookbench.migration.phases import (
    Design,
    Phase,
    ReadRoute,
    WriteRoute,
    read_route,
    write_route,
)
from hookbench.sim.schedule import PRODUCER

if TYPE_CHECKING:
    from hookbench.rehearsal.observer import Observer
    from hookbench.sim.scheduled import ScheduledSite

__all__ = ["calm_s", "move_all"]

_POLL_S = 0.05
_PATIENCE_S = 120.0
_SETTLE_S = 0.5
_CALM_S = 15.0
_CALM_AFTER_A_DEATH_S = 80.0


async def move_all(site: "ScheduledSite", index: int, observer: "Observer") -> bool:
    """Take producers and workers into a phase of the timeline; whether they got there."""
    phases = site.plan.phases
    before, after = phases[index - 1], phases[index]
    if site.plan.design is Design.GUIDE:
        site.enter(index, after)
        return True
    if not await _wait(site, lambda: _entered(site, index - 1)):
        site.note(f"{after.label} is not entered: somebody is not in {before.label}")
        return False
    site.enter_role(PRODUCER, index, after)
    if not await _wait(site, lambda: _is_in(site, PRODUCER, index)):
        site.note(f"{after.label} is not entered: the producer does not follow")
        return False
    await site.clock.sleep(_SETTLE_S)
    if write_route(after) is not WriteRoute.BOTH:
        await site.clock.sleep(calm_s(site, before))
    if not await _drained(site, observer, before, after):
        site.note(f"{after.label} is not entered by the workers: what they leave is not empty")
        return False
    site.enter_role("worker", index, after)
    return True


def calm_s(site: "ScheduledSite", phase: Phase) -> float:
    """How long the hardened design may take after the load until nothing is left over.

    While both brokers are written what only one of them has is put on the other by a round of one
    worker; if that one dies, another has its turn after a minute.
    """
    if site.plan.design is Design.GUIDE or write_route(phase) is not WriteRoute.BOTH:
        return 0.0
    died = any(member.starts > 1 for member in site.members.values())
    return _CALM_AFTER_A_DEATH_S if died else _CALM_S


async def _drained(
    site: "ScheduledSite", observer: "Observer", before: Phase, after: Phase
) -> bool:
    """Whether what the workers read in the one phase and not in the other becomes empty."""
    reads = {
        ReadRoute.REDIS: {"redis"},
        ReadRoute.NATS: {"nats"},
        ReadRoute.NATS_THEN_REDIS: {"redis", "nats"},
    }
    left = reads[read_route(before)] - reads[read_route(after)]
    deadline_ns = site.loop.now_ns + int(_PATIENCE_S * NS_PER_S)
    while left:
        sample = await observer.sample()
        depths = {
            "redis": (sample.redis_pending, sample.redis_work),
            "nats": (sample.consumer_pending, sample.ack_pending),
        }
        if all(depths[broker] == (0, 0) for broker in left):
            break
        if site.loop.now_ns > deadline_ns:
            return False
        await site.clock.sleep(_POLL_S)
    return True


def _is_in(site: "ScheduledSite", place: str, index: int) -> bool:
    member = site.members[place]
    if member.is_over:
        return True
    ledger = member.ledger
    return (
        member.process is not None
        and ledger is not None
        and ledger.phase == index
        and ledger.open_puts == 0  # then those of the phase before have ended, too
    )


def _entered(site: "ScheduledSite", index: int) -> bool:
    return all(_is_in(site, place, index) for place in site.members)


async def _wait(site: "ScheduledSite", condition: Callable[[], bool]) -> bool:
    deadline_ns = site.loop.now_ns + int(_PATIENCE_S * NS_PER_S)
    while not condition():
        if site.loop.now_ns > deadline_ns:
            return False
        await site.clock.sleep(_POLL_S)
    return True
