"""The columns of both tables of a run, out of the ledger's records of a share of its tasks."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import StepPlan
from hookbench.ledger.repeats import find_repeats
from hookbench.results.deliveries import OUTCOMES, delivery_columns

__all__ = ["DELIVERIES", "QUEUES", "TASKS", "delivery_table", "task_table"]

QUEUES = ("redis_list", "redis_stream", "jetstream", "memory")
_ID = pa.string()
_NS = pa.int64()
_NAME = pa.dictionary(pa.int8(), pa.string())

TASKS = pa.schema(
    [
        ("id", _ID),
        ("offered", pa.bool_()),
        ("step", pa.int16()),
        ("phase", _NAME),
        ("pushed", pa.bool_()),
        ("repository", pa.uint32()),
        ("intended_ns", _NS),
        ("invoked_ns", _NS),
        ("accepted", pa.bool_()),
        ("refused", pa.bool_()),
        ("doubtful", pa.bool_()),
        ("accepted_ns", _NS),
        ("enqueue_ns", _NS),
        ("deliveries", pa.int32()),
        ("done_count", pa.int32()),
        ("done_ns", _NS),
        ("done_step", pa.int16()),
        ("queue", _NAME),
        ("end_to_end_ns", _NS),
        ("dead", pa.bool_()),
        ("superseded", pa.bool_()),
    ]
)
"""One row per task id of the ledger.

``id``; ``offered`` (False: it came out and nobody put it in); ``step`` and ``phase`` that it was
put in; ``pushed`` (by git, not synthetic); ``repository``, its number; ``intended_ns`` and
``invoked_ns``, when its put was due and when it began; ``accepted``, ``refused``, ``doubtful``:
what its caller was told; ``accepted_ns``; ``enqueue_ns``, from intended to accepted;
``deliveries``; ``done_count``, completed executions; ``done_ns`` of the first of them, the
``done_step`` that it fell in and the ``queue`` that delivered it; ``end_to_end_ns``, from intended
to first done; ``dead`` and ``superseded``, how else it ended."""

DELIVERIES = pa.schema(
    [
        ("id", _ID),
        ("queue", _NAME),
        ("worker", pa.dictionary(pa.int16(), pa.string())),
        ("attempt", pa.int32()),
        ("step", pa.int16()),
        ("phase", _NAME),
        ("received_ns", _NS),
        ("started_ns", _NS),
        ("ended_ns", _NS),
        ("outcome", _NAME),
        ("acked_ns", _NS),
        ("nth", pa.int32()),
        ("replayed", pa.bool_()),
        ("row", _NAME),
    ]
)
"""One row per delivery of a task to a worker.

``id``; ``queue`` that delivered it, to which ``worker``, as which ``attempt`` of that queue;
``step`` and ``phase`` of the worker; ``received_ns``, ``started_ns`` (of the handler) and
``ended_ns``; ``outcome``: ``done``, ``failed``, ``dead``, ``superseded``, ``skipped`` (the task had
ended), ``stale`` (another worker had it by then), ``given_back``, or none in the ledger;
``acked_ns``, when its acknowledgement was sent; ``nth``, the place of a completed execution among
those of its task, 0 for none; ``replayed``: a repeat of what Redis had done, by JetStream;
``row``: the phase or transition that a repeat counts for, as in the account."""


def task_table(columns: TaskColumns, plans: list[StepPlan], redis: str) -> pa.Table:
    """The rows of ``TASKS``.

    Args:
        columns: the ledger, or a share of it.
        plans: the timeline.
        redis: what the queue on Redis is called.
    """
    done = columns.where(Event.DONE)
    received = columns.task[columns.where(Event.RECEIVED)]
    finished = columns.done_count > 0
    put, real = columns.offered, columns.real
    broker = columns.first(done, columns.broker, 0)
    values = {
        "id": _id_texts(columns.ledger.ids),
        "offered": put,
        "step": _nullable(columns.put_step, put),
        "phase": _phase_names(columns.put_step, plans),
        "pushed": columns.pushed,
        "repository": _nullable(columns.repository, put),
        "intended_ns": _nullable(columns.intended_ns, put),
        "invoked_ns": _nullable(columns.invoked_ns, put),
        "accepted": columns.accepted,
        "refused": columns.refused,
        "doubtful": columns.doubtful,
        "accepted_ns": _nullable(columns.accepted_ns, columns.accepted),
        "enqueue_ns": _nullable(columns.accepted_ns - columns.intended_ns, columns.accepted & put),
        "deliveries": np.bincount(received, minlength=columns.count),
        "done_count": columns.done_count,
        "done_ns": _nullable(columns.done_ns, finished),
        "done_step": _nullable(columns.first(done, columns.phase, -1), finished),
        "queue": _queue_names(broker, redis),
        "end_to_end_ns": _nullable(columns.done_ns - columns.intended_ns, finished & put),
        "dead": columns.dead,
        "superseded": columns.superseded,
    }
    table = pa.table({name: pa.array(value) for name, value in values.items()})
    return table.filter(pa.array(real)).cast(TASKS)


def delivery_table(columns: TaskColumns, plans: list[StepPlan], redis: str) -> pa.Table:
    """The rows of ``DELIVERIES``; arguments as of ``task_table``."""
    found = delivery_columns(columns)
    nth, replayed, row = _repeated(columns, plans)
    done = found.done_record
    executed = done >= 0
    at = np.where(executed, done, 0)
    workers = columns.ledger.writers
    received = found.received_record
    empty = len(columns.event) == 0
    values = {
        "id": _id_texts(columns.ledger.ids).take(pa.array(columns.task[received])),
        "queue": _queue_names(columns.broker[received], redis),
        "worker": pa.DictionaryArray.from_arrays(
            pa.array(columns.ledger.writer[received].astype(np.int16)),
            pa.array(workers, type=pa.string()),
        ),
        "attempt": columns.ledger.records["attempt"][received].astype(np.int32),
        "step": columns.phase[received],
        "phase": _phase_names(columns.phase[received], plans),
        "received_ns": columns.time[received],
        "started_ns": _nullable(found.started_ns, found.started_ns > 0),
        "ended_ns": _nullable(found.ended_ns, found.ended_ns > 0),
        "outcome": _names(found.outcome, list(OUTCOMES)),
        "acked_ns": _nullable(found.acked_ns, found.acked_ns > 0),
        "nth": np.zeros(0, dtype=np.int64) if empty else np.where(executed, nth[at], 0),
        "replayed": np.zeros(0, dtype=bool) if empty else executed & replayed[at],
        "row": _names(
            np.zeros(0, dtype=np.int64) if empty else np.where(executed, row[at], -1),
            _row_names(plans),
        ),
    }
    table = pa.table({name: pa.array(value) for name, value in values.items()})
    return table.filter(pa.array(columns.real[columns.task[received]])).cast(DELIVERIES)


def _repeated(columns: TaskColumns, plans: list[StepPlan]) -> tuple[Ints, Bools, Ints]:
    """Per record of the ledger, for those that are executions, see ``find_repeats``."""
    nth = np.zeros(len(columns.event), dtype=np.int64)
    replayed = np.zeros(len(columns.event), dtype=bool)
    row = np.full(len(columns.event), -1, dtype=np.int64)
    if not len(columns.event):
        return nth, replayed, row
    repeats = find_repeats(columns, plans)
    order, position = repeats.order, np.arange(len(repeats.order))
    fresh = np.ones(len(order), dtype=bool)
    fresh[repeats.position] = False
    nth[order] = position - np.maximum.accumulate(np.where(fresh, position, 0)) + 1
    names = _row_names(plans)
    table = np.array(
        [names.index(name) for plan in plans for name in (plan.phase, f"→ {plan.phase}")] or [-1],
        dtype=np.int64,
    )
    replayed[repeats.again] = repeats.by_nats
    row[repeats.again] = table[np.minimum(2 * repeats.step + repeats.transition, len(table) - 1)]
    return nth, replayed, row


def _row_names(plans: list[StepPlan]) -> list[str]:
    return list(dict.fromkeys(name for plan in plans for name in (plan.phase, f"→ {plan.phase}")))


def _phase_names(step: Ints, plans: list[StepPlan]) -> pa.DictionaryArray:
    """Names of steps; a step of -1, or beyond the timeline, has none."""
    unique = list(dict.fromkeys(plan.phase for plan in plans))
    table = np.array([*(unique.index(plan.phase) for plan in plans), -1], dtype=np.int64)
    known = (step >= 0) & (step < len(plans))
    return _names(table[np.where(known, step, -1)], unique)


def _queue_names(broker: npt.NDArray[np.integer], redis: str) -> pa.DictionaryArray:
    table = np.full(256, -1, dtype=np.int64)
    for number, name in (
        (Broker.REDIS, redis),
        (Broker.NATS, "jetstream"),
        (Broker.MEMORY, "memory"),
    ):
        table[number] = QUEUES.index(name)
    return _names(table[broker], list(QUEUES))


def _names(codes: Ints, names: list[str]) -> pa.DictionaryArray:
    """Names by their number; -1 for none."""
    indices = pa.array(codes.astype(np.int8), mask=np.asarray(codes < 0))
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, type=pa.string()))


def _nullable(values: Ints, valid: Bools) -> pa.Array:
    return pa.array(values.astype(np.int64), mask=~valid)


def _id_texts(ids: npt.NDArray[np.void]) -> pa.StringArray:
    """UUIDs in their text form."""
    octets = np.frombuffer(ids.tobytes(), dtype=np.uint8).reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.full((len(octets), 36), ord("-"), dtype=np.uint8)
    places = [i for i in range(36) if i not in (8, 13, 18, 23)]
    text[:, places[0::2]] = digits[octets >> 4]
    text[:, places[1::2]] = digits[octets & 15]
    offsets = np.arange(len(text) + 1, dtype=np.int32) * np.int32(text.shape[1])
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(text))
