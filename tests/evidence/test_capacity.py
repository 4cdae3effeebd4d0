"""The capacity of each queue, searched twice: the two intervals overlap."""

import subprocess
import sys

import msgspec
import pytest

from hookbench.rehearsal.capacity import CapacityAnswer

QUEUES = ("redis_list", "redis_stream", "jetstream")
WIDTH = 0.1
SLO = "p99<50ms,backlog=flat"
FIRST_PER_S = 4000


def search(folder, queue, number, seed):
    """One search; its answer, and what it printed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hookbench", "capacity", f"--queue={queue}", f"--slo={SLO}"),
            *(f"--out={folder / str(number)}", f"--seed={seed + 1000 * number}"),
            *(f"--width={WIDTH}", f"--rate={FIRST_PER_S}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr[-2000:]
    path = folder / str(number) / f"{queue}-lazy-guide.json"
    return msgspec.json.decode(path.read_bytes(), type=CapacityAnswer)


@pytest.mark.evidence(
    claim="Two searches for the capacity of a queue come to intervals that overlap and are at most"
    " a tenth wide.",
    seed=7,
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("queue", QUEUES)
def test_capacity(proof, tmp_path, queue):
    answers = [search(tmp_path, queue, number, proof.seed) for number in (1, 2)]
    unknown, refuted = [], []
    for number, answer in enumerate(answers, 1):
        found = answer.capacity
        if answer.unknown_because or found.high_per_s is None:
            unknown.append(f"search {number}: {answer.unknown_because}")
        proof.record(
            **{
                f"search {number}": {
                    "low_per_s": found.low_per_s,
                    "high_per_s": found.high_per_s or 0.0,
                    "width": round(found.width or 0.0, 4),
                    "trials": sum(len(item.trials) for item in found.judgements),
                    "beyond": answer.limit or "-",
                }
            }
        )
    first, second = (answer.capacity for answer in answers)
    if not unknown:
        apart = first.low_per_s > second.high_per_s or second.low_per_s > first.high_per_s
        if apart:
            refuted.append("the intervals do not overlap")
    proof.record(slo=SLO)
    proof.conclude(refuted, unknown)
