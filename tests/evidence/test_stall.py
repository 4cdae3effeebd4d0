"""What a closed loop does not see; see ``stall``."""

import pytest

from tests.evidence.record import ROOT
from tests.evidence.stall import PHASES, STALL_S, figures_of, plot_stall, run_stall


@pytest.mark.evidence(
    claim="A broker that stands still for two seconds at a constant rate is the whole p99.9 of an"
    " open loop, and not seen there by a closed one of ten callers.",
    seed=7,
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("queue", list(PHASES))
def test_stall(proof, tmp_path, queue):
    seen, refuted, unknown = {}, [], []
    for loop in ("open", "closed"):
        at_s, latency_ms, manifest = run_stall(tmp_path / loop, queue, loop, proof.seed)
        seen[loop] = (at_s, latency_ms)
        proof.record(**{f"{loop} loop": figures_of(latency_ms)})
        (fault,) = manifest.faults
        if fault.begin_ns is None:
            unknown.append(f"{loop} loop: {fault.problem}")
        if loop == "open" and manifest.lag["lag_p99_ns"] > 50e6:
            unknown.append(f"the producer was late: p99 {manifest.lag['lag_p99_ns'] / 1e6:.1f} ms")
    proof.record_versions(**{report.name: report.version for report in manifest.broker_reports})
    plot_stall(ROOT / "evidence" / f"stall-{queue}.png", seen, queue)
    found = {loop: figures_of(latency_ms) for loop, (_at, latency_ms) in seen.items()}
    if found["open"]["p999_ms"] < 0.9 * STALL_S * 1000:
        refuted.append(f"open loop: p99.9 of {found['open']['p999_ms']} ms")
    if found["closed"]["p999_ms"] > 0.5 * STALL_S * 1000:
        refuted.append(f"closed loop: p99.9 of {found['closed']['p999_ms']} ms")
    proof.conclude(refuted, unknown)
