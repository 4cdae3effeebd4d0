"""The reference worker beside other task queues; see ``tests/bench/peers``."""

import sys

import msgspec
import pytest

from hookbench.results.store import write_aside
from tests.bench.peers.judge import (
    TARGETS,
    Verdict,
    measured_on_a_crash,
    ratio_to_best,
    spread,
    verdict,
)
from tests.bench.peers.measure import HANDLERS, Plan, measure
from tests.bench.peers.plot import save_plot
from tests.bench.peers.table import markdown
from tests.evidence.record import ROOT

ROUNDS = 3


def figures_of(report, row):
    """What a proof keeps of a contender: flat, numbers and texts."""
    found = {"queue": row.contender.queue}
    if row.skipped:
        return found | {"skipped": row.skipped}
    for handler in HANDLERS:
        rates = spread(row, handler)
        if rates is None:
            continue
        times = ratio_to_best(report.rows, row, handler)
        found |= {
            f"{handler}_per_s": round(rates.median),
            f"{handler}_low_per_s": round(rates.low),
            f"{handler}_high_per_s": round(rates.high),
            f"{handler}_times_best_peer": 0.0 if times is None else round(times, 3),
        }
    found["promised"] = row.told["sleep"].promise
    found["killed"] = measured_on_a_crash(row.crashed)
    return found


@pytest.mark.evidence(
    claim="One reference worker with its ledger on drains no-op tasks at least 3 times as fast as"
    " the best peer on JetStream and 6 times as fast as the best on Redis under the guide, and no"
    " slower than them with all measures on.",
    seed=7,
)
@pytest.mark.timeout(7200)
def test_peers(proof, tmp_path):
    plan = Plan(rounds=ROUNDS, seed=proof.seed)
    report = measure(plan, tell=lambda line: sys.stderr.write(f"{line}\n"))
    write_aside(tmp_path / "peers.json", msgspec.json.encode(report))
    sys.stdout.write(markdown(report))
    for row in report.rows:
        proof.record(**{row.contender.name: figures_of(report, row)})
    found = verdict(report)
    proof.record(
        rounds=ROUNDS,
        payload_bytes=report.payload_bytes,
        concurrency=report.concurrency,
        durability=report.durability,
        targets={item.target.name: f"{item.verdict}: {item.text}" for item in found},
    )
    proof.record_versions(**report.brokers)
    if any(spread(row, "noop") for row in report.rows):
        save_plot(report, ROOT / "evidence" / "peers.png")
    assert len(found) == len(TARGETS)
    proof.conclude(
        [item.text for item in found if item.verdict is Verdict.MISSED],
        [item.text for item in found if item.verdict is Verdict.UNKNOWN],
    )
