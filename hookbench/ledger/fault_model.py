"""What an account says of faults, of workers that died, and of brokers that did not answer."""

import msgspec

from hookbench.ledger.reach import Reach, reach_of

__all__ = ["Crash", "FaultAccount", "FaultWindow", "Unavailability"]

_NEVER_NS = 2**63 - 1


class FaultWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that fired, monotonic ns.

    Attributes:
        index: place in the schedule.
        kind: as in a scenario, ``power_cut``; empty for one that nothing is known of.
        end_ns: ``None`` where it was not healed.
        doubles: how many requests of producers it has sent twice at the most; 0 for none.
        rollback_ns: for how long before it what a broker recorded was taken back; 0 for none.
    """

    index: int
    name: str
    target: str
    begin_ns: int
    end_ns: int | None = None
    kind: str = ""
    doubles: int = 0
    rollback_ns: int = 0

    @property
    def reach(self) -> Reach:
        """Which broker it concerns, and what it can do there."""
        return reach_of(self.kind, self.target)

    def span_ns(self, last_ns: int = _NEVER_NS) -> tuple[int, int]:
        """Beginning and end; ``last_ns`` for one that was not healed."""
        end_ns = last_ns if self.end_ns is None else self.end_ns
        return self.begin_ns, max(end_ns, self.begin_ns)


class FaultAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault did.

    Attributes:
        exposed: tasks in flight while it lasted; the others below are some of them.
        lost, stuck: tasks.
        duplicated: executions beyond the first that it is the cause of.
        longest_without_ns: by broker and operation, the longest time without a success that
            reaches into the fault.
        recovery_ns: of a broker, from the end of the fault to its next success.
        served_again_ns: by broker concerned and operation, from the beginning of the fault to the
            success that ended the longest time without one: what a failover takes, which may be
            over before the fault is.
    """

    index: int
    name: str
    length_ns: int
    exposed: int
    lost: int
    stuck: int
    duplicated: int
    longest_without_ns: dict[str, int]
    recovery_ns: int | None = None
    served_again_ns: dict[str, int] = {}


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that died, and what became of the tasks that it had received and not ended.

    Attributes:
        restart_ns: from its last event to the next start of each of these tasks, by percentile:
            the redelivery latency.
    """

    writer: str
    in_hand: int
    done_by_others: int
    stuck: int
    lost: int
    examples: list[str]
    restart_ns: dict[str, int] | None = None


class Unavailability(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which an operation on a broker was attempted, and none succeeded.

    Attributes:
        broker: ``redis`` or ``nats``.
        operation: ``put``, ``receive`` or ``ack``.
        since_start_ns: its beginning, from that of the first step.
        phase: in which it began.
        fault, fault_index: the one that lasted for most of it, of those that can have to do with
            it; ``-`` and ``None`` for none.
    """

    broker: str
    operation: str
    since_start_ns: int
    length_ns: int
    phase: str
    fault: str = "-"
    fault_index: int | None = None
