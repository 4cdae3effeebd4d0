"""The ledger of a run as two Parquet tables, tasks and deliveries, made once and kept beside it.

They are made in shares of the tasks, so that memory is bounded by the size of a share and not by
that of the run. Times are integer ns of the machine's monotonic clock; ``<NA>`` is "never".
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hookbench.decoding import decode_json
from hookbench.errors import LedgerError, ResultsError
from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.events import SEGMENT_SUFFIX, Event
from hookbench.ledger.model import StepPlan
from hookbench.ledger.read import EVENT_DTYPE, RECORD_DTYPE, Ledger, read_ledger
from hookbench.ledger.segment import MAX_STEPS
from hookbench.migration.phases import Phase
from hookbench.results.check import damage_lines
from hookbench.results.steps import plan_steps
from hookbench.results.store import Manifest
from hookbench.results.table_columns import DELIVERIES, TASKS, delivery_table, task_table

__all__ = [
    "TABLES_FOLDER",
    "Tables",
    "TablesKey",
    "make_tables",
    "open_tables",
    "planned_steps",
]

TABLES_FOLDER = "tables"
TABLES_SCHEMA = 1
"""A reader refuses a higher number, and makes tables with a lower one anew."""
SHARE_RECORDS = 4_000_000
"""Records that are read at once: about 280 MB of them, and as much again for the columns."""
_LEDGER_FOLDER = "ledger"
_KEY = b"hookbench"


class TablesKey(msgspec.Struct, kw_only=True):
    """What the tables say of themselves, and of the ledger as a whole.

    Attributes:
        schema: version of the columns.
        segments: names and sizes of the ledger's segments: another ledger makes other tables.
        damage: what could not be read of it; not in any of the tables.
        begun_ns: when each step began, by its index.
        first_ns, last_ns: time of its first and last record, 0 for none.
    """

    schema: int
    segments: list[tuple[str, int]]
    damage: list[str] = []
    begun_ns: dict[int, int] = {}
    first_ns: int = 0
    last_ns: int = 0

    def learn(self, ledger: Ledger) -> None:
        """Take over what a share says; damage is that of the segments, and the same in each."""
        records = ledger.records
        self.damage = damage_lines(ledger.damage)
        begun = records[records["event"] == Event.PHASE][::-1]
        self.begun_ns = dict(zip(begun["value"].tolist(), begun["time_ns"].tolist(), strict=True))
        if len(records):
            first, last = int(records["time_ns"][0]), int(records["time_ns"][-1])
            self.first_ns = min(first, self.first_ns or first)
            self.last_ns = max(last, self.last_ns)


class Tables:
    """Both tables of a run, on disk.

    Args:
        folder: that they lie in.
        key: what they say of themselves.
        alone: whether the ledger that they were made from is not there.
    """

    def __init__(self, folder: Path, key: TablesKey, *, alone: bool = False) -> None:
        self.folder = folder
        self.key = key
        self._alone = alone

    def check(self) -> None:
        """See that both are there with every column.

        Raises:
            ResultsError: see ``parts``.
        """
        for name, schema in _SCHEMAS.items():
            path = self.folder / f"{name}.parquet"
            try:
                names = pq.read_schema(path).names
            except (OSError, pa.ArrowException) as error:
                raise _damaged(path, error, alone=self._alone) from error
            self._want(path, schema.names, names)

    def parts(self, name: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        """The columns of a table in parts of a million rows at the most.

        Raises:
            ResultsError: the table is missing, damaged, or lacks a column.
        """
        path = self.folder / f"{name}.parquet"
        try:
            with pq.ParquetFile(path) as file:
                self._want(path, columns, file.schema_arrow.names)
                for batch in file.iter_batches(columns=columns, batch_size=1 << 20):
                    yield _frame_of(pa.Table.from_batches([batch]))
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error, alone=self._alone) from error

    def read(self, name: str) -> pd.DataFrame:
        """A whole table.

        Raises:
            ResultsError: see ``parts``.
        """
        path = self.folder / f"{name}.parquet"
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error, alone=self._alone) from error
        self._want(path, _SCHEMAS[name].names, table.column_names)
        return _frame_of(table)

    def _want(self, path: Path, wanted: list[str], there: list[str]) -> None:
        if missing := [item for item in wanted if item not in there]:
            raise ResultsError(
                f"table {path}: no column {', '.join(missing)};"
                f" {_remedy(self.folder, alone=self._alone)}"
            )


_SCHEMAS = {"tasks": TASKS, "deliveries": DELIVERIES}


def _damaged(path: Path, error: Exception, *, alone: bool) -> ResultsError:
    return ResultsError(f"table {path}: {error}; {_remedy(path.parent, alone=alone)}")


def _remedy(folder: Path, *, alone: bool) -> str:
    if alone:
        return "the run has no ledger to make it anew from: copy the whole run again"
    return f"remove the folder {folder}, and it is made anew from the ledger"


def _frame_of(table: pa.Table) -> pd.DataFrame:
    """Nullable integers stay integers: "never" is <NA> and not 0."""
    types = {
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
    }
    return table.to_pandas(types_mapper=types.get)


def open_tables(run: Path, manifest: Manifest, *, folder: Path | None = None) -> Tables:
    """The tables of a stored run, made first where there are none or its ledger has changed.

    A run that is passed on without its ledger (no folder ``ledger``) is read from the tables alone.

    Args:
        run: where it is stored.
        manifest: of it.
        folder: where the tables lie; by default in the run's own folder.

    Raises:
        ResultsError: they are damaged, lack a column, are of a newer schema, of an older one
            without their ledger, or cannot be written.
        LedgerError: nothing of its ledger can be read, or it is missing from a complete run.
    """
    folder = folder or run / TABLES_FOLDER
    no_ledger = not (run / _LEDGER_FOLDER).exists()
    known = _read_key(folder / "tasks.parquet", alone=no_ledger)
    if known is not None and known.schema > TABLES_SCHEMA:
        raise ResultsError(
            f"tables {folder}: schema {known.schema}, this version reads up to {TABLES_SCHEMA};"
            " use the hookbench that wrote them, or remove the folder"
        )
    alone = no_ledger and known is not None
    if known is None or (known.schema < TABLES_SCHEMA and not alone):
        return make_tables(run, manifest, folder=folder)
    if known.schema < TABLES_SCHEMA:
        raise ResultsError(
            f"tables {folder}: schema {known.schema}, and there is no ledger to make those of"
            f" schema {TABLES_SCHEMA} from; use the hookbench that wrote them"
        )
    if not alone and known.segments != _segments_of(run):
        return make_tables(run, manifest, folder=folder)
    tables = Tables(folder, known, alone=alone)
    tables.check()
    return tables


def make_tables(
    run: Path, manifest: Manifest, *, folder: Path | None = None, share_records: int = SHARE_RECORDS
) -> Tables:
    """Make the tables of a run from its ledger.

    Args:
        run: where it is stored.
        manifest: of it.
        folder: where they are to lie; by default in the run's own folder.
        share_records: how many records of the ledger are held at once, about.

    Raises:
        LedgerError, ResultsError: see ``open_tables``.
    """
    folder = folder or run / TABLES_FOLDER
    plans, redis = planned_steps(manifest), _redis_queue(manifest)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    segments = _segments_of(run)
    key = TablesKey(schema=TABLES_SCHEMA, segments=segments)
    records = sum(size for _name, size in segments) // RECORD_DTYPE.itemsize
    shares = 1 + records // share_records
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with (
            pq.ParquetWriter(aside / "tasks.parquet", TASKS, compression="zstd") as tasks,
            pq.ParquetWriter(aside / "deliveries.parquet", DELIVERIES, compression="zstd") as other,
        ):
            for number in range(shares):
                ledger = _read_ledger(run, manifest, (number, shares))
                key.learn(ledger)
                columns = TaskColumns(ledger)
                tasks.write_table(task_table(columns, plans, redis))
                other.write_table(delivery_table(columns, plans, redis))
            tasks.add_key_value_metadata({_KEY: msgspec.json.encode(key)})
        _replace(aside, folder)
    except OSError as error:
        raise ResultsError(f"tables {folder}: {error.strerror}; choose another folder") from error
    finally:
        _remove(aside)
    return Tables(folder, key)


def _replace(aside: Path, folder: Path) -> None:
    """File by file, the tasks last: they have the key that tells whether both are whole."""
    folder.mkdir(exist_ok=True)
    (folder / "tasks.parquet").unlink(missing_ok=True)
    for name in ("deliveries.parquet", "tasks.parquet"):
        (aside / name).replace(folder / name)


def _remove(aside: Path) -> None:
    if aside.is_dir():
        for path in aside.iterdir():
            path.unlink()
        aside.rmdir()


def _read_key(path: Path, *, alone: bool) -> TablesKey | None:
    """What the tables say of themselves; ``None`` where there are none."""
    try:
        data = (pq.read_metadata(path).metadata or {}).get(_KEY)
        if data is None:
            raise _damaged(path, ValueError("it does not say what it is of"), alone=alone)
        schema = decode_json(data, _SchemaOnly).schema
        if schema > TABLES_SCHEMA:  # its other fields may be others
            return TablesKey(schema=schema, segments=[])
        return decode_json(data, TablesKey)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, pa.ArrowException, msgspec.MsgspecError) as error:
        raise _damaged(path, error, alone=alone) from error


class _SchemaOnly(msgspec.Struct):
    schema: int


def _segments_of(run: Path) -> list[tuple[str, int]]:
    folder = run / _LEDGER_FOLDER
    return [(path.name, path.stat().st_size) for path in sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))]


def _redis_queue(manifest: Manifest) -> str:
    kind = manifest.settings.get("redis_kind", "list")
    return f"redis_{kind}"


def _read_ledger(run: Path, manifest: Manifest, share: tuple[int, int]) -> Ledger:
    """What can be read of it; an empty one where a run was cut off before it had any."""
    path = run / _LEDGER_FOLDER
    if any(path.glob(f"*{SEGMENT_SUFFIX}")):
        steps = len(planned_steps(manifest)) or MAX_STEPS
        return read_ledger(path, lenient=True, steps=steps, share=share)
    if manifest.status == "complete":
        raise LedgerError(f"run {run}: complete, but {path} holds no ledger segments")
    return Ledger(
        records=np.zeros(0, dtype=EVENT_DTYPE),
        ids=np.zeros(0, dtype=RECORD_DTYPE["task"]),
        task=np.zeros(0, dtype=np.int32),
        writer=np.zeros(0, dtype=np.uint16),
        writers=[],
        crashed=[],
        torn=0,
    )


def planned_steps(manifest: Manifest) -> list[StepPlan]:
    """The timeline that was planned; of the steps carried out, where the settings have none."""
    numbers = manifest.settings.get("phases")
    if isinstance(numbers, list) and len(numbers) >= len(manifest.steps):
        return plan_steps(tuple(Phase(number) for number in numbers))
    return [record.plan for record in manifest.steps]
