"""The report of a run of a million tasks; see ``million``."""

import shutil
import statistics

import pytest

from tests.evidence.million import make_run, measure_report
from tests.evidence.spread import spread

TASKS = 1_000_000
MOST_SECONDS = 60.0
MOST_BYTES = 2 * 2**30
ROUNDS = 3
RUN = "0001-million"


def rendered(folder):
    """Exit code, seconds, CPU seconds and bytes of one report, and what is wrong with its page."""
    log = folder / "log"
    code, seconds, cpu_s, memory_bytes = measure_report(folder / RUN, log)
    page = folder / RUN / "report.html"
    wrong = []
    if code != 0:
        wrong.append(f"exit code {code}: {log.read_text()[-500:]}")
    elif f"{TASKS:,} tasks offered" not in page.read_text(encoding="utf-8"):
        wrong.append("the page does not say how many tasks there were")
    return seconds, cpu_s, memory_bytes, page.stat().st_size if page.exists() else 0, wrong


@pytest.mark.evidence(
    claim="The report of a run of a million tasks is rendered in under 60 s with under 2 GiB of"
    " memory, its tables being made from the ledger first; median of three, and the most memory.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_report_million(proof, tmp_path):
    fresh = tmp_path / "fresh"
    make_run(fresh, TASKS, proof.seed)
    rounds = []
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        shutil.copytree(fresh, folder / RUN)
        rounds.append(rendered(folder))
        shutil.rmtree(folder)
    seconds, cpu_s, memory_bytes, page_bytes, wrong = zip(*rounds, strict=True)
    proof.record(
        tasks=TASKS,
        rounds=ROUNDS,
        seconds=spread(seconds, 1),
        cpu_s=spread(cpu_s, 1),
        memory_max_bytes=max(memory_bytes),
        page_bytes=max(page_bytes),
    )
    refuted = [text for found in wrong for text in found]
    if statistics.median(seconds) >= MOST_SECONDS:
        refuted.append(f"{statistics.median(seconds):.1f} s")
    if max(memory_bytes) >= MOST_BYTES:
        refuted.append(f"{max(memory_bytes):,} bytes")
    proof.conclude(refuted)
