"""A stored run as pandas frames. Times are integer ns; a column in seconds ends in ``_s``.

Columns that end in ``_s`` count from the start of the first phase. Nullable columns are ``Int64``
or categorical, so that "never" is ``<NA>`` and not 0.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hookbench.clock import NS_PER_S
from hookbench.errors import LedgerError, SettingError
from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import SEGMENT_SUFFIX, Broker, Event
from hookbench.ledger.explanation import explain
from hookbench.ledger.model import FaultWindow, StepPlan
from hookbench.ledger.read import EVENT_DTYPE, RECORD_DTYPE, Ledger, read_ledger
from hookbench.ledger.repeats import find_repeats
from hookbench.ledger.segment import MAX_STEPS
from hookbench.migration.phases import Phase
from hookbench.report.samples import read_samples
from hookbench.results.check import damage_lines, fault_windows
from hookbench.results.steps import plan_steps
from hookbench.results.store import Manifest, load_manifest, resolve_run

__all__ = ["PERCENTILES", "QUEUE_OF_BROKER", "RunFrames", "load_frames"]

PERCENTILES = {"p50_ns": 0.5, "p90_ns": 0.9, "p99_ns": 0.99, "max_ns": 1.0}
QUEUE_OF_BROKER = {Broker.REDIS: "redis_list", Broker.NATS: "jetstream", Broker.MEMORY: "memory"}
MAX_BINS = 100_000
_WANTED_BINS = 100
_NICE_MS = (50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
_LEDGER_FOLDER = "ledger"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunFrames:
    """One run.

    Attributes:
        folder: where it is stored.
        manifest: what ``run.json`` says, the account included (``None`` in a run cut off).
        origin_ns: monotonic time that the ``_s`` columns count from.
        phases: one row per step of the timeline that began: ``step`` (index), ``phase``,
            ``reads_redis``, ``reads_nats``, ``start_ns``, ``end_ns``, ``start_s``, ``end_s``,
            ``whole`` (False where the run was cut off in it).
        tasks: one row per task id in the ledger: ``id``, ``offered`` (False: it came out and
            nobody put it in), ``step`` and ``phase`` it was put in, ``pushed`` (by git, not
            synthetic), ``intended_ns``, ``accepted``, ``refused``, ``doubtful``, ``accepted_ns``,
            ``enqueue_ns`` (intended to accepted), ``deliveries``, ``done_count``, ``done_ns``
            (first), ``done_step``, ``end_to_end_ns`` (intended to first done), ``dead``.
        executions: one row per completed execution, by time: ``id``, ``done_ns``, ``step``,
            ``phase``, ``queue`` that delivered it, ``nth`` (1 is the first of its task). For the
            others also ``explained`` (see ``ledger.explanation``),
            ``replayed`` (done by redis before, by jetstream now), and ``row``: the phase or
            transition it counts for, as in the account.
        samples: depths seen from outside: ``time_ns``, ``time_s``, ``redis_pending``,
            ``redis_work``, ``stream``, ``consumer_pending``, ``ack_pending``, ``redelivered``
            and ``stream_unread`` (in the stream, not delivered to the consumer yet; all of it
            while there is no consumer), in tasks.
        damage: what could not be read of the ledger; not in any of the frames.
    """

    folder: Path
    manifest: Manifest
    origin_ns: int
    phases: pd.DataFrame
    tasks: pd.DataFrame
    executions: pd.DataFrame
    samples: pd.DataFrame
    damage: list[str] = dataclasses.field(default_factory=list)

    @property
    def synthetic(self) -> pd.DataFrame:
        """Tasks of the open loop: the ones that latencies are taken from."""
        return self.tasks[self.tasks["offered"] & ~self.tasks["pushed"]]

    @property
    def repeats(self) -> pd.DataFrame:
        """Executions beyond the first of their task."""
        return self.executions[self.executions["nth"] > 1]

    @property
    def row_names(self) -> list[str]:
        """Phases and transitions in the order of the account: ``→ name`` before ``name``."""
        names: list[str] = []
        for step, phase in zip(self.phases["step"], self.phases["phase"], strict=True):
            names += [f"→ {phase}"] if step > 0 else []
            names.append(phase)
        return list(dict.fromkeys(names))

    def bin_freq(self) -> str:
        """A width of about a hundredth of the run, as ``timeline`` takes it."""
        if self.phases.empty:
            return f"{_NICE_MS[0]}ms"
        length_ms = (self.phases["end_s"].max() - self.phases["start_s"].min()) * 1_000
        nice = (width for width in _NICE_MS if width * _WANTED_BINS >= length_ms)
        return f"{next(nice, _NICE_MS[-1])}ms"

    def timeline(self, freq: str = "1s") -> pd.DataFrame:
        """Rates and latencies in bins of ``freq``, e.g. ``250ms``.

        Columns: ``time_s`` (start of the bin), ``accepted_per_s``, ``done_per_s`` (all
        executions), ``repeated_per_s`` (those beyond the first of a task), and of the synthetic
        tasks *intended* in the bin the end-to-end ``p50_ns``, ``p90_ns``, ``p99_ns``, ``max_ns``
        (NaN where none was done).

        Raises:
            SettingError: no duration, or more bins than ``MAX_BINS``.
        """
        width_ns = _width_ns(freq)
        accepted = self._bins(self.tasks["accepted_ns"].dropna(), width_ns)
        done = self._bins(self.executions["done_ns"], width_ns)
        again = self._bins(self.repeats["done_ns"], width_ns)
        finished = self.synthetic.dropna(subset=["end_to_end_ns"])
        intended = self._bins(finished["intended_ns"], width_ns)
        every = np.concatenate((accepted, done, intended))
        first, count = (every.min(), int(np.ptp(every)) + 1) if len(every) else (0, 0)
        if count > MAX_BINS:
            raise SettingError(f"freq {freq!r}: {count} bins, at most {MAX_BINS}; use a longer one")
        seconds = width_ns / NS_PER_S
        out = pd.DataFrame({"time_s": (first + np.arange(count)) * seconds})
        for name, bins in (("accepted", accepted), ("done", done), ("repeated", again)):
            out[f"{name}_per_s"] = np.bincount(bins - first, minlength=count) / seconds
        values = finished["end_to_end_ns"].astype("int64").groupby(intended - first)
        for name, quantile in PERCENTILES.items():
            out[name] = values.quantile(quantile).reindex(out.index).astype("float64")
        return out

    def _bins(self, times_ns: pd.Series, width_ns: int) -> Ints:
        bins: Ints = (times_ns.to_numpy(dtype="int64") - self.origin_ns) // width_ns
        return bins


def load_frames(run: str | Path = "latest", results: str | Path = "results") -> RunFrames:
    """Read a stored run, given as ``resolve_run`` takes it.

    Raises:
        ResultsError: no such run, or its manifest or samples are damaged or of a newer version.
        LedgerError: nothing of its ledger can be read, or it is missing from a complete run.
    """
    folder = resolve_run(str(run), Path(results))
    manifest = load_manifest(folder)
    columns = TaskColumns(_read_ledger(folder, manifest))
    plans = _plans(manifest)
    phases = _phase_frame(columns, manifest, plans)
    origin_ns = _origin_ns(columns, phases)
    for name in ("start", "end"):
        phases[f"{name}_s"] = (phases[f"{name}_ns"] - origin_ns) / NS_PER_S
    ids = _id_texts(columns.ledger.ids)
    return RunFrames(
        folder=folder,
        manifest=manifest,
        origin_ns=origin_ns,
        phases=phases,
        tasks=_task_frame(columns, ids, plans),
        executions=_execution_frame(columns, ids, plans, fault_windows(manifest)),
        samples=read_samples(folder, origin_ns),
        damage=damage_lines(columns.ledger.damage),
    )


def _width_ns(freq: str) -> int:
    try:
        width_ns = int(pd.Timedelta(freq) / pd.Timedelta(1, "ns"))
    except ValueError as error:
        raise SettingError(f"freq {freq!r}: use a duration such as 250ms or 1s") from error
    if width_ns <= 0:
        raise SettingError(f"freq {freq!r}: use a duration above zero")
    return width_ns


def _read_ledger(folder: Path, manifest: Manifest) -> Ledger:
    """What can be read of it; an empty one where a run was cut off before it had any."""
    path = folder / _LEDGER_FOLDER
    if any(path.glob(f"*{SEGMENT_SUFFIX}")):
        return read_ledger(path, lenient=True, steps=len(_plans(manifest)) or MAX_STEPS)
    if manifest.status == "complete":
        raise LedgerError(f"run {folder}: complete, but {path} holds no ledger segments")
    return Ledger(
        records=np.zeros(0, dtype=EVENT_DTYPE),
        ids=np.zeros(0, dtype=RECORD_DTYPE["task"]),
        task=np.zeros(0, dtype=np.int32),
        writer=np.zeros(0, dtype=np.uint16),
        writers=[],
        crashed=[],
        torn=0,
    )


def _plans(manifest: Manifest) -> list[StepPlan]:
    """The timeline that was planned; of the steps carried out, where the settings have none."""
    numbers = manifest.settings.get("phases")
    if isinstance(numbers, list) and len(numbers) >= len(manifest.steps):
        return plan_steps(tuple(Phase(number) for number in numbers))
    return [record.plan for record in manifest.steps]


def _phase_frame(columns: TaskColumns, manifest: Manifest, plans: list[StepPlan]) -> pd.DataFrame:
    """Steps of the manifest, and those that the ledger saw begin in a run cut off."""
    rows = [(record.plan, record.start_ns, record.end_ns, True) for record in manifest.steps]
    known = {record.plan.index for record in manifest.steps}
    begun = columns.where(Event.PHASE)
    last_ns = int(columns.time[-1]) if len(columns.time) else 0
    starts_ns = dict(zip(columns.value[begun].tolist(), columns.time[begun].tolist(), strict=True))
    for plan in plans:
        if plan.index in starts_ns and plan.index not in known:
            end_ns = min((time for i, time in starts_ns.items() if i > plan.index), default=last_ns)
            rows.append((plan, starts_ns[plan.index], end_ns, False))
    return pd.DataFrame(
        {
            "step": np.array([row[0].index for row in rows], dtype=np.int64),
            "phase": pd.Series([row[0].phase for row in rows], dtype="str"),
            "reads_redis": np.array([row[0].reads_redis for row in rows], dtype=bool),
            "reads_nats": np.array([row[0].reads_nats for row in rows], dtype=bool),
            "start_ns": np.array([row[1] for row in rows], dtype=np.int64),
            "end_ns": np.array([row[2] for row in rows], dtype=np.int64),
            "whole": np.array([row[3] for row in rows], dtype=bool),
        }
    )


def _origin_ns(columns: TaskColumns, phases: pd.DataFrame) -> int:
    if len(phases):
        return int(phases["start_ns"].min())
    return int(columns.time[0]) if len(columns.time) else 0


def _task_frame(
    columns: TaskColumns, ids: npt.NDArray[np.str_], plans: list[StepPlan]
) -> pd.DataFrame:
    done = columns.where(Event.DONE)
    received = columns.task[columns.where(Event.RECEIVED)]
    finished = columns.done_count > 0
    done_step = columns.first(done, columns.phase, -1)
    frame = pd.DataFrame(
        {
            "id": ids,
            "offered": columns.offered,
            "step": _nullable(columns.put_step, columns.offered),
            "phase": _phase_names(columns.put_step, plans),
            "pushed": columns.pushed,
            "intended_ns": _nullable(columns.intended_ns, columns.offered),
            "accepted": columns.accepted,
            "refused": columns.refused,
            "doubtful": columns.doubtful,
            "accepted_ns": _nullable(columns.accepted_ns, columns.accepted),
            "enqueue_ns": _nullable(
                columns.accepted_ns - columns.intended_ns, columns.accepted & columns.offered
            ),
            "deliveries": np.bincount(received, minlength=columns.count),
            "done_count": columns.done_count,
            "done_ns": _nullable(columns.done_ns, finished),
            "done_step": _nullable(done_step, finished),
            "end_to_end_ns": _nullable(
                columns.done_ns - columns.intended_ns, finished & columns.offered
            ),
            "dead": columns.dead,
        }
    )
    return frame[columns.real].sort_values("id", ignore_index=True)


def _execution_frame(
    columns: TaskColumns,
    ids: npt.NDArray[np.str_],
    plans: list[StepPlan],
    faults: list[FaultWindow],
) -> pd.DataFrame:
    """One row per execution, by the time of its end; see ``find_repeats``."""
    repeats = find_repeats(columns, plans)
    order = repeats.order
    task, step = columns.task[order], columns.phase[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[repeats.position] = False
    position = np.arange(len(order))
    nth = position - np.maximum.accumulate(np.where(fresh, position, 0)) + 1
    counts_for, transition = step.copy(), np.zeros(len(order), dtype=bool)
    counts_for[repeats.position] = repeats.step
    transition[repeats.position] = repeats.transition
    explained, replayed = np.zeros((2, len(order)), dtype=bool)
    explained[repeats.position] = explain(columns, repeats, faults).any
    replayed[repeats.position] = repeats.by_nats
    frame = pd.DataFrame(
        {
            "id": ids[task],
            "done_ns": columns.time[order],
            "step": step,
            "phase": _phase_names(step, plans),
            "queue": pd.Categorical.from_codes(
                _codes(columns.broker[order], list(QUEUE_OF_BROKER)), list(QUEUE_OF_BROKER.values())
            ),
            "nth": nth,
            "explained": explained,
            "replayed": replayed,
            "row": _row_names(counts_for, transition, plans, fresh),
        }
    )
    return frame.sort_values("done_ns", kind="stable", ignore_index=True)


def _row_names(
    step: Ints, transition: Bools, plans: list[StepPlan], fresh: Bools
) -> pd.Categorical:
    names = [name for plan in plans for name in (plan.phase, f"→ {plan.phase}")]
    unique = list(dict.fromkeys(names))
    table = np.array([unique.index(name) for name in names] or [-1], dtype=np.int64)
    codes = table[np.minimum(2 * step + transition, len(table) - 1)]
    return pd.Categorical.from_codes(np.where(fresh, -1, codes), unique)


def _phase_names(step: Ints, plans: list[StepPlan]) -> pd.Categorical:
    """Names of steps; a step of -1, or beyond the timeline, has none."""
    unique = list(dict.fromkeys(plan.phase for plan in plans))
    table = np.array([*(unique.index(plan.phase) for plan in plans), -1], dtype=np.int64)
    known = (step >= 0) & (step < len(plans))
    return pd.Categorical.from_codes(table[np.where(known, step, -1)], unique)


def _codes(values: npt.NDArray[np.uint8], known: Sequence[int]) -> Ints:
    table = np.full(256, -1, dtype=np.int64)
    table[list(known)] = np.arange(len(known))
    return table[values]


def _nullable(values: Ints, valid: Bools) -> pd.Series:
    return pd.Series(pd.arrays.IntegerArray(values.astype(np.int64), ~valid))


def _id_texts(ids: npt.NDArray[np.void]) -> npt.NDArray[np.str_]:
    """UUIDs in their text form, shape (tasks,)."""
    octets = np.frombuffer(ids.tobytes(), dtype=np.uint8).reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.full((len(octets), 36), ord("-"), dtype=np.uint8)
    places = [i for i in range(36) if i not in (8, 13, 18, 23)]
    text[:, places[0::2]] = digits[octets >> 4]
    text[:, places[1::2]] = digits[octets & 15]
    return text.view("S36").reshape(-1).astype("U36")
