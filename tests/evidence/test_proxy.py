"""What the wire proxy costs; see ``proxy_overhead``."""

import pytest
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.proxy_overhead import (
    ASYNC_PUBLISHES,
    LPUSHES,
    MEASURES,
    PUBLISHES,
    SIDES,
    WINDOW,
    measure,
)

ROUNDS = 7
MOST_SLOWER = 3.0
REHEARSAL_PER_S = 1_000
LEAST_TIMES = 20
PUBLISHED = PUBLISHES + WINDOW + ASYNC_PUBLISHES
MATCHES = {"LPUSH": LPUSHES, "PUB": PUBLISHED, "PubAck": PUBLISHED}


@pytest.mark.evidence(
    claim="Through the wire proxy, with rules that look at every frame both ways, an awaited"
    " publish takes at most three times as long (p50), LPUSH in a pipeline and publishes in a"
    " window reach at least 20 times the 1,000 tasks/s of a rehearsal, and no frame is missed.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_proxy(proof, tmp_path):
    redis = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    try:
        nats = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.MEMORY)
        try:
            table, stats = uvloop.run(
                measure(redis.port, nats.port, tmp_path, rounds=ROUNDS, run="proxy")
            )
        finally:
            nats.stop()
    finally:
        redis.stop()
    for name in MEASURES:
        for side in SIDES:
            figures = {key: round(value, 1) for key, value in table[name][side].items()}
            proof.record(**{f"{name}, {side}": figures})
    slower = table["publish"]["rules"]["p50_us"] / table["publish"]["direct"]["p50_us"]
    proof.record(rounds=ROUNDS, publish_times_slower=round(slower, 2))
    proof.conclude([*too_slow(table, slower), *missed(stats)])


def too_slow(table, slower):
    found = [
        f"{name}: {table[name]['rules']['per_s']:,.0f}/s"
        for name in ("lpush", "window")
        if table[name]["rules"]["per_s"] < LEAST_TIMES * REHEARSAL_PER_S
    ]
    return found + [f"publish: {slower:.2f} times as long"] * (slower > MOST_SLOWER)


def missed(stats):
    """What the rules did not see, saw too often or acted on, and what was not understood."""
    rules = stats[-1].rules
    counts = [
        f"{rule.rule.direction} {rule.rule.command}: {rule.matches:,} matches, {rule.firings} fired"
        for rule in rules
        if rule.firings or rule.matches != MATCHES[rule.rule.command] * (ROUNDS + 1)
    ]
    unclear = [
        f"link {link.name}: {link.transparent} unparsed, {link.troubles}"
        for proxy in stats
        for link in proxy.links
        if link.transparent or link.troubles
    ]
    return counts + unclear
