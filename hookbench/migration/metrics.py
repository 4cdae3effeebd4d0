"""The guide's two counters, in a registry that is passed in."""

from prometheus_client import CollectorRegistry, Counter

__all__ = ["HookMetrics"]


class HookMetrics:
    """``hook_task_queued_total{backend}`` and ``hook_task_consumed_total{backend}``."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        queued = Counter(
            "hook_task_queued",
            "Hook tasks acknowledged by a broker.",
            ["backend"],
            registry=self.registry,
        )
        consumed = Counter(
            "hook_task_consumed",
            "Hook tasks taken from a broker.",
            ["backend"],
            registry=self.registry,
        )
        self.queued_nats = queued.labels(backend="nats")
        self.queued_redis = queued.labels(backend="redis")
        self.consumed_nats = consumed.labels(backend="nats")
        self.consumed_redis = consumed.labels(backend="redis")

    def value(self, name: str, backend: str) -> float:
        """The current value of ``hook_task_queued_total`` or ``hook_task_consumed_total``."""
        return self.registry.get_sample_value(name, {"backend": backend}) or 0.0
