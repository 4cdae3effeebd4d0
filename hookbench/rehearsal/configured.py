"""What the brokers of a run really were, and whether that is what was asked for."""

import msgspec

from hookbench.brokers.classify import (
    UNKNOWN_VERSION,
    BrokerReport,
    changed_settings,
    name_durability,
    unlike_asked,
)
from hookbench.rehearsal.stage import Stage
from hookbench.results.store import Manifest

__all__ = ["compare_brokers", "record_brokers"]


async def record_brokers(manifest: Manifest, stage: Stage) -> None:
    """Store what the brokers say of themselves before the run: a run cut off has that much."""
    manifest.broker_reports = await stage.read_back()


async def compare_brokers(manifest: Manifest, stage: Stage) -> list[str]:
    """Read the brokers again after the run, with the stream and consumer that it made.

    The durability of the manifest becomes the one that was read back.

    Returns:
        Why the verdict is unknown: a broker started here is not what was asked for, or a broker
        was configured anew in the middle of the run. Empty if neither.
    """
    before = {report.name: report for report in manifest.broker_reports}
    asked = stage.asked_durability()
    reasons: list[str] = []
    reports: list[BrokerReport] = []
    for report in await stage.read_back():
        first = before.get(report.name, report)
        reasons += changed_settings(first, report)
        if report.name in asked and (reason := unlike_asked(report, asked[report.name])):
            reasons.append(reason)
        reports.append(report if report.version != UNKNOWN_VERSION else _gone(first, report))
    manifest.broker_reports = reports
    manifest.durability = name_durability(reports)
    return reasons


def _gone(before: BrokerReport, now: BrokerReport) -> BrokerReport:
    """What a broker said while it answered, and that it does not answer any more."""
    return msgspec.structs.replace(before, durability=now.durability, problem=now.problem)
