"""The measures of the hardened design, each a switch of its own.

With one measure off, or one alone on, a hazard can be shown open and closed while all else stays
equal. Processes are told their measures as a text, see ``parse_measures``.
"""

import difflib

import msgspec

from hookbench.errors import SettingError
from hookbench.migration.phases import AckMode, Design
from hookbench.queues.nats_measures import NatsMeasures

__all__ = ["HARDENED", "NO_MEASURES", "Measures", "measures_of", "parse_measures"]


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """Which measures are on; by default none, which is the guide to the letter.

    Attributes:
        ack_after: NATS is acknowledged after processing, not before (hazard P10).
        exact_removal: one entry is removed from a Redis work list, not all that are equal (R4), and
            a retry puts back only what was there (R5).
        leases: Redis work lists have an owner with a lease, and a reaper; no read is cancelled, and
            attempts are counted (R1, R2, R3, and with them R4 and R5).
        oom_claims: Redis tasks can be taken at maxmemory; a Redis that evicts is refused at the
            start, one that begins to later is told of (R6). Needs Redis 7.
        replica_wait: where Redis has a replica, a task is accepted once that has it, too (R7); so
            are claims, records of what is done and dead letters.
        done_store: a task is claimed before it is started, and a copy of one that has ended is
            acknowledged without being executed (P5, B1, B2, N7, R8 and the harm of P4, N2 and P8).
            The authority counts the attempts, so the consumer has no bound (as of own_attempts).
        heartbeats: while a handler runs, its claim and its delivery are prolonged (N6).
        growing_nak: after a failure a task waits longer with each attempt, where the broker can
            wait (N4). By default that outlasts an outage of four seconds; a longer one still uses
            up three attempts, and needs longer delays or more attempts.
        own_attempts: the worker counts attempts under a consumer without a bound, and buries a
            task whose budget is used up, also by crashes (N3).
        repository_order: a ``sync`` task is ended as superseded, and not executed, if one that was
            created later for its repository is done (P11). Only for handlers of which a later
            execution covers an earlier one, as a mirror's does, and where the clocks that ids are
            taken from do not run back. It claims, as done_store does.
        trim: the Redis copy of a task that NATS has done is removed (P8).
        confirmed_acks: the server's confirmation of an acknowledgement is awaited, beside the
            work and not in its way, and asked for again (the other half of P10).
        epoch_consumer: each entry into reading NATS has a consumer of its own, which starts at
            the first task that is not done (P5, B1, N7; it needs ``done_store`` to know).
        consumer_per_type: each task type has a consumer of its own (T1).
        short_pings: a connection to a server that has stopped is given up within seconds (N9).
        sized_pending: max-ack-pending has room for every slot of every worker (N5).
        advisories: what JetStream says of deliveries that it gives up is kept in a stream, as a
            second witness (N3).
        rescue_aged: tasks that are about to be too old for the stream are copied to the dead
            letters (P7).
        synced_only: a JetStream that syncs its disk every few minutes is refused (N10).
        message_ids: a publish carries its task's id as ``Nats-Msg-Id``, and is tried again within
            the stream's duplicate window (hazards P4 and, inside of the window, N2).
        outbox: a task is accepted when it is in the producer's spool, and leaves it when every
            broker of the write route has acknowledged it (hazards P2, P3 and N1); publishes carry
            the task's id as well.
        reconcile: while both brokers are written, what only one of them has is put on the other,
            by id (hazard P9, and P2 and P3 of producers without an outbox).
        read_both: in ``dual_read`` Redis is read as well, all through the phase, where a task has
            lain there for longer than NATS needs to bring its copy (hazards P1, P6, P9). It needs
            a done-store, or what is done by NATS and not trimmed in Redis is done again (P8).
        gates: a phase is entered and left by a procedure that asks before and after whether the
            brokers and the processes are ready (hazards P1, P6, P12, C1, B1, B2, B3).
    """

    ack_after: bool = False
    exact_removal: bool = False
    leases: bool = False
    oom_claims: bool = False
    replica_wait: bool = False
    done_store: bool = False
    heartbeats: bool = False
    growing_nak: bool = False
    own_attempts: bool = False
    repository_order: bool = False
    trim: bool = False
    confirmed_acks: bool = False
    epoch_consumer: bool = False
    consumer_per_type: bool = False
    short_pings: bool = False
    sized_pending: bool = False
    advisories: bool = False
    rescue_aged: bool = False
    synced_only: bool = False
    message_ids: bool = False
    outbox: bool = False
    reconcile: bool = False
    read_both: bool = False
    gates: bool = False

    @property
    def ack_mode(self) -> AckMode:
        """When a NATS delivery is acknowledged."""
        return AckMode.AFTER_PROCESSING if self.ack_after else AckMode.IMMEDIATE

    @property
    def reads_redis_otherwise(self) -> bool:
        """Whether Redis is read in another way than the guide's."""
        return self.exact_removal or self.leases or self.oom_claims

    @property
    def nats(self) -> NatsMeasures:
        """Those that are carried out below the migration, where NATS is spoken."""
        fields = NatsMeasures.__struct_fields__
        return NatsMeasures(**{name: getattr(self, name) for name in fields})

    @property
    def text(self) -> str:
        """As ``parse_measures`` reads it: the names of those that are on, or ``none``."""
        names = [name for name in self.__struct_fields__ if getattr(self, name)]
        return ",".join(names) or _NONE


_NONE = "none"
NO_MEASURES = Measures()
HARDENED = Measures(**dict.fromkeys(Measures.__struct_fields__, True))


def measures_of(design: Design) -> Measures:
    """All of them for ``hardened``, none for ``guide``."""
    return HARDENED if design is Design.HARDENED else NO_MEASURES


def parse_measures(text: str, base: Measures = NO_MEASURES) -> Measures:
    """Measures by a list of changes, from left to right.

    Args:
        text: names separated by commas; each is switched on, or off with a ``-`` before it.
            ``none`` (or ``guide``) switches all off, ``all`` (or ``hardened``) all on.
        base: what the changes are made to.

    Raises:
        SettingError: there is no such measure; the text names the nearest.
    """
    measures = base
    for word in (item.strip() for item in text.split(",")):
        if not word:
            continue
        if word in (_NONE, Design.GUIDE):
            measures = NO_MEASURES
        elif word in ("all", Design.HARDENED):
            measures = HARDENED
        else:
            name = word.removeprefix("-")
            _check_name(name)
            measures = msgspec.structs.replace(measures, **{name: not word.startswith("-")})
    return measures


def _check_name(name: str) -> None:
    known = Measures.__struct_fields__
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise SettingError(
        f"measure {name!r}: there is none{hint}; use none, all, or of {', '.join(known)}, with a -"
        " before those to be off"
    )
