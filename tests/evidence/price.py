"""What each measure of the hardened design costs: ``python -m tests.evidence.price [--quick]``.

The reference producer (``open_service``, with its outbox where that is on) and the whole worker
process (``WorkerService``) of each variant run in this process, on real brokers of durability
class ``lazy``, with their ledgers on. That they share one event loop makes neither quicker, so
rates stand for themselves, and are to be compared with the guide's of the same round only.
Variants take turns in every round, so that a slow moment of the machine meets each of them; a
round opens a queue of its own, warms it up, and then does two things with it:

- **at once**: ``SENDERS`` loops put all tasks, while the handlers hold the worker back; put
  includes what an outbox still has to take to the brokers. Then the handlers are let go, and the
  worker finishes everything: done, acknowledged, confirmed, its copy removed.
- **in turn**: a task is put, and the next one only when it is finished in all respects.
"""

import argparse
import contextlib
import dataclasses
import itertools
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import nats
import redis.asyncio as redis_asyncio
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.redis_replica import RedisReplica
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.price_rig import Brokers, one_round
from tests.evidence.price_variants import BUDGETS, MARGIN, RECONCILED, VARIANTS
from tests.evidence.turns import ROLES, Meter, Tally

ROUNDS = 7
AT_ONCE = 1_000
IN_TURN = 50
WARM_UP = 60
RECONCILED_TASKS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int = ROUNDS
    at_once: int = AT_ONCE
    in_turn: int = IN_TURN
    warm_up: int = WARM_UP
    reconciled: int = RECONCILED_TASKS


QUICK = Sizes(rounds=2, at_once=120, in_turn=12, warm_up=40)


@contextlib.asynccontextmanager
async def monitored(redis_url, master_port, broker):
    monitor = redis_asyncio.Redis(host="127.0.0.1", port=master_port)
    client = await nats.connect(broker.url)
    try:
        yield Brokers(
            redis_url=redis_url,
            nats_url=broker.url,
            nats_monitor_url=broker.monitor_url,
            monitor=monitor,
            nats=client,
        )
    finally:
        await client.close()
        await monitor.aclose()


def in_order(variants, number):
    """Those of a situation after each other, near their guide, and in each round another first."""
    for _situation, group in itertools.groupby(variants, lambda item: item.situation):
        found = list(group)
        start = number % len(found)
        yield from (*found[start:], *found[:start])


async def measure(redis, replicated, broker, folder, sizes, *, variants=VARIANTS, told=None):
    """The rounds of each variant; those of one round follow each other, in changing order."""
    ports = {redis.port: "redis", broker.port: "nats"}
    ports.update((node.port, "redis") for node in replicated.nodes)
    found = {variant: [] for variant in variants}
    master = await replicated.master()
    async with (
        monitored(redis.url, redis.port, broker) as single,
        monitored(replicated.url, master.port, broker) as double,
    ):
        for number in range(sizes.rounds):
            for variant in in_order(variants, number):
                brokers = double if variant.has_replica else single
                with Meter(ports).counting() as meter:
                    figures = await one_round(variant, brokers, meter, folder / "round", sizes)
                found[variant].append(figures)
            if told is not None:
                told(number + 1)
    return found


def run(folder, sizes, *, variants=VARIANTS, told=None):
    """Start brokers, measure, stop them."""

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            redis = start_redis(resolve_redis(env={"PATH": ""}), folder, Durability.LAZY)
            stack.callback(redis.stop)
            broker = start_nats(resolve_nats(env={"PATH": ""}), folder, Durability.LAZY)
            stack.callback(broker.stop)
            (folder / "replicated").mkdir()
            replicated = await RedisReplica.start(
                resolve_redis(env={"PATH": ""}), folder / "replicated", Durability.LAZY
            )
            stack.callback(lambda: [node.stop() for node in replicated.nodes])
            return await measure(
                redis, replicated, broker, folder, sizes, variants=variants, told=told
            )

    return uvloop.run(main())


def median_of(rounds, of):
    return statistics.median(of(item) for item in rounds)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def both_roles(item, way):
    """Counts per task of producer and worker together."""
    first, second = (item.counts[way][role] for role in ROLES)
    return first.plus(second)


def medians(tallies):
    return Tally(
        **{
            field.name: statistics.median(getattr(item, field.name) for item in tallies)
            for field in dataclasses.fields(Tally)
        }
    )


def extras(rounds, guide, way):
    """What a variant has per task above the guide of the same round; the guide, above nothing."""
    totals = [both_roles(item, way) for item in rounds]
    if rounds is guide:
        return medians(totals)
    return medians(
        [mine.less(both_roles(theirs, way)) for mine, theirs in zip(totals, guide, strict=True)]
    )


def refuted(found):
    """What contradicts the claim: a count that is not in its budget, a task lost or repeated."""
    wrong = []
    for variant, rounds in found.items():
        for number, item in enumerate(rounds, 1):
            wrong += [f"{variant.label}, round {number}: {text}" for text in item.wrong]
        budget, guide = BUDGETS[variant], found[variant.guide]
        turn = extras(rounds, guide, "in_turn")
        once = extras(rounds, guide, "at_once")
        for name in ("redis_turns", "nats_out", "nats_in"):
            wanted, got = getattr(budget, name), getattr(turn, name)
            if abs(got - wanted) > MARGIN:
                wrong.append(f"{variant.label}: {got:.2f} {name} a task in turn, not {wanted}")
            got, most = getattr(once, name), budget.at_once(name)
            if got > most + MARGIN:
                wrong.append(f"{variant.label}: {got:.2f} {name} a task at once, more than {most}")
        if turn.wire_bytes > budget.wire_bytes:
            wrong.append(
                f"{variant.label}: {turn.wire_bytes:.0f} bytes a task in turn, more than"
                f" {budget.wire_bytes}"
            )
        wrong += _too_much_reconciled(variant, rounds)
    return wrong


def _too_much_reconciled(variant, rounds):
    found = [item.reconciled for item in rounds if item.reconciled is not None]
    if not found:
        return []
    middle = medians(found)
    return [
        f"{variant.label}: a round of reconcile has {getattr(middle, name):.2f} {name} a task,"
        f" more than {most}"
        for name, most in RECONCILED.items()
        if getattr(middle, name) > most
    ]


def figures_of(rounds, guide):
    """One variant, flat, as it is stored; counts of zero are left out."""
    out = {}
    for kind in ("put", "done"):
        rates = [getattr(item, f"{kind}_per_s") for item in rounds]
        theirs = [getattr(item, f"{kind}_per_s") for item in guide]
        found = [mine / other for mine, other in zip(rates, theirs, strict=True)]
        out[f"{kind}_per_s"] = round(statistics.median(rates))
        out[f"{kind}_ratio"] = round(statistics.median(found), 2)
        out[f"{kind}_ratio_least"] = round(min(found), 2)
        out[f"{kind}_ratio_most"] = round(max(found), 2)
    for what, values in (
        ("put", [ms for item in rounds for ms in item.put_ms["in_turn"]]),
        ("put_at_once", [ms for item in rounds for ms in item.put_ms["at_once"]]),
        ("put_to_done", [ms for item in rounds for ms in item.done_ms]),
    ):
        out[f"{what}_p50_ms"] = round(percentile(values, 0.5), 2)
        out[f"{what}_p99_ms"] = round(percentile(values, 0.99), 2)
    for way in ("in_turn", "at_once"):
        for role in ROLES:
            found = medians([item.counts[way][role] for item in rounds])
            out |= _counts(f"{way}_{role}", found)
        out[f"{way}_redis_executed"] = round(
            median_of(rounds, lambda item, way=way: item.executed[way]), 2
        )
    reconciled = [item.reconciled for item in rounds if item.reconciled is not None]
    if reconciled:
        out |= _counts("reconcile_round", medians(reconciled))
    return out


def _counts(prefix, found):
    fields = dataclasses.asdict(found).items()
    rounded = {
        f"{prefix}_{name}": round(value, None if name.endswith("bytes") else 2)
        for name, value in fields
    }
    return {name: value for name, value in rounded.items() if value}


_HEAD = (
    f"{'':<54} {'put/s':>6} {'x':>5} {'done/s':>6} {'x':>5} {'put ms':>7} {'done ms':>7}"
    f" {'turns':>6} {'out':>6} {'in':>6} {'bytes':>6}   at once: the same four"
)


def table(found):
    """Lines for a person: rates, latencies, and counts per task of both roles together."""
    lines = [_HEAD]
    for variant, rounds in found.items():
        figures = figures_of(rounds, found[variant.guide])
        text = (
            f"{variant.label:<54} {figures['put_per_s']:>6} {figures['put_ratio']:>5}"
            f" {figures['done_per_s']:>6} {figures['done_ratio']:>5}"
            f" {figures['put_p50_ms']:>7.2f} {figures['put_to_done_p50_ms']:>7.2f}"
        )
        for way in ("in_turn", "at_once"):
            total = medians([both_roles(item, way) for item in rounds])
            text += f" {total.redis_turns:>6.2f} {total.nats_out:>6.2f} {total.nats_in:>6.2f}"
            text += f" {total.wire_bytes:>6.0f}   "
        lines.append(text.rstrip())
        reconciled = {name: figures[name] for name in figures if name.startswith("reconcile_")}
        if reconciled:
            lines.append(f"    {reconciled}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few tasks, two rounds")
    parser.add_argument("--only", default="", help="variants whose label contains this, and guide")
    arguments = parser.parse_args()
    variants = tuple(
        item for item in VARIANTS if arguments.only in item.label or item == item.guide
    )
    folder = Path(tempfile.mkdtemp())
    try:
        found = run(folder, QUICK if arguments.quick else Sizes(), variants=variants)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write("\n".join([*table(found), "", *refuted(found)]) + "\n")


if __name__ == "__main__":
    main()
