"""Traces: read, written, and made of what git knows."""

import itertools
import json
import random
import subprocess
import sys

import pytest

from hookbench.errors import TraceError
from hookbench.load import traces
from hookbench.load.arrivals import parse_arrivals
from hookbench.load.traces import read_trace, trace_of, trace_of_git, write_trace
from tests.unit.test_load import SECOND


@pytest.fixture
def csv_of(tmp_path):
    def write(text, name="trace.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "offsets_s", "repositories"),
    [
        ("1.5\n2\n4.25\n", [0, 0.5, 2.75], []),
        ("time_s\n1\n2\n", [0, 1], []),
        ("when\n7\n5\n\n6\n", [0, 1, 2], []),
        ("repository,time_s\na,10\nb,9\n", [0, 1], ["b", "a"]),
        ("time_s,what,repository\n1,x,b\n1,y,a\n", [0, 0], ["b", "a"]),
        ("2026-01-31T08:00:00Z\n2026-01-31T09:00:01+01:00\n", [0, 1], []),
        ("2026-01-31 08:00:00\n2026-01-31 08:00:00.250\n", [0, 0.25], []),
    ],
)
def test_a_csv_of_times_is_read(csv_of, text, offsets_s, repositories):
    trace = read_trace(csv_of(text))
    assert list(trace.offsets_ns) == [int(at * SECOND) for at in offsets_s]
    assert list(trace.repositories) == repositories
    faster = read_trace(csv_of(text), speed=2.0)
    assert faster.seconds == pytest.approx(trace.seconds / 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no times"),
        ("time_s\n", "it has no times"),
        ("1\nsoon\n", "line 2: time 'soon': use seconds, or ISO 8601"),
        ("1\nnan\n", "line 2: time 'nan'"),
        ("1\n1e400\n", "line 2: time '1e400'"),
        ("time_s,repository\n1\n", "line 2: 1 columns are too few"),
        ("time_s,repository\n1,a/b\n", "repository 'a/b': use 1 to 100 characters"),
        ("time_s,repository\n1,\n", "repository ''"),
        ("0\n1e12\n", "use a higher speed"),
        (b"\xff\xfe1\n", "codec can't decode"),
    ],
)
def test_what_is_no_trace_is_named(csv_of, text, told):
    with pytest.raises(TraceError, match=told):
        read_trace(csv_of(text))


def test_what_cannot_be_read_or_written_is_named(tmp_path, monkeypatch, csv_of):
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "none.csv")
    path = csv_of("1\n2\n")
    with pytest.raises(TraceError, match="is there already"):
        write_trace(path, read_trace(path))
    assert path.read_text() == "1\n2\n"
    with pytest.raises(TraceError, match="No such file"):
        write_trace(tmp_path / "none" / "t.csv", read_trace(path))
    for speed in (0, -1, float("nan")):
        with pytest.raises(TraceError, match="speed"):
            trace_of([1.0], speed=speed)
    monkeypatch.setattr(traces, "MAX_ROWS", 1)
    with pytest.raises(TraceError, match="line 2: more than 1 times"):
        read_trace(path)


def test_what_is_written_is_read(tmp_path):
    rng = random.Random(2)
    times = [rng.uniform(1e9, 1e9 + 1000) for _ in range(2000)]
    trace = trace_of(times, [f"repo {number % 7}, 1" for number in range(2000)])
    write_trace(tmp_path / "t.csv", trace)
    assert read_trace(tmp_path / "t.csv") == trace


def test_a_trace_is_replayed_and_dealt_out(csv_of):
    path = csv_of("time_s,repository\n0,a\n1,b\n2,c\n3,d\n4,e\n")
    arrivals = parse_arrivals(f"trace:{path}")
    assert parse_arrivals(arrivals.text).text == arrivals.text

    def part(number, parts):
        return list(arrivals.offsets(99.0, random.Random(1), part=number, parts=parts))

    assert part(0, 1) == [at * SECOND for at in range(5)]
    assert part(0, 2) == [0, 2 * SECOND, 4 * SECOND]
    assert part(1, 2) == [SECOND, 3 * SECOND]
    assert [arrivals.count(99.0, 3.5, part=number, parts=2) for number in (0, 1)] == [2, 2]
    assert arrivals.count(99.0, 0.0) == 0
    assert [arrivals.total(part=number, parts=2) for number in (0, 1)] == [3, 2]
    assert parse_arrivals("poisson").total() is None
    assert list(arrivals.repositories) == list("abcde")


def git(folder, *arguments, at="1700000000"):
    stamp = f"{at} +0000"
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "GIT_COMMITTER_DATE": stamp}
        | {"GIT_AUTHOR_DATE": "1000000000 +0000", "HOME": str(folder)},
    )


def test_the_commits_of_repositories_are_a_trace(tmp_path):
    for name, times in (("one", (1_700_000_000, 1_700_000_600)), ("two", (1_700_000_300,))):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init")
        for at in times:
            git(tmp_path / name, "commit", "--allow-empty", "-m", "x", at=str(at))
    git(tmp_path / "one", "checkout", "-b", "other", "HEAD~1")
    git(tmp_path / "one", "commit", "--allow-empty", "-m", "y", at="1700001200")
    trace = trace_of_git([tmp_path / "one", tmp_path / "two"], speed=100.0)
    assert [at / SECOND for at in trace.offsets_ns] == [0, 3, 6, 12]
    assert list(trace.repositories) == ["one", "two", "one", "one"]


def test_what_is_no_repository_with_commits_is_named(tmp_path, monkeypatch):
    with pytest.raises(TraceError, match="not a git repository"):
        trace_of_git([tmp_path])
    git(tmp_path, "init")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook: it is not what was asked for
    with pytest.raises(TraceError, match="has no commits"):
        trace_of_git([tmp_path])
    with pytest.raises(TraceError, match="cannot change to"):
        trace_of_git([tmp_path / "none"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TraceError, match="git is not installed"):
        trace_of_git([tmp_path])


def test_a_large_trace_is_counted_without_a_walk(csv_of):
    path = csv_of("\n".join(map(str, range(200_000))))
    trace = read_trace(path)
    assert trace.within(100_000.0) == 100_000
    assert trace.within(1e9) == 200_000
    assert all(b - a == SECOND for a, b in itertools.pairwise(trace.offsets_ns[:100]))


def hookbench(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "hookbench", "trace", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


def test_the_command_line_makes_shows_and_refuses(tmp_path):
    git(tmp_path, "init")
    for at in (0, 5, 5, 6):
        git(tmp_path, "commit", "--allow-empty", "-m", "x", at=str(1_700_000_000 + 1000 * at))
    made = hookbench("from-git", ".", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert (
        "4 arrivals of 1 repository in 6.0 s: 0.67 per second, 2 in the busiest one" in made.stdout
    )
    assert "--arrivals trace:trace.csv --count 4" in made.stdout
    again = hookbench("from-git", ".", folder=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "trace.csv is there already" in again.stderr
    made = hookbench("from-csv", "trace.csv", "--speed=2", "--out=f.csv", "--json", folder=tmp_path)
    assert json.loads(made.stdout)["seconds"] == 3.0
    shown = hookbench("show", "f.csv", folder=tmp_path)
    assert "4 arrivals of 1 repository in 3.0 s" in shown.stdout
    refused = hookbench("show", "none.csv", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("hookbench: trace none.csv: ")
