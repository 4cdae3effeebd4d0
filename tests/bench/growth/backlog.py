"""A backlog: what it weighs, what a put beside it takes, and how fast a worker is at its end."""

import time

import numpy as np
import psutil

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.process import spawn
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.errors import LedgerError, ResultsError
from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.read import read_ledger
from tests.bench.peers.trial import child_environment, end_group

__all__ = ["measure_backlog"]

PAYLOAD_BYTES = 64
PROBES = 500
"""Puts one after the other beside the backlog."""
MOST_DONE = 20_000
"""Tasks after which a worker has shown its rate."""
_CALLERS = 500
_FILL_PER_S, _WORK_PER_S = 2_000, 300
"""Slower than that is given up."""
_GRACE_S = 60.0
_POLL_S = 0.25
_EDGE = 0.1
"""Of the tasks of a worker, at either end, that do not count: it starts, and then it waits."""


def measure_backlog(point, folder, python):
    """Fill a fresh broker, probe it, let one worker begin on it.

    Args:
        point: of the axis; its value is the tasks that wait.
        folder: for this measurement alone.
        python: the interpreter.

    Returns:
        Figures by name: ``bytes_per_waiting``, resident memory of the broker over that of an empty
        one, per task; ``put_p50_us``; ``fill_per_s``; ``work_per_s``; ``first_task_s``, from the
        start of the worker's process to the first task that is done.

    Raises:
        ResultsError: something did not get through in time.
    """
    broker = _start(point.queue, folder)
    try:
        process = psutil.Process(broker.pid)
        empty_bytes = process.memory_info().rss
        began = time.perf_counter()
        _fill(point, broker, folder, python)
        fill_s = time.perf_counter() - began
        full_bytes = process.memory_info().rss
        probes_us = _probe(point, broker, folder, python)
        return {
            "bytes_per_waiting": (full_bytes - empty_bytes) / point.value,
            "put_p50_us": float(np.median(probes_us)),
            "fill_per_s": point.value / fill_s,
            **_work(point, broker, folder, python),
        }
    finally:
        broker.stop()


def _start(queue, folder):
    if queue == "jetstream":
        return start_nats(resolve_nats(env={"PATH": ""}), folder, Durability.LAZY)
    return start_redis(resolve_redis(env={"PATH": ""}), folder, Durability.LAZY)


def _place(queue, broker):
    """Options of the command that say where the tasks are."""
    on_nats = queue == "jetstream"
    return [
        *("--phase", "nats_only" if on_nats else "redis_only"),
        *("--nats-url" if on_nats else "--redis-url", broker.url),
        *("--redis-queue", "stream" if queue == "redis_stream" else "list"),
    ]


def _command(point, broker, folder, python, *arguments):
    name = f"{point.queue}: {arguments[0]}"
    with (folder / "log").open("ab") as output:
        return spawn(
            name,
            [python, "-m", "hookbench", arguments[0], *_place(point.queue, broker), *arguments[1:]],
            output=output,
            env=child_environment(),
        )


def _fill(point, broker, folder, python):
    _produce(point, broker, folder, python, f"--count={point.value}", f"--callers={_CALLERS}")


def _probe(point, broker, folder, python):
    """Microseconds of puts, one after the other, beside the backlog."""
    ledger = folder / "probes"
    ledger.mkdir()
    _produce(
        point, broker, folder, python,
        *(f"--count={PROBES}", "--callers=1", f"--ledger={ledger}", "--seed=1"),
    )  # fmt: skip
    columns = TaskColumns(read_ledger(ledger))
    accepted = columns.accepted
    return (columns.accepted_ns[accepted] - columns.invoked_ns[accepted]) / 1_000


def _produce(point, broker, folder, python, *arguments):
    child = _command(
        point, broker, folder, python,
        *("produce", "--loop=windowed", f"--payload={PAYLOAD_BYTES}", *arguments),
    )  # fmt: skip
    patience_s = _GRACE_S + point.value / _FILL_PER_S
    try:
        code = child.wait(patience_s)
    finally:
        end_group(child)
    if code != 0:
        raise ResultsError(
            f"{point}: putting ended with {code} (None: after {patience_s:.0f} s){_tail(folder)}"
        )


def _work(point, broker, folder, python):
    """One worker on the backlog, until it has shown its rate, or is through."""
    ledger = folder / "worker"
    ledger.mkdir()
    wanted = min(point.value, MOST_DONE)
    spawned_ns = time.monotonic_ns()
    child = _command(
        point, broker, folder, python,
        *("worker", "--handler=noop", "--ack=after_processing", "--concurrency=32"),
        *("--measures=none", f"--ledger={ledger}"),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + _GRACE_S + wanted / _WORK_PER_S
        while len(done := _done_so_far_ns(ledger)) < wanted:
            if child.exit_code is not None or time.monotonic() > deadline:
                raise ResultsError(f"{point}: {len(done)} of {wanted} tasks done{_tail(folder)}")
            time.sleep(_POLL_S)
    finally:
        end_group(child)
    first, last = int(_EDGE * wanted), int((1 - _EDGE) * wanted) - 1
    return {
        "work_per_s": (last - first) * 1e9 / float(done[last] - done[first]),
        "first_task_s": float(done[0] - spawned_ns) / 1e9,
    }


def _done_so_far_ns(ledger):
    """As ``_done_ns``; nothing while the worker's segment is not there, or being written to."""
    try:
        return _done_ns(ledger)
    except LedgerError:
        return np.empty(0, dtype=np.int64)


def _done_ns(ledger):
    """When tasks were done, in order."""
    columns = TaskColumns(read_ledger(ledger))
    return np.sort(columns.done_ns[columns.done_count > 0])


def _tail(folder):
    log = folder / "log"
    return f":\n{log.read_text(errors='replace')[-500:]}" if log.exists() else ""
