"""The guide's two counters, as plain integers: who serves them makes Prometheus samples of them."""

__all__ = ["Count", "HookMetrics"]


class Count:
    """A number that only grows; of one thread, so without the lock of a client library."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, more: int = 1) -> None:
        """Count some more."""
        self.value += more


class HookMetrics:
    """``hook_task_queued_total{backend}`` and ``hook_task_consumed_total{backend}``.

    Queued are tasks that a broker acknowledged, consumed those that were taken from it.
    """

    def __init__(self) -> None:
        self.queued_nats = Count()
        self.queued_redis = Count()
        self.consumed_nats = Count()
        self.consumed_redis = Count()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Each counter's value, by its name and ``backend``."""
        return {
            "hook_task_queued_total": {
                "nats": self.queued_nats.value,
                "redis": self.queued_redis.value,
            },
            "hook_task_consumed_total": {
                "nats": self.consumed_nats.value,
                "redis": self.consumed_redis.value,
            },
        }

    def value(self, name: str, backend: str) -> int:
        """The current value of ``hook_task_queued_total`` or ``hook_task_consumed_total``."""
        return self.counts[name][backend]
