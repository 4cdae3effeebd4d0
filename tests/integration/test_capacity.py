"""The search for a capacity whose truth is known: a task of 20 ms at a time is 50 a second."""

import signal
import subprocess
import time

import msgspec

from hookbench.rehearsal.capacity import CapacityAnswer
from tests.integration.conftest import COMMAND, processes_of

SLOW = ["--concurrency=1", "--service-ms=20", "--arrivals=constant", "--seconds=2", "--warm-up=0.5"]


def capacity(out, *arguments):
    return subprocess.run(
        [*COMMAND, "capacity", f"--out={out}", "--least-speed=0", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )


def test_the_truth_is_in_the_interval(tmp_path):
    found = capacity(
        tmp_path, "--queue=jetstream", *SLOW, "--slo=p99<1s,backlog=flat", "--rate=30", "--width=1"
    )
    assert found.returncode == 0, found.stderr
    answer = msgspec.json.decode(
        (tmp_path / "jetstream-lazy-guide.json").read_bytes(), type=CapacityAnswer
    )
    assert (answer.capacity.low_per_s, answer.capacity.high_per_s) == (30, 60)
    assert "jetstream-lazy-guide: 30 to 60 tasks/s (100.0% wide)" in found.stdout
    assert "the backlog grows by" in answer.limit
    assert found.stderr.count("sustained") >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["jetstream-lazy-guide.json"]


def test_what_cannot_be_searched_is_refused(tmp_path):
    for arguments, told in (
        (["--queue=kafka"], "queue 'kafka': use redis_list, redis_stream, jetstream, null"),
        (["--queue=null", "--slo=fast"], "objective 'fast': use terms such as"),
        (["--queue=jetstream", "--warm-up=9"], "warm-up of 9 s in trials of 8 s: use less"),
        (["--queue=jetstream", "--rate=0"], "rate of 0.0 tasks/s"),
        (["--queue=null", "--slo=p99.9<1s"], "only p50 and p99 are measured"),
        (["--queue=null", "--least-speed=1"], "least speed 1: use more than 0 and less than 1"),
    ):
        found = capacity(tmp_path, *arguments)
        assert (found.returncode, found.stdout) == (2, "")
        assert told in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_search_leaves_no_process_and_no_file(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "capacity", "--queue=redis_list", "--seconds=30", f"--out={tmp_path}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not processes_of(tmp_path) or len(processes_of(tmp_path)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _output, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; there is no answer" in told
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
