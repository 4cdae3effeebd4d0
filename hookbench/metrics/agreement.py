"""Whether the metrics of a run's processes say what its ledger says, to the task.

Each process is held against its own records: what it counted, by queue and outcome, against how
many such events it wrote. A process that was killed took its counts along, as Prometheus knows it
of a counter that begins anew: there is nothing to compare, and that is said.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hookbench.errors import ScrapeError
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.read import Ledger
from hookbench.metrics.check import MetricsCheck
from hookbench.metrics.families import ATTEMPTS, ENDS, PUTS, SENDS
from hookbench.metrics.meter import MOST_ATTEMPTS
from hookbench.metrics.scrape import parse_samples

__all__ = ["compare_metrics"]

_ROLES = ("producer.", "worker.")
_BACKENDS = {"redis": Broker.REDIS, "nats": Broker.NATS}
_QUEUES = {"redis_list": Broker.REDIS, "redis_stream": Broker.REDIS, "jetstream": Broker.NATS}

_Key = tuple[str, str]
"""A sample's name, and what it counts: broker and outcome or attempt."""


def compare_metrics(scraped: Mapping[str, str], ledger: Ledger) -> MetricsCheck:
    """Hold each process's metrics against its records.

    Args:
        scraped: what was served at the end, by the writer's name (``worker.00001``).
        ledger: of the run.
    """
    compared: list[str] = []
    not_compared: dict[str, str] = {}
    differences: list[str] = []
    totals: Counter[str] = Counter()
    samples = 0
    for number, writer in enumerate(ledger.writers):
        if not writer.startswith(_ROLES):
            continue
        if writer in ledger.crashed:
            not_compared[writer] = "it was killed, and its counts are gone"
            continue
        if writer not in scraped:
            differences.append(f"{writer}: it ended well, and was not scraped")
            continue
        try:
            found = _counted(scraped[writer])
        except ScrapeError as error:
            differences.append(f"{writer}: {error}")
            continue
        compared.append(writer)
        expected = _recorded(ledger, ledger.writer == number, writer)
        for key in sorted(expected.keys() | found.keys()):
            samples += 1
            totals[" ".join(key)] += found.get(key, 0)
            if found.get(key, 0) != expected.get(key, 0):
                name, what = key
                differences.append(
                    f"{writer}: {name} {what} is {found.get(key, 0):,} in the metrics and"
                    f" {expected.get(key, 0):,} in the ledger"
                )
    differences += [
        f"{writer}: it has metrics, and no records"
        for writer in sorted(set(scraped) - set(ledger.writers))
    ]
    return MetricsCheck(
        compared=compared,
        not_compared=not_compared,
        samples=samples,
        totals={name: count for name, count in sorted(totals.items()) if count},
        differences=differences,
    )


def _counted(text: str) -> dict[_Key, int]:
    """What a process says that it counted, of all that follows from events."""
    found: Counter[_Key] = Counter()
    for (name, labels), value in parse_samples(text).items():
        said = dict(labels)
        if name in _COUNTERS:
            broker = _BACKENDS.get(said.get("backend", "")) or _QUEUES.get(said.get("queue", ""))
            parts = ["" if broker is None else broker.name.lower()]
            parts += [said[label] for label in ("outcome", "attempt") if label in said]
            found[name, " ".join(part for part in parts if part)] += int(value)
        elif name in _HISTOGRAMS:
            found[name, ""] += int(value)
    return dict(found)


def _recorded(ledger: Ledger, mine: npt.NDArray[np.bool_], writer: str) -> dict[_Key, int]:
    """The same of what it wrote."""
    records = ledger.records[mine]
    events, brokers, attempts = records["event"], records["broker"], records["attempt"]

    def count(event: Event, broker: Broker | None = None) -> int:
        found = events == event
        return int((found if broker is None else found & (brokers == broker)).sum())

    both = (Broker.REDIS, Broker.NATS)
    recorded: dict[_Key, int] = {}
    if writer.startswith("producer."):
        for outcome, event in SENDS.items():
            recorded["hookbench_sends_total", outcome] = count(event)
        for broker in both:
            name = broker.name.lower()
            recorded["hook_task_queued_total", name] = count(Event.PUT_OK, broker)
            for outcome, event in PUTS.items():
                recorded["hookbench_puts_total", f"{name} {outcome}"] = count(event, broker)
        recorded["hookbench_put_seconds_count", ""] = count(Event.ACCEPTED)
        return recorded
    for broker in both:
        name = broker.name.lower()
        received = (events == Event.RECEIVED) & (brokers == broker)
        recorded["hook_task_consumed_total", name] = int(received.sum())
        capped = attempts[received].clip(max=MOST_ATTEMPTS)
        for attempt, label in enumerate(ATTEMPTS):
            recorded["hookbench_deliveries_total", f"{name} {label}"] = int(
                (capped == attempt).sum()
            )
        recorded["hookbench_redelivered_total", name] = int((capped > 1).sum())
        for outcome, event in ENDS.items():
            recorded["hookbench_tasks_total", f"{name} {outcome}"] = count(event, broker)
    recorded["hookbench_processing_seconds_count", ""] = count(Event.STARTED)
    recorded["hookbench_end_to_end_seconds_count", ""] = count(Event.DONE)
    return recorded


_COUNTERS = frozenset(
    {
        "hook_task_queued_total",
        "hook_task_consumed_total",
        "hookbench_sends_total",
        "hookbench_puts_total",
        "hookbench_deliveries_total",
        "hookbench_redelivered_total",
        "hookbench_tasks_total",
    }
)
_HISTOGRAMS = frozenset(
    {
        "hookbench_put_seconds_count",
        "hookbench_processing_seconds_count",
        "hookbench_end_to_end_seconds_count",
    }
)
