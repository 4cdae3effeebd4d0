"""What a worker process is told."""

from pathlib import Path

import msgspec

from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.phases import Phase
from hookbench.migration.read_both import DEFAULT_REDIS_AGE_S
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_lease import DEFAULT_LEASE_S
from hookbench.task import Names
from hookbench.worker.limits import WorkerLimits
from hookbench.worker.measures import MeasureSettings

__all__ = ["WorkerSettings"]


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is told.

    Attributes:
        phase: the phase, fixed; or
        phase_file: a file that is watched.
        block_timeout_secs: the longest wait of one read on either broker.
        task_type: of the tasks to work on; several are separated by commas, and each has slots,
            and with ``consumer_per_type`` a consumer, of its own.
        measures: those of the hardened design that are on.
        redis_lease_s: with ``leases``, how long the process may be silent before its tasks on Redis
            are put back.
        nats_monitor_url: where NATS tells its sync settings, for ``synced_only``.
        nats_sync_interval_s: those settings as the operator says, where they cannot be read.
        redis_kind: what holds the tasks on Redis; a stream hands one out again after the AckWait
            of ``consumer``.
        bounds: of what those do.
        redis_age_s: with ``read_both``, how long a task has lain in Redis before it is taken there
            in ``dual_read``.
    """

    redis_url: str | None = None
    nats_url: str | None = None
    phase: Phase | None = None
    phase_file: Path | None = None
    names: Names = msgspec.field(default_factory=Names)
    task_type: str = "sync"
    block_timeout_secs: float = 5.0
    measures: Measures = NO_MEASURES
    redis_lease_s: float = DEFAULT_LEASE_S
    bounds: MeasureSettings = msgspec.field(default_factory=MeasureSettings)
    redis_age_s: float = DEFAULT_REDIS_AGE_S
    stream: StreamSettings = msgspec.field(default_factory=StreamSettings)
    consumer: ConsumerSettings = msgspec.field(default_factory=ConsumerSettings)
    limits: WorkerLimits = msgspec.field(default_factory=WorkerLimits)
    nats_monitor_url: str | None = None
    nats_sync_interval_s: float | None = None
    redis_kind: RedisKind = RedisKind.LIST

    @property
    def task_types(self) -> list[str]:
        """The task types, one by one."""
        return self.task_type.split(",")
