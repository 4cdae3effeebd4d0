"""Runs one simulated migration and prints its digest: for a process with another hash seed."""

import logging
import sys
import tempfile
from pathlib import Path

from hookbench.brokers.durability import Durability
from hookbench.migration.phases import Design
from hookbench.sim.digest import ledger_digest
from hookbench.sim.faults import (
    cut_off,
    kill_broker,
    kill_leader,
    kill_worker,
    lose_replies,
    power_cut,
    step_down,
    stop_worker,
)
from hookbench.sim.migration import MigrationPlan, simulate_migration

FAULTS = (
    kill_worker(at_s=3.1),
    stop_worker(at_s=5.0, for_s=4.0),
    kill_broker("nats", at_s=9.0),
    lose_replies("worker-2", "redis", at_s=6.0, count=2),
    cut_off("producer", "nats", at_s=10.5, for_s=1.5),
)
REPLICATED = {
    "durability": Durability.REPLICATED,
    "faults": (
        kill_worker(at_s=3.1),
        kill_leader(at_s=6.0, for_s=2.0),
        step_down(at_s=13.0),
        step_down(at_s=13.0, consumer=True),
        power_cut("nats", at_s=15.0, nodes=(0, 1)),
        cut_off("producer", "nats", at_s=18.5, for_s=0.5),
    ),
}
"""What a run of ``replicated`` has otherwise."""


def digest_of(design, seed, *, interleave=False, faults=FAULTS, durability=Durability.FSYNC):
    with tempfile.TemporaryDirectory() as name:
        outcome = simulate_migration(
            MigrationPlan(design=Design(design), durability=durability),
            seed,
            Path(name),
            faults=faults,
            interleave=interleave,
        )
        return ledger_digest(Path(name) / "ledger"), outcome.ended_ns, outcome.calls


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # as the tests have it, see ``quiet``
    options = REPLICATED if "replicated" in sys.argv[3:] else {}
    sys.stdout.write(f"{digest_of(sys.argv[1], int(sys.argv[2]), **options)}\n")
