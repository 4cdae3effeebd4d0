"""What the price is measured of: phases, and in each of them the measures that it can meet."""

import dataclasses

from hookbench.migration.measures import NO_MEASURES, parse_measures
from hookbench.migration.phases import Phase

__all__ = [
    "BUDGETS",
    "GUIDE",
    "LEFT_OUT",
    "MARGIN",
    "RECONCILED",
    "REPLICA",
    "VARIANTS",
    "Budget",
    "Variant",
]

GUIDE = "guide"
REPLICA = "redis_only with a replica"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A phase with some measures."""

    situation: str
    measures: str = GUIDE

    @property
    def phase(self):
        return Phase[self.situation.partition(" ")[0].upper()]

    @property
    def chosen(self):
        return parse_measures(self.measures, NO_MEASURES)

    @property
    def has_replica(self):
        return self.situation == REPLICA

    @property
    def guide(self):
        """The same without a measure."""
        return dataclasses.replace(self, measures=GUIDE)

    @property
    def label(self):
        return f"{self.situation}: {self.measures}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a measure adds to the guide's traffic of one task, put and worked on in turn.

    At once it is never more. The guide's own budget is all that it has.

    Attributes:
        redis_turns: writes to Redis that are waited for.
        turns_at_once: the most when many tasks share a turn; by default as many.
        nats_out, nats_in: messages to and from NATS.
        wire_bytes: the most, all brokers and both ways; rounded up by a tenth or more.
    """

    redis_turns: float = 0
    turns_at_once: float | None = None
    nats_out: float = 0
    nats_in: float = 0
    wire_bytes: int = 150

    def at_once(self, name):
        """The most of one of the three when there are many."""
        if name == "redis_turns" and self.turns_at_once is not None:
            return self.turns_at_once
        return getattr(self, name)


MARGIN = 0.25
"""Per task: for reads that brought nothing, and for what goes by the clock and not by the task."""

_FREE = Budget()
_ID = Budget()  # the header of a publish
_CLAIM = 2  # one question before the task, one after it
_SHARED = 0.25  # what is asked in one turn of the event loop goes to Redis together
_OOM_CLAIMS = Budget(redis_turns=-1, turns_at_once=0)  # one script takes the first task as well
_LEASE_BYTES = 1850  # who waits for a task renews its lease by the text of a script

# A measure stands with what it needs: heartbeats, attempts and delays are of deliveries that are
# not acknowledged yet, and epochs and what Redis holds back are asked of the done-store.
_BUDGETS = {
    # Both brokers are written, Redis is read.
    "dual_write": {
        GUIDE: Budget(redis_turns=4, turns_at_once=_SHARED, nats_out=1, nats_in=1, wire_bytes=2000),
        "message_ids": _ID,
        "outbox": _ID,
        "oom_claims": _OOM_CLAIMS,
        "done_store,reconcile": Budget(redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=1000),
        "all": Budget(
            redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=_LEASE_BYTES + 1000 + 150
        ),
    },
    "redis_only": {
        GUIDE: Budget(redis_turns=4, turns_at_once=_SHARED, wire_bytes=1500),
        "exact_removal": _FREE,
        "leases": Budget(wire_bytes=_LEASE_BYTES),
        "oom_claims": _OOM_CLAIMS,
        "own_attempts": _FREE,
        "growing_nak": _FREE,
        "heartbeats": _FREE,
        "done_store": Budget(redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=1000),
        "repository_order": Budget(redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=1000),
        "all": Budget(redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=_LEASE_BYTES + 1000),
    },
    REPLICA: {
        GUIDE: Budget(redis_turns=4, turns_at_once=_SHARED, wire_bytes=1500),
        # WAIT is about what its own connection wrote, so no put shares one with others.
        "replica_wait": Budget(turns_at_once=1, wire_bytes=800),
    },
    # Both brokers are written, NATS is read, Redis is the authority.
    "dual_read": {
        GUIDE: Budget(redis_turns=1, nats_out=3, nats_in=2, wire_bytes=1700),
        "ack_after": _FREE,
        "trim": Budget(redis_turns=1, turns_at_once=0.1, wire_bytes=450),
        "done_store": Budget(redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=950),
        "done_store,read_both": Budget(redis_turns=_CLAIM, turns_at_once=_SHARED, wire_bytes=950),
        "all": Budget(redis_turns=_CLAIM + 1, turns_at_once=_SHARED, nats_in=1, wire_bytes=1500),
    },
    # NATS alone is written, and both are the authority: what each of them asks for adds up.
    "nats_primary": {
        GUIDE: Budget(nats_out=3, nats_in=2, wire_bytes=1300),
        "done_store": Budget(
            redis_turns=_CLAIM,
            turns_at_once=_SHARED,
            nats_out=_CLAIM,
            nats_in=_CLAIM,
            wire_bytes=1900,
        ),
        "repository_order": Budget(
            redis_turns=_CLAIM,
            turns_at_once=_SHARED,
            nats_out=_CLAIM + 2,
            nats_in=_CLAIM + 2,
            wire_bytes=2900,
        ),
        "all": Budget(
            # A copy in Redis, which a task of an earlier phase has, is looked for twice.
            redis_turns=_CLAIM + 2,
            turns_at_once=_SHARED,
            nats_out=_CLAIM + 2,
            nats_in=_CLAIM + 2 + 1,
            wire_bytes=5200,
        ),
    },
    # JetStream is the authority.
    "nats_only": {
        GUIDE: Budget(nats_out=3, nats_in=2, wire_bytes=1300),
        "message_ids": _ID,
        "outbox": _ID,
        "ack_after": _FREE,
        "ack_after,confirmed_acks": Budget(nats_in=1),
        "ack_after,heartbeats": _FREE,
        "ack_after,growing_nak": _FREE,
        "ack_after,own_attempts": _FREE,
        "done_store": Budget(nats_out=_CLAIM, nats_in=_CLAIM, wire_bytes=800),
        # The last task of the repository is read before the claim, and written after it.
        "repository_order": Budget(nats_out=_CLAIM + 2, nats_in=_CLAIM + 2, wire_bytes=1700),
        "done_store,epoch_consumer": Budget(nats_out=_CLAIM, nats_in=_CLAIM, wire_bytes=800),
        "consumer_per_type": _FREE,
        "short_pings": _FREE,
        "sized_pending": _FREE,
        "advisories": _FREE,
        "rescue_aged": _FREE,
        "synced_only": _FREE,
        "all": Budget(nats_out=_CLAIM + 2, nats_in=_CLAIM + 2 + 1, wire_bytes=2000),
    },
}

LEFT_OUT = {
    "gates": "which a procedure asks between two phases, and no producer or worker",
    "replica_wait in all": "for there is no replica to wait for",
}

BUDGETS = {
    Variant(situation=situation, measures=measures): budget
    for situation, found in _BUDGETS.items()
    for measures, budget in found.items()
}
VARIANTS = tuple(BUDGETS)

RECONCILED = {"redis_turns": 0.25, "nats_out": 3.25, "nats_in": 3.25}
"""Of one round of ``reconcile``, the most per task on both brokers: the stream is read for what is
pending, for what is in work, and for what Redis lacks, a request for each task."""
