"""Which metrics there are, and the samples of them; Prometheus' rules for names are followed.

https://prometheus.io/docs/practices/naming/: base units, ``_total`` of what only grows. The guide's
two counters have the guide's names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from hookbench.clock import NS_PER_S
from hookbench.ledger.events import Broker, Event
from hookbench.metrics.meter import MOST_ATTEMPTS, Histogram, Meter
from hookbench.metrics.queues import BrokerLook
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import Phase

__all__ = ["ATTEMPTS", "ENDS", "METRICS", "PUTS", "SENDS", "Described", "Families", "Status"]

PRODUCER, WORKER = "producer", "worker"
BOTH = (PRODUCER, WORKER)

ATTEMPTS = (*(str(number) for number in range(MOST_ATTEMPTS)), f"{MOST_ATTEMPTS}+")
SENDS = {
    "accepted": Event.ACCEPTED,
    "refused": Event.REFUSED,
    "doubtful": Event.DOUBTFUL,
}
PUTS = {"ok": Event.PUT_OK, "fail": Event.PUT_FAIL, "unknown": Event.PUT_UNKNOWN}
ENDS = {
    "done": Event.DONE,
    "failed": Event.FAILED,
    "dead": Event.DEAD,
    "superseded": Event.SUPERSEDED,
    "skipped": Event.SKIPPED,
    "stale": Event.STALE,
    "given_back": Event.NAK,
    "requeued": Event.REQUEUED,
}


class Described(NamedTuple):
    """A metric: its name as a query has it, and who serves it.

    Attributes:
        kind: ``counter``, ``gauge``, ``histogram`` or ``info``.
        labels: of each sample.
        text: what it says.
        roles: of the processes that have it.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    roles: tuple[str, ...]


METRICS = (
    Described(
        "hook_task_queued_total",
        "counter",
        ("backend",),
        "Hook tasks acknowledged by a broker (of the migration guide).",
        (PRODUCER,),
    ),
    Described(
        "hook_task_consumed_total",
        "counter",
        ("backend",),
        "Hook tasks taken from a broker (of the migration guide).",
        (WORKER,),
    ),
    Described(
        "hookbench_sends_total",
        "counter",
        ("outcome",),
        "Tasks by what their caller was told: accepted, refused or doubtful.",
        (PRODUCER,),
    ),
    Described(
        "hookbench_puts_total",
        "counter",
        ("queue", "outcome"),
        "Puts on a queue: ok, fail (the broker said no) or unknown (no answer).",
        (PRODUCER,),
    ),
    Described(
        "hookbench_put_seconds",
        "histogram",
        (),
        "From a caller's call to the acceptance of its task.",
        (PRODUCER,),
    ),
    Described(
        "hookbench_schedule_lag_seconds",
        "histogram",
        (),
        "From when a task was to be sent to when it was.",
        (PRODUCER,),
    ),
    Described(
        "hookbench_deliveries_total",
        "counter",
        ("queue", "attempt"),
        "Deliveries by attempt; 0 are bytes that are no task.",
        (WORKER,),
    ),
    Described(
        "hookbench_redelivered_total",
        "counter",
        ("queue",),
        "Deliveries that are a second or later attempt.",
        (WORKER,),
    ),
    Described(
        "hookbench_tasks_total",
        "counter",
        ("queue", "outcome"),
        "What became of deliveries: done, failed, dead, superseded, skipped, stale, given_back or"
        " requeued.",
        (WORKER,),
    ),
    Described(
        "hookbench_tasks_in_work",
        "gauge",
        (),
        "Handlers that run now.",
        (WORKER,),
    ),
    Described(
        "hookbench_processing_seconds",
        "histogram",
        (),
        "From the start of a handler to its end, well or not.",
        (WORKER,),
    ),
    Described(
        "hookbench_end_to_end_seconds",
        "histogram",
        (),
        "Of tasks done, since their id was made, by the producer's wall clock.",
        (WORKER,),
    ),
    Described(
        "hookbench_info",
        "info",
        ("role", "version", "measures"),
        "What the process is.",
        BOTH,
    ),
    Described(
        "hookbench_phase",
        "gauge",
        ("phase",),
        "1 for the phase that the process is in, 0 for the others.",
        BOTH,
    ),
    Described(
        "hookbench_phase_step",
        "gauge",
        (),
        "Index of that phase in the timeline: it rises with a rollback as well.",
        BOTH,
    ),
    Described(
        "hookbench_broker_up",
        "gauge",
        ("broker",),
        "Whether a broker answered when the queues were looked at.",
        BOTH,
    ),
    Described(
        "hookbench_queue_tasks",
        "gauge",
        ("queue", "task_type", "state"),
        "Tasks in a queue by state; absent while its broker does not answer.",
        (WORKER,),
    ),
    Described(
        "hookbench_queue_oldest_seconds",
        "gauge",
        ("queue", "task_type"),
        "Age of the oldest task that is not finished; absent without one.",
        (WORKER,),
    ),
    Described(
        "hookbench_queue_lag_tasks",
        "gauge",
        ("queue", "task_type"),
        "Sequences of the stream above the consumer's acknowledgement floor.",
        (WORKER,),
    ),
)
"""Beside these stand ``process_*`` of prometheus-client: CPU, memory, files, start."""

_BY_NAME = {item.name: item for item in METRICS}

Labelled = Mapping[tuple[str, ...], float]


class Status(msgspec.Struct, kw_only=True):
    """What a process last said of itself, see ``ProcessMetrics.listening``."""

    role: str
    version: str
    measures: str = "none"
    phase: str = ""
    step: int = 0


class Families(Collector):
    """The samples of one process, made when they are asked for.

    Args:
        meter: of the process.
        guide: its two counters.
        status: its phase.
        redis_queue: name of what holds the tasks on Redis, ``redis_list`` or ``redis_stream``.
        look: at the brokers, by their names.
    """

    def __init__(
        self,
        meter: Meter,
        guide: HookMetrics,
        status: Status,
        *,
        redis_queue: str,
        look: Callable[[], Mapping[str, BrokerLook]],
    ) -> None:
        self._meter = meter
        self._guide = guide
        self._status = status
        self._look = look
        self._queues = {redis_queue: Broker.REDIS, "jetstream": Broker.NATS}

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client``."""
        yield from self._of_producer() if self._status.role == PRODUCER else self._of_worker()
        yield from self._of_process()
        yield from self._of_brokers()

    def _of_producer(self) -> Iterator[Metric]:
        meter = self._meter
        yield self._guides("hook_task_queued_total")
        yield _counter(
            "hookbench_sends_total",
            {(outcome,): meter.count(event) for outcome, event in SENDS.items()},
        )
        yield self._by_queue("hookbench_puts_total", PUTS)
        yield _histogram("hookbench_put_seconds", meter.put)
        yield _histogram("hookbench_schedule_lag_seconds", meter.lag)

    def _of_worker(self) -> Iterator[Metric]:
        meter = self._meter
        yield self._guides("hook_task_consumed_total")
        attempts = {name: meter.attempts[broker][:] for name, broker in self._queues.items()}
        yield _counter(
            "hookbench_deliveries_total",
            {
                (queue, ATTEMPTS[attempt]): count
                for queue, counts in attempts.items()
                for attempt, count in enumerate(counts)
            },
        )
        yield _counter(
            "hookbench_redelivered_total",
            {(queue,): sum(counts[2:]) for queue, counts in attempts.items()},
        )
        yield self._by_queue("hookbench_tasks_total", ENDS)
        yield _gauge("hookbench_tasks_in_work", {(): meter.in_work})
        yield _histogram("hookbench_processing_seconds", meter.processing)
        yield _histogram("hookbench_end_to_end_seconds", meter.end_to_end)

    def _guides(self, name: str) -> Metric:
        counts = self._guide.counts[name]
        return _counter(name, {(backend,): count for backend, count in counts.items()})

    def _by_queue(self, name: str, outcomes: Mapping[str, Event]) -> Metric:
        return _counter(
            name,
            {
                (queue, outcome): self._meter.count(event, broker)
                for queue, broker in self._queues.items()
                for outcome, event in outcomes.items()
            },
        )

    def _of_process(self) -> Iterator[Metric]:
        status = self._status
        described = _BY_NAME["hookbench_info"]
        info = InfoMetricFamily("hookbench", described.text)
        said = {"role": status.role, "version": status.version, "measures": status.measures}
        info.add_metric([], said)
        yield info
        phases: Labelled = {(item.label,): int(item.label == status.phase) for item in Phase}
        yield _gauge("hookbench_phase", phases)
        yield _gauge("hookbench_phase_step", {(): status.step})

    def _of_brokers(self) -> Iterator[Metric]:
        looks = self._look()
        yield _gauge("hookbench_broker_up", {(name,): int(look.up) for name, look in looks.items()})
        answers = [look for look in looks.values() if look.up]
        if self._status.role == PRODUCER:  # which does not look into them, see ``serve_metrics``
            return
        yield _gauge("hookbench_queue_tasks", _merged(look.tasks for look in answers))
        yield _gauge("hookbench_queue_oldest_seconds", _merged(look.oldest_s for look in answers))
        yield _gauge("hookbench_queue_lag_tasks", _merged(look.lag for look in answers))


def _merged(found: Iterator[Labelled]) -> Labelled:
    return {labels: value for item in found for labels, value in item.items()}


def _counter(name: str, values: Labelled) -> Metric:
    described = _BY_NAME[name]
    family = CounterMetricFamily(name, described.text, labels=described.labels)
    return _filled(family, values)


def _gauge(name: str, values: Labelled) -> Metric:
    described = _BY_NAME[name]
    return _filled(GaugeMetricFamily(name, described.text, labels=described.labels), values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Labelled) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(name: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, _BY_NAME[name].text)
    counts: Sequence[int] = histogram.counts[:]
    bounds = [*map(str, histogram.bounds_s), "+Inf"]
    buckets, so_far = [], 0
    for bound, count in zip(bounds, counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    family.add_metric([], buckets, sum_value=histogram.sum_ns / NS_PER_S)
    return family
