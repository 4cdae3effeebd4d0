"""The timeline of a run, as its account needs it."""

from collections.abc import Sequence

from hookbench.ledger.model import StepPlan
from hookbench.migration.phases import Phase, ReadRoute, read_route

__all__ = ["plan_steps"]


def plan_steps(phases: Sequence[Phase]) -> list[StepPlan]:
    """One step per phase of the timeline, in order."""
    return [
        StepPlan(
            index=index,
            phase=phase.label,
            reads_redis=read_route(phase) is not ReadRoute.NATS,
            reads_nats=read_route(phase) is not ReadRoute.REDIS,
        )
        for index, phase in enumerate(phases)
    ]
