"""What a node has and is in a Raft group, and what the group is for."""

from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["Entry", "Machine", "Role", "is_as_far"]


class Role(msgspec.Struct):
    """What a node is in a group.

    Attributes:
        name: of the node.
        log: what it has.
        term: that it knows of.
        leads: it takes itself for the leader of its term.
        serves: it leads, and has applied all that was there before.
        leader: whom it follows; empty for nobody.
        committed: how many entries it knows as committed.
        applied: how many its machine has.
        sent: as a leader, how many entries each other node was sent.
        confirmed: how many it has said that it has.
    """

    name: str
    log: "list[Entry]" = msgspec.field(default_factory=list)
    term: int = 0
    leads: bool = False
    serves: bool = False
    leader: str = ""
    committed: int = 0
    applied: int = 0
    sent: dict[str, int] = msgspec.field(default_factory=dict)
    confirmed: dict[str, int] = msgspec.field(default_factory=dict)
    timer: Any = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a log.

    Attributes:
        term: of the leader that made it.
        time_ns: when, by its wall clock.
        what: for the machine; ``None`` for what a new leader begins with.
    """

    term: int
    time_ns: int
    what: Any


class Machine(msgspec.Struct, frozen=True):
    """What is replicated, by node.

    Attributes:
        apply: carry a committed entry out at a node; what it comes to.
        reset: begin anew at a node, with these entries.
        lead: a node leads from now on, and has everything.
        follow: it does not any more.
    """

    apply: Callable[[str, Entry], Any]
    reset: Callable[[str, list[Entry]], None]
    lead: Callable[[str], None] = lambda _name: None
    follow: Callable[[str], None] = lambda _name: None


def is_as_far(candidate: Role, voter: Role) -> bool:
    """Whether a log has all that is committed as far as the voter can know."""
    mine = voter.log[-1].term if voter.log else 0, len(voter.log)
    return (candidate.log[-1].term if candidate.log else 0, len(candidate.log)) >= mine
