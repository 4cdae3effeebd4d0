"""Which hazards the search of the simulator looks for, where, and how one is recognised."""

import dataclasses

import msgspec

from hookbench.migration.phases import Design, Phase
from hookbench.migration.procedures import PROCEDURES
from hookbench.sim.schedule import FaultKind, draw_schedule
from hookbench.sim.trial import Scope
from tests.evidence.sim_scopes import BACK_AGAIN, move

__all__ = ["COVERAGE", "NOT_DRAWN", "WANTED", "FoundHazard", "Wanted"]

COVERAGE = "coverage "
"""Before the name of a fault in the figures: how often it struck at each step."""

_G, _P, _K = Design.GUIDE, Phase, FaultKind
_LOST, _AGAIN_WITHOUT_A_CAUSE = "-/1 # tasks lost", "-/4 # tasks done again"
_LOST_REPLY = (_K.LOSE, _K.RESET)
_DEATH = (_K.KILL, _K.KILL_AT_STEP, _K.KILL_AT_MESSAGE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A hazard that the account of a simulated run can name, or that its schedule tells.

    Attributes:
        hazard: its id.
        scopes: where it is looked for, in turn.
        causes: a cause counts whose key begins with one of these.
        kinds: a fault of one of these kinds is left in the minimal schedule; without any, no
            matter which.
    """

    hazard: str
    scopes: tuple[Scope, ...]
    causes: tuple[str, ...]
    kinds: tuple[FaultKind, ...] = ()

    def is_drawn(self, scope, seed):
        """Whether a seed has a fault of the kinds at all."""
        faults = draw_schedule(seed, scope.span)
        return not self.kinds or any(fault.kind in self.kinds for fault in faults)

    def key_in(self, keys):
        """The first of these keys of causes that counts; empty for none."""
        return next((key for key in keys if key.startswith(self.causes)), "")

    def is_shown_by(self, minimal):
        """Whether a minimal schedule is of this hazard, and of no other with the same cause."""
        return not self.kinds or any(fault.kind in self.kinds for fault in minimal.faults)


class FoundHazard(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the search for one hazard.

    Attributes:
        seed: the first that shows it; 0 if none did.
        scope: of that seed.
        cause: its key.
        faults, events: of the minimal schedule: faults, and what happens to its task until it is
            lost, repeated or stranded, the faults included.
        schedule: the faults in words.
        shrunk_in: runs until it was minimal.
        replayed: seed whose minimal schedule showed the hazard on real brokers; 0 for none.
        replayed_in: its scope.
        rehearsals: runs on real brokers.
        instead: keys that they named, where they did not name it.
        hardened: verdict under the minimal schedule; ``hardened_drawn`` under the whole one.
        story: of the minimal schedule.
    """

    hazard: str
    seed: int = 0
    scope: str = ""
    cause: str = ""
    faults: int = 0
    events: int = 0
    schedule: str = ""
    shrunk_in: int = 0
    replayed: int = 0
    replayed_in: str = ""
    rehearsals: int = 0
    instead: str = ""
    hardened: str = ""
    hardened_drawn: str = ""
    story: tuple[str, ...] = ()


def _alone(*phases, **more):
    return tuple(Scope(design=_G, phases=(phase,), **more) for phase in phases)


def _moves_to(*targets):
    return tuple(move(_G, *ends) for ends in PROCEDURES if ends[1] in targets)


_REDIS_READ = (*_alone(_P.REDIS_ONLY, _P.DUAL_WRITE), move(_G, _P.REDIS_ONLY, _P.DUAL_WRITE))
_AGAIN = Scope(design=_G, phases=BACK_AGAIN)

WANTED = (
    Wanted(hazard="R1", scopes=_REDIS_READ, causes=("R3/",), kinds=_LOST_REPLY),
    Wanted(hazard="R3", scopes=_REDIS_READ, causes=("R3/",), kinds=_DEATH),
    Wanted(hazard="R7", scopes=_alone(_P.REDIS_ONLY), causes=(_LOST,), kinds=(_K.PROMOTE,)),
    Wanted(hazard="P2", scopes=_alone(_P.DUAL_READ), causes=("P2/",)),
    Wanted(hazard="P3", scopes=_alone(_P.DUAL_WRITE), causes=("P3/",)),
    Wanted(
        hazard="P4",
        scopes=_alone(_P.DUAL_READ),
        causes=(_AGAIN_WITHOUT_A_CAUSE,),
        kinds=(_K.REPEAT,),
    ),
    Wanted(hazard="P5", scopes=(move(_G, _P.DUAL_WRITE, _P.DUAL_READ),), causes=("P5/",)),
    Wanted(hazard="P6", scopes=_moves_to(_P.NATS_PRIMARY), causes=("P6/",)),
    Wanted(hazard="P8", scopes=_alone(_P.DUAL_READ), causes=("P8/4", "P8/8")),
    Wanted(hazard="P9", scopes=_alone(_P.DUAL_READ), causes=("P9/",)),
    Wanted(hazard="P10", scopes=_alone(_P.NATS_PRIMARY), causes=("P10/",)),
    Wanted(hazard="P11", scopes=_alone(_P.DUAL_READ, max_inversions=0), causes=("P11/",)),
    Wanted(
        hazard="N2",
        scopes=_alone(_P.NATS_PRIMARY, _P.NATS_ONLY),
        causes=(_AGAIN_WITHOUT_A_CAUSE,),
        kinds=(_K.REPEAT,),
    ),
    Wanted(hazard="N3", scopes=_alone(_P.NATS_PRIMARY, measures="ack_after"), causes=("N3/",)),
    Wanted(hazard="B1", scopes=(_AGAIN,), causes=("B1/",)),
    Wanted(hazard="B2", scopes=(move(_G, _P.DUAL_READ, _P.REDIS_ONLY),), causes=("B2/",)),
    Wanted(hazard="B3", scopes=_moves_to(_P.REDIS_ONLY)[2:], causes=("B3/",)),
)

_ONE_PRODUCER = "there is one producer, and its tasks are of one type"
_WAITS = "the tasks wait, which the account calls valid as long as they come to an end"
_NO_SETTING = "no schedule has the setting that it needs"

NOT_DRAWN = {
    "R2": "nothing in the reference code cancels a read that waits",
    "R4": "no producer makes tasks without an id",
    "R5": "guide has no reaper; an operator's script would have to play it",
    "R6": _WAITS,
    "R8": "the reference client repeats nothing",
    "R9": "a setting of a client that the reference code does not have",
    "P1": _ONE_PRODUCER,
    "P7": _NO_SETTING,
    "P12": _WAITS,
    "N1": "guide refuses the tasks, and a refused task is no loss; drawn with three nodes alone",
    "N4": "a task that has used up its attempts has a dead letter, which is an end",
    "N5": _WAITS,
    "N6": "a repeat behind the end of a lease is explained by it",
    "N7": "a repeat behind a consumer that is gone is explained by that fault",
    "N8": _NO_SETTING,
    "N9": _WAITS,
    "N10": "brokers sync what they acknowledge in the class that is searched",
    "T1": _ONE_PRODUCER,
    "C1": "nobody removes Redis at the end of a simulated timeline",
    "S1": "the producer refuses what is too large before it is put anywhere",
    "S2": "the reference worker ends what it cannot read",
}
"""Why no schedule shows the other hazards of the table."""
