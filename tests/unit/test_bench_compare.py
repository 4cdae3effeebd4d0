"""The comparison of benchmarks, on runs that are made by hand."""

import json
import random
import subprocess

import pytest

from hookbench.errors import ResultsError, SettingError
from tests.bench.compare import AGAIN_TIMES, Comparison, Selection, check_rounds, judge_folder, main
from tests.bench.judge import ALPHA, Verdict, judge, suspected, worse
from tests.bench.measured import BASE, HEAD, SIDES, load_series
from tests.bench.table import conclusion, markdown
from tests.bench.trees import Tree, base_commit, copy_working_tree, share_benchmarks, unpack_commit

CODEC = "tests/bench/test_codec.py::test_encode_task"
TRIP = "tests/bench/test_round_trips.py::test_round_trip[redis_list]"
COUNTS = "tests/bench/test_round_trips.py::test_counts[redis_list]"
ROUNDS = 5
TURNS = 30
GUIDE = {"redis_turns": 4.0, "redis_commands": 9.0, "wire_bytes": 1791.0}


class Runs:
    """Files of both sides, as pytest-benchmark writes them."""

    def __init__(self, folder, seed=7):
        self.folder = folder
        self._rng = random.Random(seed)

    def timed(self, name, *, ratio, noise, slowed=1.0, least_effect=0.1):
        """One run of a benchmark; ``noise`` is of the whole run, its rounds have as much again."""
        here = slowed * ratio * self._rng.lognormvariate(0, noise)
        yardstick = [self._rng.lognormvariate(-7, 0.3) for _ in range(TURNS)]
        data = [here * other * self._rng.lognormvariate(0, noise) for other in yardstick]
        extra = {"yardstick_s": yardstick, "least_effect": least_effect}
        return {"fullname": name, "stats": {"data": data, "min": 0.1}, "extra_info": extra}

    @staticmethod
    def counted(name, counts):
        return {"fullname": name, "stats": {"data": [0.5]}, "extra_info": {"counts": counts}}

    def write(self, series, side, number, benchmarks, failed=()):
        folder = self.folder / series
        folder.mkdir(parents=True, exist_ok=True)
        found = {
            "machine_info": {"hookbench": "/somewhere/hookbench", "node": "n"},
            "benchmarks": benchmarks,
            "failed": list(failed),
        }
        (folder / f"{side}-{number:02}.json").write_text(json.dumps(found))

    def series(
        self, series, *, slowed=1.0, noise=0.03, base_counts=GUIDE, head_counts=GUIDE, rounds=ROUNDS
    ):
        for number in range(1, rounds + 1):
            for side, factor, counts in ((BASE, 1, base_counts), (HEAD, slowed, head_counts)):
                benchmarks = [
                    self.timed(CODEC, ratio=0.46, noise=noise, slowed=factor),
                    self.timed(TRIP, ratio=2.5, noise=0.15, least_effect=0.25),
                    self.counted(COUNTS, counts),
                ]
                self.write(series, side, number, benchmarks)
        return load_series(self.folder / series)


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def verdicts(rows):
    return {(row.name, row.what): row.verdict for row in rows}


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.06])
def test_slower_by_a_fifth_is_found_and_named(runs, noise):
    rows = judge(runs.series("first", slowed=1.2, noise=noise))
    assert [(row.name, row.what) for row in worse(rows)] == [(CODEC, "ratio")]
    assert rows[0].verdict is Verdict.SLOWER
    assert 0.1 < rows[0].change < 0.35
    assert rows[0].p <= ALPHA
    assert verdicts(rows)[TRIP, "ratio"] is Verdict.SAME


@pytest.mark.parametrize("slowed", [1.0, 1.03, 0.97])
def test_what_hardly_changed_is_the_same(runs, slowed):
    rows = judge(runs.series("first", slowed=slowed, noise=0.01))
    assert set(verdicts(rows).values()) == {Verdict.SAME}


def test_faster_is_told_and_no_regression(runs):
    rows = judge(runs.series("first", slowed=0.8))
    assert verdicts(rows)[CODEC, "ratio"] is Verdict.FASTER
    assert worse(rows) == []


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.2, 0.4])
def test_ten_comparisons_of_the_same_are_false_alarms_once_at_most(tmp_path, noise):
    """Ten benchmarks in each, with the second series that a suspicion has."""
    alarms = 0
    for comparison in range(10):
        runs = Runs(tmp_path / str(comparison), seed=comparison)
        rows = {}
        for series, rounds in (("first", ROUNDS), ("again", AGAIN_TIMES * ROUNDS)):
            for side in SIDES:
                for number in range(1, rounds + 1):
                    benchmarks = [
                        runs.timed(f"{CODEC}[{each}]", ratio=1, noise=noise) for each in range(10)
                    ]
                    runs.write(series, side, number, benchmarks)
        rows = judge_folder(runs.folder)
        alarms += bool(worse(rows))
    assert alarms <= 1


def test_the_second_series_decides(runs):
    runs.series("first", slowed=1.3)
    runs.series("again", slowed=1.0)
    rows = judge_folder(runs.folder)
    assert worse(rows) == []
    (row,) = [row for row in rows if row.name == CODEC]
    assert row.verdict is Verdict.SAME
    assert row.note.endswith(" % at first")
    runs.series("again", slowed=1.3)
    assert [row.name for row in worse(judge_folder(runs.folder))] == [CODEC]


def test_slow_processes_of_the_base_do_not_hide_a_change(runs):
    """Where its memory lies makes one in ten processes slower for all its life."""
    for series, rounds, slow in (("first", ROUNDS, {2}), ("again", AGAIN_TIMES * ROUNDS, {1})):
        for number in range(1, rounds + 1):
            base = runs.timed(CODEC, ratio=1.0 + 0.4 * (number in slow), noise=0.02)
            runs.write(series, BASE, number, [base])
            runs.write(series, HEAD, number, [runs.timed(CODEC, ratio=1.2, noise=0.02)])
    first = judge(load_series(runs.folder / "first"))
    assert worse(first) == []
    assert suspected(first) == [CODEC]
    (row,) = judge_folder(runs.folder)
    assert row.verdict is Verdict.SLOWER


def test_a_suspicion_that_was_not_looked_into_is_an_error(runs):
    runs.series("first", slowed=1.3)
    with pytest.raises(ResultsError, match="again: 0 runs of the base and 0 of the head"):
        judge_folder(runs.folder)


@pytest.mark.parametrize("what", GUIDE)
def test_one_more_count_is_found(runs, what):
    more = {**GUIDE, what: GUIDE[what] + 1}
    (row,) = worse(judge(runs.series("first", head_counts=more)))
    assert (row.name, row.what, row.verdict) == (COUNTS, what, Verdict.MORE)
    assert (row.base, row.head, row.change) == (GUIDE[what], GUIDE[what] + 1, 1)


def test_fewer_is_told_and_no_regression(runs):
    rows = judge(runs.series("first", head_counts={**GUIDE, "redis_turns": 3.0}))
    assert verdicts(rows)[COUNTS, "redis_turns"] is Verdict.FEWER
    assert worse(rows) == []


def test_a_turn_that_the_machine_added_to_one_run_is_noted_and_no_regression(runs):
    runs.series("first")
    slow = runs.counted(COUNTS, {**GUIDE, "redis_turns": 4.02})
    runs.write("first", HEAD, 3, [slow])
    rows = judge(load_series(runs.folder / "first"), only=[COUNTS])
    (row,) = [row for row in rows if row.what == "redis_turns"]
    assert (row.verdict, row.note) == (Verdict.SAME, "not the same in all runs of the head")


def test_a_count_that_one_side_has_is_told(runs):
    rows = judge(runs.series("first", head_counts={**GUIDE, "redis_scripts": 1.0}))
    assert verdicts(rows)[COUNTS, "redis_scripts"] is Verdict.ONLY_HEAD
    assert worse(rows) == []


def test_benchmarks_that_one_side_has_are_told(runs):
    for number in range(1, ROUNDS + 1):
        both = runs.timed(CODEC, ratio=1, noise=0.01)
        runs.write("first", BASE, number, [both, runs.timed("old", ratio=1, noise=0.01)], ["new"])
        runs.write("first", HEAD, number, [both, runs.timed("new", ratio=1, noise=0.01)])
    rows = judge(load_series(runs.folder / "first"))
    assert verdicts(rows) == {
        ("new", ""): Verdict.ONLY_HEAD, ("old", ""): Verdict.ONLY_BASE, (CODEC, "ratio"): "same",
    }  # fmt: skip
    assert rows[0].note == "fails on the base"


def test_a_benchmark_without_yardstick_is_not_judged(runs):
    for number in range(1, ROUNDS + 1):
        for side, seconds in ((BASE, 1.0), (HEAD, 9.0)):
            alone = {"fullname": CODEC, "stats": {"data": [seconds]}, "extra_info": {}}
            runs.write("first", side, number, [alone])
    (row,) = judge(load_series(runs.folder / "first"))
    assert (row.verdict, row.note) == (Verdict.NOT_JUDGED, "it has no yardstick")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[: len(text) // 2], "no run of these benchmarks"),
        (lambda _text: "", "no run of these benchmarks"),
        (lambda text: text.replace('"machine_info"', '"info"'), "missing required field"),
        (lambda text: text.replace('"yardstick_s": [', '"yardstick_s": [0.5, '), "as many"),
        (lambda text: text.replace('"yardstick_s": [', '"yardstick_s": ["x", '), "Expected"),
        (lambda text: text.replace('"data": [', '"data": [0, '), "as many"),
    ],
)
def test_a_damaged_file_is_named(runs, capsys, damage, told):
    runs.series("first")
    store(runs)
    path = runs.folder / "first" / "head-03.json"
    path.write_text(damage(path.read_text()))
    assert main(["--stored", str(runs.folder)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert told in error


def test_a_missing_run_is_an_error(runs):
    runs.series("first")
    (runs.folder / "first" / "head-05.json").unlink()
    with pytest.raises(ResultsError, match="5 runs of the base and 4 of the head"):
        load_series(runs.folder / "first")


def store(runs):
    stored = {"base": "aaaaaaa", "head": "bbbbbbb+", "rounds": ROUNDS, "rows": []}
    (runs.folder / "comparison.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(("more", "code"), [(0, 0), (1, 1)])
def test_exit_code_and_summary(runs, capsys, tmp_path, more, code):
    runs.series("first", head_counts={**GUIDE, "redis_turns": 4.0 + more})
    store(runs)
    summary = tmp_path / "github.md"
    summary.write_text("before\n")
    environment = {"GITHUB_STEP_SUMMARY": str(summary)}
    assert main(["--stored", str(runs.folder)], environment=environment) == code
    out = capsys.readouterr().out
    assert summary.read_text() == f"before\n{out}"
    assert (runs.folder / "summary.md").read_text() == out
    assert out.startswith("## Benchmarks: bbbbbbb+ beside aaaaaaa\n")
    told = "1 regression: test_round_trips.py::test_counts[redis_list] (redis_turns)."
    assert (told in out) == bool(more)


def test_every_line_of_the_table_has_as_many_cells(runs):
    rows = judge(runs.series("first", slowed=1.2, head_counts={**GUIDE, "wire_bytes": 1800.0}))
    found = Comparison(base="a", head="b", rounds=ROUNDS, rows=rows)
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == len({len(line) for line in lines}) == 1
    assert "2 counts per task are the same as before." in markdown(found)
    assert conclusion(rows).startswith("2 regressions: test_codec.py::test_encode_task (ratio), ")


@pytest.mark.parametrize("rounds", [-1, 0, 4, 50])
def test_rounds_that_can_tell_nothing_are_refused(rounds):
    with pytest.raises(SettingError, match=f"{rounds} rounds: use 5 to 49"):
        check_rounds(rounds)


def test_a_selection():
    assert Selection(long=True).arguments() == ["tests/bench"]
    quick = Selection(words="codec or ledger").arguments()
    assert "--ignore=tests/bench/test_worker.py" in quick
    assert quick[-2:] == ["-k", "(codec or ledger) and not (at and once)"]


class Repository:
    """A repository with a package, its benchmarks, and commits."""

    def __init__(self, folder):
        self.root = folder
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "t@example.com")
        self.git("config", "user.name", "T")

    def git(self, *arguments):
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text):
        for name in ("hookbench/task.py", "tests/bench/test_codec.py", "pyproject.toml"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (self.root / ".gitignore").write_text("*.pyc\n")
        self.git("add", "-A")
        self.git("commit", "-qm", text)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    return Repository(folder)


def test_the_base_of_a_branch_is_where_it_parted(repository):
    parted = repository.commit("one")
    repository.git("switch", "-qc", "work")
    repository.commit("two")
    repository.commit("three")
    repository.git("switch", "-q", "main")
    repository.commit("four")
    repository.git("switch", "-q", "work")
    assert base_commit(repository.root) == parted
    assert base_commit(repository.root, "main") == parted
    assert base_commit(repository.root, "HEAD~1") == repository.git("rev-parse", "HEAD~1")


def test_on_the_main_branch_the_base_is_what_was_before(repository):
    first = repository.commit("one")
    second = repository.commit("two")
    assert base_commit(repository.root) == first
    (repository.root / "hookbench/task.py").write_text("changed\n")
    assert base_commit(repository.root) == second


def test_without_a_commit_before_the_base_has_to_be_named(repository):
    repository.commit("one")
    with pytest.raises(SettingError, match="name a commit with --base"):
        base_commit(repository.root)


@pytest.mark.parametrize("arguments", [["--base", "nowhere"], ["--head", "nowhere"]])
def test_a_ref_that_is_none_is_named(repository, tmp_path, capsys, arguments):
    repository.commit("one")
    repository.commit("two")
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out)], root=repository.root) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_there_is_not_written_over(repository, tmp_path, capsys):
    assert main(["--out", str(tmp_path)], root=repository.root) == 2
    assert "it is there already" in capsys.readouterr().err


def test_both_sides_have_the_benchmarks_of_the_head(repository, tmp_path):
    old = repository.commit("one")
    repository.commit("two")
    root = repository.root
    (root / "hookbench/new.py").write_text("new\n")
    (root / "hookbench/new.pyc").write_text("built\n")
    (root / "tests/bench/test_codec.py").write_text("three\n")
    head = copy_working_tree(root, tmp_path / "head")
    base = unpack_commit(root, old, tmp_path / "base")
    share_benchmarks(head, base)
    assert (head.label[-1], base.label) == ("+", old[: len(base.label)])
    assert (base.folder / "hookbench/task.py").read_text() == "one\n"
    assert (head.folder / "hookbench/task.py").read_text() == "two\n"
    assert not (base.folder / "hookbench/new.py").exists()
    assert (head.folder / "hookbench/new.py").exists()
    assert not (head.folder / "hookbench/new.pyc").exists()
    for tree in (base, head):
        assert isinstance(tree, Tree)
        assert (tree.folder / "tests/bench/test_codec.py").read_text() == "three\n"
        assert (tree.folder / "pyproject.toml").read_text() == "two\n"
