"""The bounds of a worker, and what it counts."""

import msgspec

__all__ = ["WorkerLimits", "WorkerTotals"]


class WorkerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a worker.

    Attributes:
        concurrency: tasks in work at a time.
        max_attempts: deliveries of a task, after which a failure makes it a dead letter.
        retry_delay_s: wait before the next delivery, where the queue can wait.
        read_pause_s: wait after a failed read, doubled up to ``read_pause_max_s``.
        read_pause_max_s: the longest such wait.
        drain_timeout_s: how long a stop waits for the tasks in work.
    """

    concurrency: int = 16
    max_attempts: int = 3
    retry_delay_s: float = 0.0
    read_pause_s: float = 0.05
    read_pause_max_s: float = 1.0
    drain_timeout_s: float = 20.0


class WorkerTotals(msgspec.Struct):
    """What a worker did so far.

    Attributes:
        skipped: deliveries of tasks that had ended: acknowledged without being executed.
        superseded: tasks ended unexecuted, since a later one of their repository was done.
        unclaimed: deliveries given back, since another worker had the task or nobody could say.
        stale: executions whose claim was another's when they ended.
        trimmed: Redis copies that were removed; ``untrimmed`` those that were not found.
    """

    received: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    given_back: int = 0
    lost_after_early_ack: int = 0
    skipped: int = 0
    superseded: int = 0
    unclaimed: int = 0
    stale: int = 0
    trimmed: int = 0
    untrimmed: int = 0
