"""Seen against told with all measures: lists with leases, done-store, outbox, moves."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.ledger.events import Broker, Event
from tests.witness.compare import Check, Comparison, examples, same
from tests.witness.hardened_told import Accepted, HardenedTold
from tests.witness.nats_log import Handed, NatsSeen
from tests.witness.redis_log import RedisSeen

if TYPE_CHECKING:
    from tests.witness.accounts import Delivery

__all__ = ["HardenedSeen", "compare_hardened"]

# The write route of each phase, as the migration guide has it: 0 Redis, 1 and 2 both, then NATS.
_ROUTES = {
    0: (Broker.REDIS,),
    1: (Broker.REDIS, Broker.NATS),
    2: (Broker.REDIS, Broker.NATS),
    3: (Broker.NATS,),
    4: (Broker.NATS,),
}
_LAST = 4
_VITAL = (
    "redis_puts",
    "redis_claims",
    "redis_removals",
    "nats_puts",
    "nats_deliveries",
    "nats_acks",
    "claims",
    "done_records",
)
_ENDED = (Event.DONE, Event.SKIPPED, Event.SUPERSEDED)


class HardenedSeen(msgspec.Struct, kw_only=True):
    """What both brokers did.

    Attributes:
        phases: of the timeline, as far as it was entered.
        pending_left, work_left: the lists as Redis itself shows them after the run.
        incomplete: what the witness may have missed.
    """

    redis: RedisSeen
    nats: NatsSeen
    phases: Sequence[int]
    pending_left: Counter[str] = msgspec.field(default_factory=Counter)
    work_left: Counter[str] = msgspec.field(default_factory=Counter)
    incomplete: list[str] = []


def compare_hardened(seen: HardenedSeen, told: HardenedTold) -> Comparison:
    """Every comparison that can be made; an empty side is ``unknown``, as for the guide."""
    figures: dict[str, int] = {}
    checks = [
        *_redis(seen.redis, told),
        _lists(seen),
        _letters(seen, told),
        _trims(seen, told, figures),
        *_done_store(seen, told),
        _moved_records(seen),
        *_stream(seen.nats, told, figures),
        *_answers(seen.nats, told),
        *_deliveries(seen.nats, told, figures),
        _consumers(seen.nats),
        _drained(seen),
        _routes(seen, told, figures),
    ]
    empty = [
        f"{check.name}: nothing happened"
        for check in checks
        if check.name in _VITAL and not check.seen
    ]
    strange = seen.redis.strange + seen.nats.strange
    odd = [f"{count} {what}, which the witness does not know" for what, count in strange.items()]
    return Comparison(
        checks=checks, figures=figures, unknown=[*seen.incomplete, *told.doubts, *odd, *empty]
    )


def _within(name: str, seen: Iterable[Any], allowed: Iterable[Any], what: str) -> Check:
    """Every one of these must be among those."""
    found = Counter(seen)
    strange = found.keys() - set(allowed)
    problems = [f"{name}: {len(strange)} {what}, e.g. {examples(strange)}"] if strange else []
    known = sum(count for item, count in found.items() if item not in strange)
    return Check(name=name, seen=found.total(), told=known, problems=problems)


def _redis(seen: RedisSeen, told: HardenedTold) -> list[Check]:
    """Lists: every way in and out of them. ``redis_ended`` asks after what the work came to."""
    redis = Broker.REDIS
    received = told.of(redis, Event.RECEIVED)
    # What was moved into a work list and never handed to anybody is put back.
    unread = (seen.claims - received) & seen.put_back
    return [
        same("redis_puts", seen.puts, told.pushed),
        same("redis_moves", seen.moved, told.moved),
        same("redis_claims", seen.claims, received + unread),
        same("redis_removals", seen.removed, told.of(redis, Event.ACK_SENT, Event.TERM)),
        same("redis_ended", seen.removed, told.of(redis, *_ENDED, Event.TERM)),
        same("redis_naks", seen.naks, told.of(redis, Event.NAK)),
        same("redis_put_back", seen.put_back, told.of(redis, Event.REQUEUED)),
        same("redis_copies", seen.copied, Counter()),
        same("redis_removed_early", seen.early, Counter()),
    ]


def _lists(seen: HardenedSeen) -> Check:
    """The replayed log ends where Redis itself ended, and no work list holds anything."""
    held = seen.redis.pending_left + seen.redis.work_left
    check = same("redis_left", held, seen.pending_left + seen.work_left)
    if seen.work_left:
        text = f"{seen.work_left.total()} are in work lists, e.g. {examples(seen.work_left)}"
        check = msgspec.structs.replace(check, problems=[*check.problems, f"redis_left: {text}"])
    return check


def _letters(seen: HardenedSeen, told: HardenedTold) -> Check:
    """A procedure may move a dead letter from Redis to NATS."""
    moved = seen.redis.letters_gone & seen.nats.letters
    letters = seen.redis.letters + seen.nats.letters - moved
    return same("letters", letters, told.anywhere(Event.DEAD))


def _trims(seen: HardenedSeen, told: HardenedTold, figures: dict[str, int]) -> Check:
    """A copy goes when its task has ended, or where a procedure finds it in the stream."""
    name = "redis_trims"
    early = {task for task, ended in seen.redis.trimmed if not ended}
    known = set(seen.nats.stored.values()) | seen.redis.ended | seen.nats.ended
    lost = seen.redis.taken_out.keys() - known
    problems = []
    if early:
        problems.append(f"{name}: {len(early)} before their end, e.g. {examples(early)}")
    if lost:
        problems.append(
            f"{name}: {len(lost)} taken out that NATS does not have, e.g. {examples(lost)}"
        )
    figures["redis_trimmed"] = len(seen.redis.trimmed)
    figures["redis_taken_out"] = seen.redis.taken_out.total()
    figures["redis_put_and_there_already"] = told.found_there.total()
    count = len(seen.redis.trimmed) + seen.redis.taken_out.total()
    return Check(name=name, seen=count, told=count - len(early) - len(lost), problems=problems)


def _done_store(seen: HardenedSeen, told: HardenedTold) -> list[Check]:
    """Both authorities together: the ledger does not say which one a claim was made with."""
    claimed = seen.redis.claimed + seen.nats.claimed
    done = seen.redis.done + seen.nats.done
    superseded = seen.redis.superseded.keys() | seen.nats.superseded.keys()
    copied = {key for key, entry in seen.nats.writes.values() if entry.get("s") == "d"}
    return [
        same("claims", claimed, told.claimed),
        same(
            "done_records",
            Counter(task for task, _token in done.elements()),
            told.anywhere(Event.DONE, Event.DEAD),
        ),
        _within("done_by_claim", done, told.claimed, "ended by a claim that nobody was granted"),
        same(
            "superseded",
            Counter(dict.fromkeys(superseded, 1)),
            Counter(dict.fromkeys(told.anywhere(Event.SUPERSEDED), 1)),
        ),
        _within(
            "skipped",
            told.anywhere(Event.SKIPPED),
            seen.redis.ended | copied,
            "skipped that have no record of an end",
        ),
    ]


def _moved_records(seen: HardenedSeen) -> Check:
    """Where the way ends without Redis, NATS knows of every end that Redis knew."""
    bucket = seen.nats
    taken, keys = len(bucket.writes), len({key for key, _entry in bucket.writes.values()})
    check = Check(name="records_moved", seen=0, told=0)
    if seen.phases[-1] == _LAST:
        check = _within(
            "records_moved", seen.redis.ended, bucket.ended, "ended in Redis and not on NATS"
        )
    if (taken, keys) != (bucket.bucket_sequence, bucket.bucket_keys):
        text = (
            f"bucket: {taken} writes of {keys} keys were taken, it has come to"
            f" {bucket.bucket_sequence} and holds {bucket.bucket_keys}"
        )
        check = msgspec.structs.replace(check, problems=[*check.problems, text])
    return check


def _stream(seen: NatsSeen, told: HardenedTold, figures: dict[str, int]) -> list[Check]:
    """The wire, the stream as it was read back, and the ledger."""
    figures["nats_repeats"] = seen.repeats
    held = Counter((number, task) for number, task in seen.stored.items())
    once = Counter(dict.fromkeys(seen.puts, 1))
    length = f"nats_stream_length: it has come to {seen.last_sequence}, with {len(once)} puts"
    return [
        same("nats_puts", seen.puts, told.stored),
        same("nats_unanswered", seen.unanswered, Counter()),
        same("nats_stream", held, once),
        Check(
            name="nats_stream_length",
            seen=seen.last_sequence,
            told=len(once),
            problems=[] if seen.last_sequence == len(once) else [length],
        ),
    ]


def _answers(seen: NatsSeen, told: HardenedTold) -> list[Check]:
    """As for the guide; each acknowledgement is also confirmed, and follows from an end."""
    nats = Broker.NATS

    def tasks(items: Iterable[Handed]) -> Counter[str]:
        found = Counter()
        for item in items:
            sequence = seen.handed[item].sequence if item in seen.handed else 0
            found[seen.stored.get(sequence, f"sequence {sequence}")] += 1
        return found

    def answered(what: str) -> list[Handed]:
        found = [item for item, answer in seen.answers.items() if answer == what]
        return [item for item in found if item not in seen.drained]

    acks = tasks(answered("ack"))
    naks = tasks(item for item in answered("nak") if seen.handed.get(item) in told.received)
    return [
        same("nats_acks", acks, told.of(nats, Event.ACK_SENT)),
        same(
            "nats_confirmed",
            tasks(seen.confirmed - seen.drained.keys()),
            told.of(nats, Event.ACK_CONFIRMED),
        ),
        same("nats_ended", acks, told.of(nats, *_ENDED)),
        same("nats_naks", naks, told.of(nats, Event.NAK)),
        same("nats_terms", tasks(answered("term")), told.of(nats, Event.TERM)),
    ]


def _deliveries(seen: NatsSeen, told: HardenedTold, figures: dict[str, int]) -> tuple[Check, Check]:
    """Each delivery on the wire was received, or given back by the client, or came once more.

    Several consumers may deliver a sequence for the first time, so both are counted.
    """
    name = "nats_deliveries"
    times: defaultdict[tuple[str, int], int] = defaultdict(int)
    for handed, item in seen.handed.items():
        place = handed.consumer, item.sequence
        times[place] = max(times[place], item.attempt)
    unread: Counter[Delivery] = Counter()
    unanswered = []
    for handed, item in seen.handed.items():
        answer = seen.answers.get(handed)
        if answer == "nak" or (
            answer is None and times[handed.consumer, item.sequence] > item.attempt
        ):
            unread[item] += 1
        elif answer is None:
            unanswered.append((handed.consumer, item))
    wire = Counter(seen.handed.values())
    given_back = (wire - told.received) & unread
    figures["nats_given_back"] = given_back.total()
    figures["nats_redelivered"] = sum(n for item, n in wire.items() if item.attempt > 1)
    check = same(name, wire, told.received + given_back)
    unasked = seen.answers.keys() - seen.handed.keys() - seen.drained.keys()
    settled = _within(
        "nats_settled",
        [*seen.handed, *unasked],
        seen.handed,
        "answered that were not delivered",
    )
    if unanswered:
        text = f"nats_settled: {len(unanswered)} never answered, e.g. {examples(unanswered)}"
        settled = msgspec.structs.replace(settled, problems=[*settled.problems, text])
    return check, settled


def _consumers(seen: NatsSeen) -> Check:
    """Each consumer numbers its deliveries; those of an epoch begin where it begins."""
    name = "nats_consumers"
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    first: dict[str, int] = {}
    for handed, item in (seen.handed | seen.drained).items():
        numbers[handed.consumer].add(handed.number)
        first[handed.consumer] = min(item.sequence, first.get(handed.consumer, item.sequence))
    problems = [
        f"{name}: {consumer} numbered up to {max(found)}, {len(found)} were delivered"
        for consumer, found in numbers.items()
        if max(found) != len(found)
    ]
    for consumer, (count, waiting) in seen.consumers.items():
        if count != len(numbers[consumer]) or waiting:
            problems.append(
                f"{name}: {consumer} counts {count} and waits for {waiting},"
                f" {len(numbers[consumer])} were delivered"
            )
    for consumer, sequence in first.items():
        number = consumer.rpartition("-e")[2]
        start = seen.epochs.get(int(number)) if number.isdecimal() else None
        if start is None or sequence < start:
            problems.append(f"{name}: {consumer} delivers {sequence}, its epoch begins at {start}")
    total = sum(map(len, numbers.values()))
    told = len(seen.handed) + len(seen.drained)
    return Check(name=name, seen=total, told=told, problems=problems)


def _drained(seen: HardenedSeen) -> Check:
    """What a procedure takes from NATS is in Redis, or has ended, before it is acknowledged."""
    nats, name = seen.nats, "nats_drained"
    tasks = {item: nats.stored.get(found.sequence, "?") for item, found in nats.drained.items()}
    there = {task for task, _length in seen.redis.puts} | seen.redis.moved.keys()
    check = _within(
        name, tasks.values(), there | seen.redis.ended | nats.ended, "drained that Redis has not"
    )
    left = [item for item in tasks if nats.answers.get(item) != "ack" or item not in nats.confirmed]
    if left:
        text = f"{name}: {len(left)} taken and not acknowledged, e.g. {examples(left)}"
        check = msgspec.structs.replace(check, problems=[*check.problems, text])
    return check


def _routes(seen: HardenedSeen, told: HardenedTold, figures: dict[str, int]) -> Check:
    """What was accepted was put on each broker of the write route of its step.

    At a change of the route a task may be left that was not put by then; only such as come last,
    for a process puts what it accepts in order.
    """
    name = "routes"
    there = {
        Broker.REDIS: {task for task, _length in seen.redis.puts} | seen.redis.moved.keys(),
        Broker.NATS: set(seen.nats.stored.values()),
    }
    latest: dict[tuple[Accepted, Broker], int] = {}
    for (writer, broker), tasks in told.put_by.items():
        for task in tasks & told.accepted.keys():
            found = told.accepted[task]
            key = (Accepted(writer, found.step, 0), broker)
            latest[key] = max(found.place, latest.get(key, 0))
    missing, left = [], 0
    for task, found in told.accepted.items():
        for broker in _ROUTES[seen.phases[found.step]]:
            if task in there[broker]:
                continue
            changed = found.step + 1 < len(seen.phases)
            if changed and found.place > latest.get((found._replace(place=0), broker), 0):
                left += 1
            else:
                missing.append(f"{task} on {broker.name.lower()}")
    figures["left_at_a_change"] = left
    problems = [f"{name}: {len(missing)} missing, e.g. {examples(missing)}"] if missing else []
    return Check(
        name=name,
        seen=len(told.accepted) - len(missing),
        told=len(told.accepted),
        problems=problems,
    )
