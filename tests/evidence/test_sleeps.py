"""Target 6: the loop in virtual time beside asyncio's own and SimPy; see ``sleeps``."""

import statistics

import pytest

from tests.evidence.sleeps import EACH, SLEEPERS, WAYS, rates
from tests.evidence.spread import spread

ROUNDS = 9
LEAST_RATIO = 2.0


@pytest.mark.evidence(
    claim="The simulator's loop does at least twice as many sleeps through a process's clock as a"
    " stock asyncio loop with patched time, median of the ratios of nine rounds in turn.",
    seed=7,
)
@pytest.mark.timeout(600)
def test_sleeps(proof):
    found = {way: [] for way in WAYS}
    refuted = []
    for _ in range(ROUNDS):
        slept = {}
        for way in WAYS:
            rate, slept[way] = rates(way)
            found[way].append(rate)
        totals = {round(total, 3) for total, _until in slept.values()}
        ends = {round(until, 3) for _total, until in slept.values()}
        if len(totals) > 1 or len(ends) > 1:
            refuted.append(f"they did not sleep alike: {slept}")
    for way, values in found.items():
        proof.record(**{way: {"sleeps_per_s": round(statistics.median(values))}})
    for way in WAYS:
        ratios = [own / stock for own, stock in zip(found[way], found["stock"], strict=True)]
        proof.record(**{f"{way} to stock": spread(ratios, 2)})
        if way == "simulated" and statistics.median(ratios) < LEAST_RATIO:
            refuted.append(f"{statistics.median(ratios):.2f} times the stock loop")
    proof.record(sleepers=SLEEPERS, sleeps_of_each=EACH, rounds=ROUNDS)
    proof.conclude(refuted)
