"""Rehearsals under other loads than the default one, each with its account and its label."""

import csv
from collections import Counter

import numpy as np
import pytest

from hookbench.ledger.events import Event, repository_number
from hookbench.ledger.read import read_ledger
from tests.integration.conftest import stored

ONE = {"phases": '"nats_only"', "seconds": 2.0}


def offered(folder):
    """Intended times from the first on, s, in order, and repositories with their counts."""
    ledger = read_ledger(folder / "latest" / "ledger")
    rows = ledger.records[ledger.records["event"] == Event.PUT_INVOKED]
    pushed = [repository_number(f"team/project-{number}.git") for number in range(3)]
    rows = rows[~np.isin(rows["repository"], pushed)]
    times = sorted(int(at) for at in rows["value"])
    return [(at - times[0]) / 1e9 for at in times], Counter(rows["repository"].tolist())


def test_callers_that_wait_are_labelled_as_such(rehearse, tmp_path):
    done = rehearse([], "--set=producers.loop=closed", "--set=producers.callers=8", **ONE)
    assert done.returncode == 0, done.stderr
    manifest = stored(tmp_path)
    account = manifest.account
    assert account.accepted == account.done > 100
    assert manifest.lag is None
    assert "a closed loop; latency counts from the moment of sending" in done.stdout
    assert "schedule lag" not in done.stdout


def test_a_trace_is_replayed_by_two_producers_with_its_repositories(rehearse, tmp_path):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_s", "repository"])
        for number in range(300):
            writer.writerow([10 * (number // 100) / 20, "busy" if number % 3 else f"r{number}"])
    trace = f"--set=producers.arrivals=trace:{tmp_path / 't.csv'}"
    done = rehearse([], trace, "--set=tasks.idempotent=0", "--set=tasks.transactional=0", **ONE)
    assert done.returncode == 0, done.stderr
    times, repositories = offered(tmp_path)
    assert Counter(round(at, 3) for at in times) == {0.0: 100, 0.5: 100, 1.0: 100}
    assert repositories.most_common(1)[0][1] == 200
    assert stored(tmp_path).account.accepted >= 300


def test_bursts_of_uneven_tasks_over_skewed_repositories(rehearse, tmp_path):
    done = rehearse(
        [],
        "--set=producers.arrivals=bursts:size=10+steps:1/2,each=1",
        "--set=producers.payload=uniform:min=10,max=2000",
        "--set=producers.skew=1.2",
        "--set=tasks.idempotent=0",
        "--set=tasks.transactional=0",
        **ONE,
    )
    assert done.returncode == 0, done.stderr
    times, repositories = offered(tmp_path)
    assert len(times) == 900  # 300 a second, then 600
    assert all(count % 10 == 0 for count in Counter(times).values())
    assert repositories.most_common(1)[0][1] > 3 * 900 / 100
    account = stored(tmp_path).account
    assert account.accepted == account.done


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("producers.arrivals=trace:none.csv", "trace none.csv: "),
        ("producers.loop=half", "loop 'half': use open, closed, windowed"),
        ("producers.callers=1", "1 callers"),
        ("producers.payload=huge", "payload 'huge'"),
        ("producers.repositories=0", "0 repositories"),
        ("bounds.max_lag_ms=0", "max lag ms 0"),
        ("producers.rate_per_s=0.1", "less than a task for each producer within 2 s"),
    ],
)
def test_a_load_that_cannot_be_made_is_refused_before_anything_starts(rehearse, change, told):
    closed = ["--set=producers.loop=closed"] if "callers" in change else []
    done = rehearse([], *closed, f"--set={change}", **ONE)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_latencies_beyond_the_stated_lag_are_not_valid(rehearse):
    done = rehearse([], "--set=bounds.max_lag_ms=0.01", **ONE)
    assert done.returncode == 0, done.stderr
    assert "p99 above 0.01 ms: latencies are NOT valid" in done.stdout
