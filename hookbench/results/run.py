"""A stored run for notebooks and scripts: ``hookbench.load(path)``.

Every frame's columns stand at its property. Times are integer ns of the machine's monotonic clock;
columns that end in ``_s`` are seconds since the start of the first phase. Nullable columns are
pandas' own integers, or categories, so that "never" is ``<NA>`` and not 0.
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hookbench.clock import NS_PER_S
from hookbench.errors import ResultsError, SettingError
from hookbench.results import manifest_frames
from hookbench.results.buckets import BucketCounts
from hookbench.results.manifest_frames import WHAT
from hookbench.results.samples import Sample, read_samples
from hookbench.results.store import Manifest, load_manifest, resolve_run
from hookbench.results.table_columns import DELIVERIES, TASKS
from hookbench.results.tables import Tables, open_tables, planned_steps

__all__ = ["BY", "MAX_BINS", "PERCENTILES", "WHAT", "Run", "load"]

PERCENTILES = {"p50_ns": 50.0, "p90_ns": 90.0, "p99_ns": 99.0, "p999_ns": 99.9}
BY = ("phase", "step", "queue", "second")
MAX_BINS = 100_000
_WANTED_BINS = 100
_NICE_MS = (50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
_MS_PER_S = 1_000


class Run:
    """One stored run.

    Attributes:
        folder: where it is stored.
        manifest: what ``run.json`` says, the account included (``None`` in a run cut off).
    """

    def __init__(self, folder: Path, manifest: Manifest, tables: Tables) -> None:
        self.folder = folder
        self.manifest = manifest
        self._tables = tables

    def __repr__(self) -> str:
        manifest = self.manifest
        return f"<hookbench run {manifest.run}: {manifest.design}, {manifest.verdict}>"

    @property
    def damage(self) -> list[str]:
        """What could not be read of the ledger; not in any of the frames."""
        return self._tables.key.damage

    @cached_property
    def origin_ns(self) -> int:
        """Monotonic time that the ``_s`` columns count from: the start of the first phase.

        Of a run that was cut off in its first phase that is when the phase was entered, which is
        before its load began.
        """
        starts = [record.start_ns for record in self.manifest.steps]
        begun = self._tables.key.begun_ns.values()
        return min(starts or begun, default=self._tables.key.first_ns)

    # What happened to tasks.

    @property
    def tasks(self) -> pd.DataFrame:
        """One row per task; the columns are those of ``results.tables.TASKS``."""
        return self._tables.read("tasks")

    @property
    def deliveries(self) -> pd.DataFrame:
        """One row per delivery; the columns are those of ``results.tables.DELIVERIES``."""
        return self._tables.read("deliveries")

    def parts(self, table: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Columns of ``tasks`` or ``deliveries`` in parts of a million rows at the most.

        For runs that are larger than memory: everything below is made of them.

        Raises:
            SettingError: there is no such table or column.
        """
        known = {"tasks": TASKS.names, "deliveries": DELIVERIES.names}
        if table not in known:
            raise SettingError(f"table {table!r}: use {', '.join(known)}")
        for name in columns:
            if name not in known[table]:
                raise SettingError(f"column {name!r} of {table}: use {', '.join(known[table])}")
        return self._tables.parts(table, list(columns))

    @cached_property
    def totals(self) -> dict[str, int]:
        """How many tasks were ``offered``, ``accepted`` and ``done``, by the ledger.

        And ``superseded``: ended so, and never done.
        """
        out = dict.fromkeys(("offered", "accepted", "done", "superseded"), 0)
        columns = ["offered", "accepted", "done_count", "superseded"]
        for part in self._tables.parts("tasks", columns):
            out["offered"] += int(part["offered"].sum())
            out["accepted"] += int(part["accepted"].sum())
            out["done"] += int((part["done_count"] > 0).sum())
            out["superseded"] += int((part["superseded"] & (part["done_count"] == 0)).sum())
        return out

    @property
    def repeats(self) -> pd.DataFrame:
        """The deliveries that were completed executions beyond the first of their task."""
        parts = [
            part[part["nth"] > 1] for part in self._tables.parts("deliveries", DELIVERIES.names)
        ]
        return pd.concat(parts, ignore_index=True) if parts else self.deliveries

    def timeline(self, freq: str = "1s") -> pd.DataFrame:
        """Rates and latencies in bins of ``freq``, e.g. ``250ms``.

        Columns: ``time_s``, start of the bin; ``accepted_per_s``; ``done_per_s``, all completed
        executions; ``repeated_per_s``, those beyond the first of a task; ``redelivered_per_s``,
        deliveries that their queue counts as a second or later one; and of the synthetic tasks
        *intended* in the bin the end-to-end ``p50_ns``, ``p90_ns``, ``p99_ns``, ``p999_ns`` and
        ``max_ns`` (NaN where none was done).

        Raises:
            SettingError: no duration, or more bins than ``MAX_BINS``.
        """
        width_ns = _width_ns(freq)
        first, count = self._bins(width_ns, freq)
        seconds = width_ns / NS_PER_S
        out = pd.DataFrame({"time_s": (first + np.arange(count)) * seconds})
        rates = {name: np.zeros(count) for name in ("accepted", "done", "repeated", "redelivered")}
        latencies = BucketCounts(count)

        def bins(times_ns: pd.Series) -> npt.NDArray[np.int64]:
            found: npt.NDArray[np.int64] = times_ns.to_numpy(dtype="int64")
            return (found - self.origin_ns) // width_ns - first

        def count_in(name: str, times_ns: pd.Series) -> None:
            rates[name] += np.bincount(bins(times_ns), minlength=count)

        for part in self._tables.parts("tasks", _OF_TIMELINE):
            count_in("accepted", part["accepted_ns"].dropna())
            finished = part[part["offered"] & ~part["pushed"] & part["end_to_end_ns"].notna()]
            values = finished["end_to_end_ns"].to_numpy(dtype="int64")
            latencies.add(bins(finished["intended_ns"]), np.maximum(values, 0))
        for part in self._tables.parts("deliveries", ["received_ns", "ended_ns", "nth", "attempt"]):
            done = part[part["nth"] > 0]
            count_in("done", done["ended_ns"])
            count_in("repeated", done.loc[done["nth"] > 1, "ended_ns"])
            count_in("redelivered", part.loc[part["attempt"] > 1, "received_ns"])
        for name, values in rates.items():
            out[f"{name}_per_s"] = values / seconds
        out[list(PERCENTILES)] = latencies.percentiles(list(PERCENTILES.values()))
        out["max_ns"] = np.where(latencies.max < 0, np.nan, latencies.max)
        return out

    def _bins(self, width_ns: int, freq: str) -> tuple[int, int]:
        """The first bin and how many there are, over everything that ``timeline`` counts."""
        low, high = None, None
        of = {"tasks": ("accepted_ns", "intended_ns"), "deliveries": ("received_ns", "ended_ns")}
        for table, columns in of.items():
            for part in self._tables.parts(table, list(columns)):
                for name in columns:
                    times = part[name].dropna()
                    if len(times):
                        low = min(int(times.min()), low if low is not None else int(times.min()))
                        high = max(int(times.max()), high or 0)
        if low is None or high is None:
            return 0, 0
        first = (low - self.origin_ns) // width_ns
        count = (high - self.origin_ns) // width_ns - first + 1
        if count > MAX_BINS:
            raise SettingError(f"freq {freq!r}: {count} bins, at most {MAX_BINS}; use a longer one")
        return first, count

    def bin_freq(self) -> str:
        """A width of about a hundredth of the run, as ``timeline`` takes it."""
        phases = self.phases
        if phases.empty:
            return f"{_NICE_MS[0]}ms"
        length_ms = (phases["end_s"].max() - phases["start_s"].min()) * _MS_PER_S
        nice = (width for width in _NICE_MS if width * _WANTED_BINS >= length_ms)
        return f"{next(nice, _NICE_MS[-1])}ms"

    def latency(
        self, by: str | Sequence[str] = "phase", *, what: str = "end_to_end"
    ) -> pd.DataFrame:
        """Percentiles of the latencies of synthetic tasks, from merged histograms.

        Args:
            by: of ``phase`` and ``step`` (that a task was put in), ``queue`` (that delivered what
                was done first) and ``second`` (since the start, in which it was due); none for all
                tasks together.
            what: ``end_to_end`` (intended to first done) or ``enqueue`` (intended to accepted).

        Returns:
            One row per group that has a task, in the order of the groups: the columns of ``by``,
            ``count``, ``mean_ns``, those of ``PERCENTILES``, and ``max_ns``.

        Raises:
            SettingError: no such group or latency.
        """
        keys, counts = self._histograms(by, what)
        out = keys.copy()
        out["count"] = counts.counts
        out["mean_ns"] = counts.total / np.maximum(1, counts.counts)
        out[list(PERCENTILES)] = counts.percentiles(list(PERCENTILES.values()))
        out["max_ns"] = counts.max
        return out

    def distributions(
        self, by: str | Sequence[str] = "phase", *, what: str = "end_to_end"
    ) -> list[tuple[dict[str, Any], pd.DataFrame]]:
        """The histogram of each group of ``latency``: its keys, and a frame.

        Columns: ``value_ns`` (upper end of the bucket), ``count``, ``percentile`` (of the tasks
        that took at most so long).
        """
        keys, counts = self._histograms(by, what)
        found = []
        for index, row in enumerate(keys.to_dict("records")):
            values, number = counts.distribution(index)
            percentile = 100 * np.cumsum(number) / number.sum()
            frame = pd.DataFrame({"value_ns": values, "count": number, "percentile": percentile})
            found.append(({str(name): value for name, value in row.items()}, frame))
        return found

    def _histograms(self, by: str | Sequence[str], what: str) -> tuple[pd.DataFrame, BucketCounts]:
        names = [by] if isinstance(by, str) else list(by)
        for name in names:
            if name not in BY:
                raise SettingError(f"latency by {name!r}: use {', '.join(BY)}")
        if what not in WHAT:
            raise SettingError(f"latency {what!r}: use {', '.join(WHAT)}")
        if not names:
            counts = BucketCounts(1)
            for rows in self._synthetic(names, what):
                counts.add(np.zeros(len(rows), dtype=np.int64), _values(rows, what))
            return pd.DataFrame(index=[0]), counts
        seen = [rows[names].drop_duplicates() for rows in self._synthetic(names, what)]
        keys = pd.concat(seen).drop_duplicates() if seen else pd.DataFrame(columns=names)
        order = {plan.phase: plan.index for plan in reversed(planned_steps(self.manifest))}
        keys = keys.sort_values(
            names, key=lambda column: column.map(order) if column.name == "phase" else column
        ).reset_index(drop=True)
        counts = BucketCounts(len(keys))
        numbers = keys.assign(group=np.arange(len(keys)))
        for rows in self._synthetic(names, what):
            group = rows[names].merge(numbers, on=names, how="left")["group"]
            counts.add(group.to_numpy(dtype="int64"), _values(rows, what))
        return keys, counts

    def _synthetic(self, names: Sequence[str], what: str) -> Iterator[pd.DataFrame]:
        """Synthetic tasks that have a latency, with the columns of these groups."""
        wanted = ["offered", "pushed", "intended_ns", f"{what}_ns"]
        wanted += [name for name in names if name != "second"]
        for part in self._tables.parts("tasks", wanted):
            rows = part[part["offered"] & ~part["pushed"] & part[f"{what}_ns"].notna()].copy()
            rows["second"] = (rows["intended_ns"] - self.origin_ns) // NS_PER_S
            for name in {"phase", "queue"}.intersection(names):
                rows[name] = rows[name].astype("str")
            yield rows

    # What was done to the system, and what it cost.

    @cached_property
    def phases(self) -> pd.DataFrame:
        """One row per step of the timeline that began, in order.

        Columns: ``step`` (index), ``phase``, ``reads_redis``, ``reads_nats``, ``start_ns``,
        ``end_ns``, ``start_s``, ``end_s``, ``whole`` (False where the run was cut off in it).
        """
        manifest, key = self.manifest, self._tables.key
        rows = [(item.plan, item.start_ns, item.end_ns, True) for item in manifest.steps]
        known = {item.plan.index for item in manifest.steps}
        for plan in planned_steps(manifest):
            if plan.index in key.begun_ns and plan.index not in known:
                later = (time for i, time in key.begun_ns.items() if i > plan.index)
                begun = key.begun_ns[plan.index]
                rows.append((plan, begun, min(later, default=key.last_ns), False))
        frame = pd.DataFrame(
            {
                "step": np.array([row[0].index for row in rows], dtype=np.int64),
                "phase": pd.Series([row[0].phase for row in rows], dtype="str"),
                "reads_redis": np.array([row[0].reads_redis for row in rows], dtype=bool),
                "reads_nats": np.array([row[0].reads_nats for row in rows], dtype=bool),
                "start_ns": np.array([row[1] for row in rows], dtype=np.int64),
                "end_ns": np.array([row[2] for row in rows], dtype=np.int64),
            }
        )
        for name in ("start", "end"):
            frame[f"{name}_s"] = (frame[f"{name}_ns"] - self.origin_ns) / NS_PER_S
        frame["whole"] = np.array([row[3] for row in rows], dtype=bool)
        return frame

    @property
    def row_names(self) -> list[str]:
        """Phases and transitions in the order of the account: ``→ name`` before ``name``."""
        names: list[str] = []
        for step, phase in zip(self.phases["step"], self.phases["phase"], strict=True):
            names += [f"→ {phase}"] if step > 0 else []
            names.append(phase)
        return list(dict.fromkeys(names))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Depths of the brokers every 250 ms, in tasks.

        Columns: ``time_ns``, ``time_s``; ``redis_pending``, ``redis_work``, ``redis_leases``
        (workers that have one); ``stream`` (all that lies in it), ``consumer_pending``,
        ``ack_pending``, ``redelivered``; ``stream_unread``: in the stream and not delivered to the
        consumer yet, all of it while there is no consumer. ``<NA>`` where a broker did not answer.

        Raises:
            ResultsError: a line of the file is no sample.
        """
        samples = read_samples(self.folder)
        frame = pd.DataFrame(
            {
                name: pd.array([getattr(sample, name) for sample in samples], dtype="Int64")
                for name in Sample.__struct_fields__
            }
        )
        frame["time_ns"] = frame["time_ns"].astype("int64")
        frame["time_s"] = (frame["time_ns"] - self.origin_ns) / NS_PER_S
        frame["stream_unread"] = frame["consumer_pending"].fillna(frame["stream"])
        return frame

    @property
    def faults(self) -> pd.DataFrame:
        """One row per fault of the schedule, in its order.

        Columns: ``index`` in the schedule, ``kind``, ``target``, ``name``, ``node``;
        ``planned_s``, ``begin_s``, ``end_s`` (NaN for never); ``fired``; ``problem``, why it did
        not, or why it could not be healed; and from the account ``exposed`` (tasks in flight),
        ``lost``, ``stuck``, ``duplicated``, ``longest_without_s`` (the longest time without a
        success of any operation of a broker concerned), ``recovery_s`` (from its end to the next
        success).
        """
        return manifest_frames.faults_frame(self.manifest, self.origin_ns)

    @property
    def resources(self) -> pd.DataFrame:
        """What the processes of each name cost over the run.

        Columns: ``name``, ``role`` (the name without its number), ``processes`` (one after
        another), ``cpu_s``, ``rss_max_bytes``, ``read_bytes``, ``written_bytes`` (disk),
        ``received_bytes``, ``sent_bytes`` (TCP), and ``cpu_s_per_million``,
        ``written_bytes_per_task``: over the tasks of the run that were done.
        """
        return manifest_frames.resources_frame(self.manifest)

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row per phase and transition of the account, in order; none in a run cut off.

        Columns: those of ``ledger.model.StepAccount``, its latencies as ``enqueue_p50_ns`` to
        ``end_to_end_max_ns``, ``stuck`` and ``lost`` as numbers of tasks.
        """
        return manifest_frames.verdicts_frame(self.manifest)

    @property
    def stuck(self) -> pd.DataFrame:
        """Where tasks without an end lie: ``row``, ``place``, ``state``, ``count``."""
        return manifest_frames.stuck_frame(self.manifest)

    @property
    def attributions(self) -> pd.DataFrame:
        """Causes of losses, duplicates, second ends: the fields of ``ledger.model.Attribution``."""
        return manifest_frames.attributions_frame(self.manifest)

    @property
    def gates(self) -> pd.DataFrame:
        """One row per condition of each gate that was asked, in order.

        Columns: ``time_s``, ``step``, ``source``, ``target``, ``moment``, ``answer`` (of the
        gate), ``asked`` (how often it said so in a row), ``condition``, ``condition_answer``,
        ``evidence``.
        """
        return manifest_frames.gates_frame(self.manifest, self.origin_ns)


_OF_TIMELINE = ["accepted_ns", "offered", "pushed", "intended_ns", "end_to_end_ns"]


def load(run: str | Path = "latest", results: str | Path = "results") -> Run:
    """Read a stored run.

    Its tables are made from the ledger when they are first asked for, and kept in its folder; in a
    folder that cannot be written to they are made in a temporary one.

    Args:
        run: its folder, its id, the beginning of its id, or ``latest``.
        results: the folder of the stored runs, for all but the first.

    Raises:
        ResultsError: no such run, or its manifest or tables are damaged or of a newer version.
        LedgerError: nothing of its ledger can be read, or it is missing from a complete run.
    """
    folder = resolve_run(str(run), Path(results))
    manifest = load_manifest(folder)
    try:
        return Run(folder, manifest, open_tables(folder, manifest))
    except ResultsError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
    aside = Path(tempfile.mkdtemp(prefix="hookbench-tables-"))
    return Run(folder, manifest, open_tables(folder, manifest, folder=aside))


def _values(rows: pd.DataFrame, what: str) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = rows[f"{what}_ns"].to_numpy(dtype="int64")
    return np.maximum(found, 0)


def _width_ns(freq: str) -> int:
    try:
        width_ns = int(pd.Timedelta(freq) / pd.Timedelta(1, "ns"))
    except ValueError as error:
        raise SettingError(f"freq {freq!r}: use a duration such as 250ms or 1s") from error
    if width_ns <= 0:
        raise SettingError(f"freq {freq!r}: use a duration above zero")
    return width_ns
