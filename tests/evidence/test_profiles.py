"""Profiles of the largest gains, before and after; see ``profiles``."""

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.profiles import GAINS, measure

ROUNDS = 7
MOST = {"jetstream worker": 1.0}
MOST_OF_LARGEST = 0.5


@pytest.mark.evidence(
    claim="Each of the three largest gains on the hot paths, all on Redis, takes at most 0.5 of the"
    " client's CPU time for a task beside the bare client one by one, with the ledger on, and the"
    " worker on JetStream less than pull requests for one; median of seven rounds in turn. The"
    " profiles of both sides say where it went.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_profiles(proof, tmp_path):
    refuted = []
    (tmp_path / "ledgers").mkdir()
    redis = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    try:
        nats = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.MEMORY)
        try:
            for gain, what in GAINS.items():
                figures, profiles = measure(
                    redis.url, nats.url, tmp_path / "ledgers", gain, rounds=ROUNDS, seed=7
                )
                proof.record(**{gain: {"what": what, **figures}})
                for side, profile in profiles.items():
                    proof.record(**{f"{gain}, {side}, us by layer": profile.layers_us})
                    top = {str(place): text for place, text in enumerate(profile.top, 1)}
                    calls = {"sends": profile.sends, "callbacks": profile.callbacks}
                    proof.record(**{f"{gain}, {side}, a task": calls, f"{gain}, {side}, top": top})
                if figures["cpu_ratio"] > MOST.get(gain, MOST_OF_LARGEST):
                    refuted.append(f"{gain}: {figures['cpu_ratio']} of the CPU time")
        finally:
            nats.stop()
    finally:
        redis.stop()
    proof.record(rounds=ROUNDS)
    proof.conclude(refuted)
