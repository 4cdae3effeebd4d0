"""Compare the benchmarks of this tree with those of its merge base: ``make bench``.

The benchmarks of the head run on both, for an older base has them in another form or not at all.
Both sides run in turn, each run in a process of its own, with the same interpreter and packages;
of what looks slower twice as many new runs decide. Exit code
0 without a regression, 1 with one, 2 if that could not be found out.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from hookbench.clock import SystemClock
from hookbench.errors import HookbenchError, ResultsError, SettingError
from hookbench.rehearsal.stage import utc_now_label
from tests.bench.judge import LEAST_ROUNDS, Row, Verdict, judge, suspected, worse
from tests.bench.measured import BASE, HEAD, SIDES, load_file, load_series
from tests.bench.table import conclusion, markdown
from tests.bench.trees import (
    base_commit,
    copy_working_tree,
    share_benchmarks,
    unpack_commit,
)

__all__ = ["Comparison", "Selection", "compare", "main"]

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 1800.0
_MAX_ROUNDS = 49
_TOLD_LINES = 30
# pytest loads what is installed; a process with locust's plugin is not the one to be measured.
_PLUGINS = ("pytest_benchmark.plugin", "pytest_asyncio.plugin", "pytest_timeout")
_LONG = ("test_hook_push.py", "test_worker.py")
_LONG_WORDS = "at once"
_FIRST, _AGAIN = "first", "again"
_NOTHING_RAN = "pytest_benchmark.logger.PytestBenchmarkWarning"
_NO_TESTS, _SOME_FAILED = 5, 1
REGRESSION, TROUBLE = 1, 2
AGAIN_TIMES = 2
"""How many times as many runs decide about what was suspected."""


class Comparison(msgspec.Struct, kw_only=True):
    """What a comparison came to; ``comparison.json`` holds it.

    Attributes:
        base, head: what was compared.
        rounds: runs of each side in the first series.
    """

    base: str
    head: str
    rounds: int
    rows: list[Row]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which benchmarks run: those that match ``words`` (pytest's ``-k``); with ``long``, all."""

    words: str = ""
    long: bool = False

    def arguments(self):
        """For pytest."""
        out = ["tests/bench"]
        words = [f"({self.words})"] if self.words else []
        if not self.long:
            out += [f"--ignore=tests/bench/{name}" for name in _LONG]
            words.append(f"not ({_LONG_WORDS.replace(' ', ' and ')})")
        return [*out, *(["-k", " and ".join(words)] if words else [])]


def run_once(tree, path, arguments, *, number):
    """One run of the benchmarks on a tree, into a file; what it printed, if any failed.

    Raises:
        ResultsError: it did not run to its end, or measured another tree.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    environment |= {
        "PYTHONPATH": str(tree.folder),
        "PYTHONHASHSEED": str(number),  # the same of both sides: it moves what lies in memory
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [word for plugin in _PLUGINS for word in ("-p", plugin)]
    command += ["-c", "pyproject.toml", "--rootdir", str(tree.folder)]
    command += ["--continue-on-collection-errors", "--benchmark-enable", "--benchmark-only"]
    command += ["--tb=short", "--benchmark-quiet", "-W", f"ignore::{_NOTHING_RAN}"]
    command += ["--benchmark-disable-gc", f"--benchmark-json={path}", *arguments]
    try:
        done = subprocess.run(
            command, cwd=tree.folder, env=environment, capture_output=True, text=True,
            timeout=RUN_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ResultsError(
            f"{tree.label}: the benchmarks did not end within {RUN_TIMEOUT_S:g} s"
        ) from error
    told = "\n".join((done.stdout + done.stderr).splitlines()[-_TOLD_LINES:])
    if done.returncode not in (0, _SOME_FAILED) or not path.is_file() or not path.stat().st_size:
        if done.returncode == _NO_TESTS:
            raise SettingError(f"no benchmark is selected by {' '.join(arguments)}")
        raise ResultsError(f"{tree.label}: no benchmark ran:\n{told}")
    measured = Path(load_file(path).machine_info.hookbench)
    if measured != (tree.folder / "hookbench").resolve():
        raise ResultsError(f"{tree.label}: {measured} was measured, not {tree.folder}")
    return told if done.returncode else ""


def run_series(base, head, folder, arguments, rounds, tell):
    """Both sides in turn, each first in every second round.

    Raises:
        ResultsError: a benchmark fails on the head; or as of ``run_once``.
    """
    folder.mkdir(parents=True)
    trees = dict(zip(SIDES, (base, head), strict=True))
    for number in range(1, rounds + 1):
        seconds = {}
        for side in SIDES if number % 2 else reversed(SIDES):
            path = folder / f"{side}-{number:02}.json"
            began = time.perf_counter()
            told = run_once(trees[side], path, arguments, number=number)
            seconds[side] = time.perf_counter() - began
            if told and side == HEAD:
                raise ResultsError(f"{head.label}: benchmarks of the head fail:\n{told}")
        tell(
            f"{folder.name}: round {number} of {rounds}: base {seconds[BASE]:.0f} s,"
            f" head {seconds[HEAD]:.0f} s"
        )
    return load_series(folder)


def compare(base, head, folder, selection, rounds, *, tell=lambda _line: None):
    """Run both sides, and judge.

    Args:
        base, head: both with the same benchmarks, see ``share_benchmarks``.
        folder: for the files of all runs; it is made.
        selection: which benchmarks.
        rounds: runs of each side.
        tell: is told how far it is.

    Raises:
        SettingError: too few rounds to tell anything, or nothing selected.
        ResultsError: see ``run_series``.
    """
    check_rounds(rounds)
    series = run_series(base, head, folder / _FIRST, selection.arguments(), rounds, tell)
    if not any(series.runs[BASE]):
        raise ResultsError(
            f"{base.label}: none of the benchmarks runs on the base: choose a newer one with --base"
        )
    suspects = suspected(judge(series))
    if suspects:
        tell(f"may be slower, so measured again: {', '.join(suspects)}")
        run_series(base, head, folder / _AGAIN, suspects, AGAIN_TIMES * rounds, tell)
    found = Comparison(base=base.label, head=head.label, rounds=rounds, rows=judge_folder(folder))
    (folder / "comparison.json").write_bytes(msgspec.json.encode(found))
    return found


def check_rounds(rounds):
    """Refuse what could come to nothing.

    Raises:
        SettingError: too few rounds, or too many.
    """
    if not LEAST_ROUNDS <= rounds <= _MAX_ROUNDS:
        raise SettingError(
            f"{rounds} rounds: use {LEAST_ROUNDS} to {_MAX_ROUNDS}; of fewer no difference could be"
            " told from chance"
        )


def judge_folder(folder):
    """The rows of stored runs; of what was suspected only the second series decides.

    Raises:
        ResultsError: a file is damaged, or a series is missing.
    """
    rows = judge(load_series(folder / _FIRST))
    suspects = suspected(rows)
    if not suspects:
        return rows
    second = {
        row.name: row
        for row in judge(load_series(folder / _AGAIN), only=suspects)
        if row.what == "ratio"
    }
    for index, row in enumerate(rows):
        if row.what != "ratio" or row.name not in suspects:
            continue
        if row.name not in second:
            raise ResultsError(f"{folder / _AGAIN}: {row.name} was not measured again")
        rows[index] = second[row.name]
        if second[row.name].verdict is not Verdict.SLOWER:
            rows[index].note = f"{100 * row.change:+.1f} % at first"
    order = list(Verdict)
    return sorted(rows, key=lambda row: order.index(row.verdict))


@contextlib.contextmanager
def both_trees(root, base_ref, head_ref):
    """Both sides in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="hookbench-bench-") as text:
        folder = Path(text)
        commit = base_commit(root, base_ref, head_ref or "HEAD")
        if head_ref:
            head = unpack_commit(root, head_ref, folder / HEAD)
        else:
            head = copy_working_tree(root, folder / HEAD)
        base = unpack_commit(root, commit, folder / BASE)
        share_benchmarks(head, base)
        yield base, head


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.compare", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--base", metavar="REF", help="compare with where this parted from the head (main)"
    )
    parser.add_argument("--head", metavar="REF", help="a commit in place of the working tree")
    parser.add_argument(
        "--rounds", type=int, default=LEAST_ROUNDS, help="runs of each side (%(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="the long benchmarks as well")
    parser.add_argument("-k", default="", metavar="WORDS", help="some benchmarks, as for pytest")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="in place of results/bench/")
    parser.add_argument(
        "--stored", type=Path, metavar="FOLDER", help="judge stored runs again, run nothing"
    )
    return parser


def _tell(line):
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _run(options, root):
    if options.stored is not None:
        return _stored(options.stored), options.stored
    check_rounds(options.rounds)
    out = options.out or root / "results" / "bench" / _label()
    for path in (out, out.with_name(f"{out.name}.partial")):
        if path.exists():
            raise SettingError(f"--out {path}: it is there already: name another folder")
    with both_trees(root, options.base, options.head) as (base, head):
        _tell(f"head {head.label} beside base {base.label}; runs are kept in {out}")
        selection = Selection(words=options.k, long=options.all)
        partial = out.with_name(f"{out.name}.partial")
        found = compare(base, head, partial, selection, options.rounds, tell=_tell)
        partial.rename(out)
        return found, out


def _stored(folder):
    path = folder / "comparison.json"
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Comparison)
    except (OSError, msgspec.MsgspecError) as error:
        raise ResultsError(f"{path}: no stored comparison: {error}") from error
    return msgspec.structs.replace(known, rows=judge_folder(folder))


def _label():
    return utc_now_label(SystemClock().wall_ns()).replace(":", "")


def main(arguments=None, *, root=ROOT, environment=os.environ):
    """The program; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        found, folder = _run(options, root)
    except HookbenchError as error:
        _tell(f"error: {error}")
        return TROUBLE
    text = markdown(found)
    (folder / "summary.md").write_text(text)
    sys.stdout.write(text)
    summary = environment.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a") as file:
            file.write(text)
    _tell(conclusion(found.rows))
    return REGRESSION if worse(found.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
