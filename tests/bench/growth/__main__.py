"""``make growth``: every point of every axis, and what they come to."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from hookbench.clock import SystemClock
from hookbench.errors import HookbenchError, SettingError
from hookbench.rehearsal.stage import utc_now_label
from hookbench.report.growth import (
    GROWTH_SCHEMA,
    GrowthRow,
    GrowthTable,
    growth_table,
    plot_growth,
    read_growth,
)
from hookbench.report.style import figure_of
from hookbench.results.environment import read_environment
from hookbench.results.store import write_aside
from tests.bench.growth.backlog import measure_backlog
from tests.bench.growth.events import measure_ledger
from tests.bench.growth.plan import AXES, QUEUES, Point, points_of
from tests.bench.growth.rehearsed import measure_rehearsal
from tests.bench.peers.trial import ROOT

TROUBLE = 2
SEED = 7


def main(arguments=None):
    """The exit code: 0 for a measurement, whatever it shows, 2 where a point could not be made."""
    options = _parser().parse_args(arguments)
    try:
        if options.stored:
            return _show(read_growth(options.stored))
        points = points_of(options.axis or AXES, options.queue or QUEUES, whole=options.whole)
        if options.resume:
            return _measure(points, options.resume, _taken_up(options.resume))
        label = utc_now_label(SystemClock().wall_ns()).replace(":", "")
        return _measure(points, options.out / label)
    except HookbenchError as error:
        _tell(f"error: {error}")
        return TROUBLE


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.growth",
        description="How rate, memory and latency grow with what there is more of.",
    )
    parser.add_argument("--axis", action="append", help=f"some of {', '.join(AXES)} (all)")
    parser.add_argument("--queue", action="append", help=f"some of {', '.join(QUEUES)} (all)")
    parser.add_argument("--whole", action="store_true", help="every point, up to 10^7 tasks")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "growth")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with a measurement of the same code and machine: points that it lacks",
    )
    parser.add_argument("--stored", type=Path, metavar="FILE", help="print a stored measurement")
    return parser


def _taken_up(folder):
    """Figures of a measurement that goes on.

    Raises:
        ResultsError: there is none.
        SettingError: it is of other code, other packages or another machine.
    """
    table = read_growth(folder / "growth.json")
    before, now = table.environment, read_environment()
    if now.commit.endswith("+"):
        raise SettingError(
            f"the tree is changed since {now.commit.rstrip('+')}, so nobody could say what code"
            f" {folder} is of: commit first, or begin anew without --resume"
        )
    for name in ("commit", "python", "packages", "cpu", "cpus", "memory_bytes"):
        was, is_now = getattr(before, name), getattr(now, name)
        if was != is_now:
            raise SettingError(
                f"{folder} was measured with {name} {was}, and here it is {is_now}: lines of one"
                " figure are of one code and machine; begin anew without --resume"
            )
    return table.rows


def _measure(points, folder, before=()):
    """Measure what ``before`` lacks; stored after each point, with what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, missing = list(before), []
    there = {Point(row.axis, row.queue, row.design, row.value) for row in before}
    for number, point in enumerate(points, 1):
        if point in there:
            continue
        began = time.perf_counter()
        try:
            figures = _measure_one(point)
        except HookbenchError as error:
            missing.append(f"{point}: {error}")
            _tell(missing[-1])
            figures = {}
        rows += [
            GrowthRow(
                axis=point.axis, queue=point.queue, design=point.design, value=point.value,
                figure=name, measured=value,
            )
            for name, value in figures.items()
        ]  # fmt: skip
        _store(folder / "growth.json", rows, missing)
        if figures:
            shown = "  ".join(f"{name} {value:,.1f}" for name, value in figures.items())
            _tell(
                f"{number}/{len(points)} {point.axis} {point.queue} {point.design}"
                f" {point.value:,}  {shown}  ({time.perf_counter() - began:.0f} s)"
            )
    if not rows:
        return TROUBLE
    table = read_growth(folder / "growth.json")
    for axis in dict.fromkeys(row.axis for row in table.rows):
        figure_of(plot_growth(table, axis)).savefig(folder / f"{axis}.png")
    _show(table)
    sys.stdout.write(f"stored in {folder}\n")
    return TROUBLE if missing else 0


def _store(path, rows, missing):
    table = GrowthTable(
        schema=GROWTH_SCHEMA,
        environment=read_environment(),
        rows=tuple(rows),
        missing=tuple(missing),
    )
    write_aside(path, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")


def _measure_one(point):
    folder = Path(tempfile.mkdtemp(prefix="hookbench-growth-"))
    try:
        if point.axis == "backlog":
            return measure_backlog(point, folder, sys.executable)
        if point.axis == "ledger":
            return measure_ledger(point, folder, SEED)
        return measure_rehearsal(point, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(table):
    sys.stdout.write(f"{growth_table(table).to_string(index=False)}\n")
    return 0


def _tell(line):
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
