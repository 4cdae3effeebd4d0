"""Seen against told, task by task."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from hookbench.ledger.events import Broker, Event
from tests.witness.accounts import Delivery, Seen, Told

__all__ = ["Check", "Comparison", "compare", "examples", "same"]

EXAMPLES = 3


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: how many the witness saw and the ledger tells of, and what differs."""

    name: str
    seen: int
    told: int
    problems: list[str] = []


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of a run.

    Attributes:
        figures: counts beside those of the checks.
        refuted: what differs, with example ids.
        unknown: why the comparison says nothing, if it does.
    """

    checks: list[Check]
    figures: dict[str, int]
    unknown: list[str]

    @property
    def refuted(self) -> list[str]:
        """All problems."""
        return [problem for check in self.checks for problem in check.problems]

    @property
    def sides(self) -> dict[str, dict[str, int]]:
        """Both counts of each check, by its name."""
        return {check.name: {"seen": check.seen, "told": check.told} for check in self.checks}


def compare(seen: Seen, told: Told) -> Comparison:
    """Every comparison that can be made.

    A run in which nothing happened agrees with any ledger, so an empty side is ``unknown``.
    """
    deliveries, figures = _deliveries(seen, told)
    checks = [*_redis(seen, told), *_stream(seen, told), *_answers(seen, told), deliveries]
    vital = ("redis_puts", "redis_removals", "nats_puts", "nats_acks", "nats_deliveries")
    empty = [
        f"{check.name}: nothing happened"
        for check in checks
        if check.name in vital and not check.seen
    ]
    waiting = [f"{seen.ack_pending} deliveries were not answered"] if seen.ack_pending else []
    return Comparison(
        checks=checks,
        figures=figures,
        unknown=[*seen.incomplete, *told.doubts, *empty, *waiting],
    )


def examples(items: Iterable[Any]) -> str:
    return ", ".join(str(item) for item in sorted(items)[:EXAMPLES])


def same(name: str, seen: Counter[Any], told: Counter[Any]) -> Check:
    """Equal as multisets."""
    problems = []
    if missing := told - seen:
        problems.append(
            f"{name}: {missing.total()} of the ledger were not seen, e.g. {examples(missing)}"
        )
    if extra := seen - told:
        problems.append(
            f"{name}: {extra.total()} that were seen are not in the ledger, e.g. {examples(extra)}"
        )
    return Check(name=name, seen=seen.total(), told=told.total(), problems=problems)


def _redis(seen: Seen, told: Told) -> list[Check]:
    """The last two ask whether what went into a list is what came out of it, or lies there.

    A trimmed copy came out as well: one of each task that was looked for, if it is missing.
    """
    received = told.of(Event.RECEIVED, Broker.REDIS)
    naks = told.of(Event.NAK, Broker.REDIS)
    finished = told.of(Event.ACK_SENT, Broker.REDIS) + told.of(Event.TERM, Broker.REDIS)
    into = seen.pushed + seen.requeued
    once = Counter(dict.fromkeys(seen.looked_for, 1))
    trimmed = (into - received - seen.pending_left) & once
    return [
        *_trims(seen, told, trimmed),
        same("redis_puts", seen.pushed, told.of(Event.PUT_OK, Broker.REDIS)),
        same("redis_removals", seen.removed, finished),
        same("redis_retries", seen.requeued, naks),
        same("redis_retries_removed", seen.taken_back, naks),
        same(
            "redis_pending_list",
            into,
            received + seen.pending_left + trimmed,
        ),
        same(
            "redis_work_list",
            seen.removed + seen.taken_back + seen.work_left,
            received,
        ),
    ]


def _trims(seen: Seen, told: Told, trimmed: Counter[str]) -> list[Check]:
    """Only what has ended on NATS is looked for; no check where nothing was."""
    if not seen.looked_for:
        return []
    ended = told.of(Event.ACK_SENT, Broker.NATS) + told.of(Event.TERM, Broker.NATS)
    strange = seen.looked_for.keys() - ended.keys()
    text = f"redis_trims: {len(strange)} trimmed that NATS had not done, e.g. {examples(strange)}"
    return [
        Check(
            name="redis_trims",
            seen=trimmed.total(),
            told=trimmed.total(),
            problems=[text] if strange else [],
        )
    ]


def _stream(seen: Seen, told: Told) -> list[Check]:
    stored = Counter((number, name) for number, name in seen.stored.items())
    once = Counter(dict.fromkeys(told.stored, 1))  # a repeat is acknowledged with the first number
    length = Check(
        name="nats_stream_length",
        seen=seen.last_sequence,
        told=len({number for number, _name in told.stored}),
    )
    unlike = {
        "messages": seen.messages,
        "messages read back": len(seen.stored),
        "messages published": seen.published.total() - seen.repeats,
        "sequences in the ledger": length.told,
    }
    problems = [
        f"nats_stream_length: the last sequence is {seen.last_sequence}, with {count} {what}"
        for what, count in unlike.items()
        if count != seen.last_sequence
    ]
    return [
        same("nats_puts", seen.published, told.of(Event.PUT_OK, Broker.NATS)),
        same("nats_stream", stored, once),
        msgspec.structs.replace(length, problems=problems),
    ]


def _answers(seen: Seen, told: Told) -> list[Check]:
    """A nak of a delivery that no worker received is the client's: it gave back what it held."""

    def tasks(what: str, *, received_only: bool = False) -> Counter[str]:
        return Counter(
            seen.stored.get(item.delivery.sequence, f"sequence {item.delivery.sequence}")
            for item in seen.answers
            if item.what == what and not (received_only and item.delivery not in told.received)
        )

    return [
        same("nats_acks", tasks("ack"), told.of(Event.ACK_SENT, Broker.NATS)),
        same("nats_naks", tasks("nak", received_only=True), told.of(Event.NAK, Broker.NATS)),
        same("nats_terms", tasks("term"), told.of(Event.TERM, Broker.NATS)),
    ]


def _deliveries(seen: Seen, told: Told) -> tuple[Check, dict[str, int]]:
    """The consumer's own count of deliveries, each explained.

    A delivery was received (ledger), or given back by the client before a worker got it (a nak
    without a record), or dropped by it: neither received nor answered, and followed by another
    attempt of the same sequence.
    """
    name = "nats_deliveries"
    answered = {item.delivery: item.number for item in seen.answers}
    received = set(told.received)
    given_back = {item.delivery for item in seen.answers if item.what == "nak"} - received
    last: dict[int, int] = {}
    for sequence, attempt in received | answered.keys():
        last[sequence] = max(attempt, last.get(sequence, 0))
    every = {Delivery(number, n) for number, top in last.items() for n in range(1, top + 1)}
    dropped = every - received - answered.keys()
    problems = []
    if twice := {item for item, count in told.received.items() if count > 1}:
        problems.append(f"{name}: {len(twice)} received twice, e.g. {examples(twice)}")
    if strange := answered.keys() - received - given_back:
        problems.append(
            f"{name}: {len(strange)} acknowledged and not received, e.g. {examples(strange)}"
        )
    if len(every) != seen.deliveries:
        problems.append(
            f"{name}: the consumer counts {seen.deliveries}; {len(received)} were received,"
            f" {len(given_back)} given back and {len(dropped)} dropped, together {len(every)}"
        )
    if len(set(answered.values())) != len(answered) or any(
        not 1 <= number <= seen.deliveries for number in answered.values()
    ):
        problems.append(f"{name}: numbers of answered deliveries repeat, or exceed the count")
    told_count = told.received.total() + len(given_back) + len(dropped)
    figures = {
        "nats_received": told.received.total(),
        "nats_given_back": len(given_back),
        "nats_dropped": len(dropped),
        "nats_redelivered": sum(attempt > 1 for _sequence, attempt in every),
    }
    return Check(name=name, seen=seen.deliveries, told=told_count, problems=problems), figures
