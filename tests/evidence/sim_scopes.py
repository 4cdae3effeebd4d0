"""What the proofs search in the simulator: all phases, all changes of phase, and the timeline."""

from hookbench.migration.phases import Phase
from hookbench.migration.procedures import PROCEDURES
from hookbench.sim.trial import Scope

__all__ = ["BACK_AGAIN", "all_scopes", "move"]

BACK_AGAIN = (
    Phase.DUAL_WRITE,
    Phase.DUAL_READ,
    Phase.REDIS_ONLY,
    Phase.DUAL_WRITE,
    Phase.DUAL_READ,
)
"""A rollback, and a second try within max-age of the first."""


def move(design, before, after, **more):
    """A change of phase; half of the faults lie around it."""
    return Scope(design=design, phases=(before, after), transition=1, **more)


def all_scopes(design):
    """The whole timeline, each transition and rollback, and each phase alone, in this order."""
    return (
        Scope(design=design, phases=tuple(Phase)),
        *(move(design, before, after) for before, after in PROCEDURES),
        *(Scope(design=design, phases=(phase,)) for phase in Phase),
    )
