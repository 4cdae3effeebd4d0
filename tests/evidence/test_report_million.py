"""The report of a run of a million tasks; see ``million``."""

import pytest

from tests.evidence.million import make_run, measure_report

TASKS = 1_000_000
MOST_SECONDS = 60.0
MOST_BYTES = 2 * 2**30


@pytest.mark.evidence(
    claim="The report of a run of a million tasks is rendered in under 60 s with under 2 GiB of"
    " memory, its tables being made from the ledger first.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_report_million(proof, tmp_path):
    run = tmp_path / "0001-million"
    make_run(run, TASKS, proof.seed)
    log = tmp_path / "log"
    code, seconds, cpu_s, memory_bytes = measure_report(run, log)
    page = run / "report.html"
    proof.record(
        tasks=TASKS,
        seconds=round(seconds, 1),
        cpu_s=round(cpu_s, 1),
        memory_max_bytes=memory_bytes,
        page_bytes=page.stat().st_size if page.exists() else 0,
    )
    refuted = []
    if code != 0:
        refuted.append(f"exit code {code}: {log.read_text()[-500:]}")
    elif f"{TASKS:,} tasks offered" not in page.read_text(encoding="utf-8"):
        refuted.append("the page does not say how many tasks there were")
    if seconds >= MOST_SECONDS:
        refuted.append(f"{seconds:.1f} s")
    if memory_bytes >= MOST_BYTES:
        refuted.append(f"{memory_bytes:,} bytes")
    proof.conclude(refuted)
