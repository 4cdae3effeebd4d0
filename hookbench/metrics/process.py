"""The metrics of one process: counted, served, and kept up for a last scrape."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.ledger.events import Recorder
from hookbench.metrics.families import WORKER, Families, Status
from hookbench.metrics.looking import Looking
from hookbench.metrics.meter import Meter, TimedHandler
from hookbench.metrics.queues import QueueReader
from hookbench.metrics.server import Endpoint, MetricsServer
from hookbench.migration.metrics import HookMetrics
from hookbench.queues.redis_kind import RedisKind
from hookbench.task import Names

if TYPE_CHECKING:
    from hookbench.worker.loop import Handler

__all__ = ["ProcessMetrics", "serve_metrics"]

_POLL_S = 0.02
_REDIS_QUEUES = {RedisKind.LIST: "redis_list", RedisKind.STREAM: "redis_stream"}

Announce = Callable[[dict[str, Any]], None]


class ProcessMetrics:
    """What a process passes its recorder, its handler and its announcements through.

    Attributes:
        meter: the recorder.
        guide: the guide's counters.
        server: where they are served.
    """

    def __init__(
        self, meter: Meter, guide: HookMetrics, status: Status, server: MetricsServer, clock: Clock
    ) -> None:
        self.meter = meter
        self.guide = guide
        self.server = server
        self._status = status
        self._clock = clock

    def timed(self, handler: "Handler") -> "Handler":
        """The handler, measured."""
        return TimedHandler(handler, self.meter, self._clock)

    def listening(self, announce: Announce) -> Announce:
        """``announce`` of a process, that is heard here as well."""
        status = self._status

        def heard(event: dict[str, Any]) -> None:
            if event.get("event") == "phase":
                status.phase, status.step = event["phase"], event["index"]
                status.measures = event["measures"]
            announce(event)

        return heard

    async def linger(self, seconds: float) -> None:
        """Wait for a scrape, which has the last counts then, for so long at the most."""
        scrapes = self.server.scrapes
        deadline_ns = self._clock.monotonic_ns() + int(seconds * NS_PER_S)
        while self.server.scrapes == scrapes and self._clock.monotonic_ns() < deadline_ns:
            await self._clock.sleep(_POLL_S)


@contextlib.contextmanager
def serve_metrics(
    endpoint: Endpoint,
    recorder: Recorder | None,
    *,
    role: str,
    version: str,
    urls: tuple[str | None, str | None],
    names: Names,
    task_types: Sequence[str],
    redis_kind: RedisKind,
    clock: Clock,
) -> Iterator[ProcessMetrics]:
    """Serve what a process counts.

    A producer asks the brokers whether they answer, and leaves depths to the workers: who puts
    tasks need not have the right to look at them.

    Args:
        endpoint: where.
        recorder: of the process, which is told everything as before.
        role: ``worker`` or ``producer``.
        version: of the program.
        urls: of Redis and NATS, which are asked with each scrape.
        names: of the queue.
        task_types: whose tasks are counted.
        redis_kind: what holds the tasks on Redis.
        clock: of all durations.

    Raises:
        SettingError: the endpoint cannot be listened on.
    """
    meter, guide = Meter(recorder, clock=clock), HookMetrics()
    status = Status(role=role, version=version)
    # Of its own: a clock with timers belongs to the loop of the process.
    thread_clock = SystemClock()
    looking = Looking(
        lambda: QueueReader(
            *urls,
            names,
            task_types=task_types,
            redis_kind=redis_kind,
            clock=thread_clock,
            depths=role == WORKER,
        ),
        clock=thread_clock,
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(
        Families(meter, guide, status, redis_queue=_REDIS_QUEUES[redis_kind], look=looking)
    )
    with contextlib.ExitStack() as stack:
        stack.callback(looking.close)
        server = MetricsServer(endpoint, registry)
        stack.callback(server.close)
        yield ProcessMetrics(meter, guide, status, server, clock)
