"""What two sets of runs are compared by."""

import msgspec

__all__ = ["METRICS", "Metric"]


class Metric(msgspec.Struct, frozen=True):
    """What is compared.

    Attributes:
        name: as the table and ``--fail-if`` have it.
        unit: of the value that is told.
        what: the latency that it is a percentile of, the role whose CPU time it is, or empty.
        percentile: of a latency.
        more_is_worse: whether it is.
    """

    name: str
    unit: str
    what: str = ""
    percentile: float | None = None
    more_is_worse: bool = True

    @property
    def of_run(self) -> bool:
        """Whether a run has one value of it, and not one for each phase."""
        return bool(self.what) and self.percentile is None


_CPU_ROLES = ("redis", "nats", "worker", "producer")
METRICS = {
    metric.name: metric
    for metric in (
        Metric("p50", "ms", "end_to_end", 50.0),
        Metric("p90", "ms", "end_to_end", 90.0),
        Metric("p99", "ms", "end_to_end", 99.0),
        Metric("enqueue_p50", "ms", "enqueue", 50.0),
        Metric("enqueue_p99", "ms", "enqueue", 99.0),
        Metric("done_per_s", "/s", more_is_worse=False),
        *(Metric(f"cpu_{role}", "s/M", role) for role in _CPU_ROLES),
    )
}
"""Latencies are from the intended time; CPU time is of all processes of a role
over the run, in seconds per million tasks."""
