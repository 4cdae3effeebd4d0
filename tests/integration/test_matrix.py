"""A tiny matrix on real brokers: killed and gone on with, interrupted, and refused."""

import json
import signal
import subprocess
import time

import pytest

from tests.integration.conftest import COMMAND, processes_of

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

TINY = [
    "--queues=redis_list,jetstream",
    "--phases=",
    "--durability=memory",
    "--payload=64",
    "--kinds=throughput",
    "--callers=20",
    "--repeats=2",
    "--seconds=1",
    "--warm-up=0.3",
    "--most-others=1000",  # other tests run beside this one
]
DEADLINE_S = 60.0


def matrix(*arguments):
    return subprocess.run(
        [*COMMAND, "matrix", *arguments], capture_output=True, text=True, check=False, timeout=200
    )


def start(*arguments):
    return subprocess.Popen(
        [*COMMAND, "matrix", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def book_of(folder):
    path = folder / "matrix.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def trials_of(folder):
    return [line for line in book_of(folder) if line["type"] == "trial"]


def parts_of(folder):
    """Processes that a trial has started, the command itself left out."""
    return [item for item in processes_of(folder) if "matrix" not in item.info["cmdline"]]


def standing(folder):
    """The last attempt at each trial, by its name."""
    return {name_of(line["trial"]): line for line in trials_of(folder)}


def name_of(trial):
    return (trial["cell"]["route"], trial["cell"]["durability"], trial["kind"], trial["repeat"])


@pytest.mark.timeout(240)
def test_a_killed_matrix_goes_on_to_the_same_set_of_cells(tmp_path):
    out = tmp_path / "out"
    process = start(f"--out={out}", *TINY)
    wait_until(lambda: len(trials_of(out)) == 1 and len(parts_of(out)) >= 4)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    wait_until(lambda: processes_of(out) == [])
    before = trials_of(out)
    assert len(before) == 1
    assert list((out / "runs").glob("*.partial")), "it was killed in the middle of a trial"
    with (out / "matrix.jsonl").open("ab") as file:
        file.write(b'{"type":"trial","index":1,')  # as if killed while it wrote

    for option, told in (
        ("--callers=21", "callers 20, not 21"),
        ("--repeats=1", "repeats 2, not 1"),
    ):
        refused = matrix(f"--out={out}", *TINY, option)
        assert refused.returncode == 2
        assert f"matrix {out}: its plan has {told}: leave the options out" in refused.stderr
    assert trials_of(out) == before

    done = matrix(f"--out={out}")
    assert "goes on after 1" in done.stderr
    assert "0:00 left" in done.stderr
    plan = json.loads((out / "plan.json").read_text())
    planned = [name_of(trial) for trial in plan["trials"]]
    assert len(planned) == len(set(planned)) == 4
    first = [line for line in trials_of(out) if line["attempt"] == 1]
    assert [name_of(line["trial"]) for line in first] == planned, "each once, in the order"
    assert trials_of(out)[0] == before[0], "what was done is not done again"
    assert [line["type"] for line in book_of(out)].count("session") == 2
    for line in trials_of(out):  # on a machine that is too busy a trial may say nothing
        assert line["again"] == (line["verdict"] == "unknown")
        assert line["why"] if line["again"] else line["figures"]["done_per_s"] > 0
    unknown = [name for name, line in standing(out).items() if line["again"]]
    assert done.returncode == (3 if unknown else 0), done.stdout + done.stderr
    assert [path.name for path in out.glob("runs/*.partial")] == []
    for queue in ("redis_list", "jetstream"):
        assert queue in done.stdout
        assert f"| `{queue}`" in (out / "matrix.md").read_text()
    assert processes_of(out) == []

    again = matrix("report", str(out), "--json")
    assert again.returncode == done.returncode
    more = matrix(f"--out={out}", *TINY, "--repeats=3")
    assert "trials in random order: 6; goes on after" in more.stderr
    assert len([line for line in trials_of(out) if line["attempt"] == 1]) == 6
    cells = json.loads(again.stdout)["cells"]
    assert {item["cell"]["route"] for item in cells} == {"redis_list", "jetstream"}
    assert sum(item["kinds"]["throughput"]["known"] for item in cells) == 4 - len(unknown)


def test_an_interrupted_matrix_leaves_no_process_and_can_go_on(tmp_path):
    out = tmp_path / "out"
    process = start(f"--out={out}", *TINY, "--seconds=60")
    wait_until(lambda: len(parts_of(out)) >= 4)
    refused = matrix(f"--out={out}")
    assert refused.returncode == 2
    assert "another hookbench makes its trials now" in refused.stderr
    process.send_signal(signal.SIGINT)
    _out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; 0 trials are in" in told
    assert f"4 are left: hookbench matrix --out {out} goes on" in told
    assert processes_of(out) == []
    assert [path for path in (out / "runs").iterdir() if path.is_dir()] == []
    report = matrix("report", str(out))
    assert report.returncode == 2
    assert "no trial was made yet" in report.stderr


@pytest.mark.timeout(180)
def test_what_a_killed_worker_had_in_hand_is_in_the_table_as_the_account_has_it(tmp_path):
    out = tmp_path / "out"
    done = matrix(
        f"--out={out}", "--queues=redis_list", "--phases=", "--durability=lazy", "--payload=64",
        "--kinds=redelivery", "--repeats=1", "--rate=200", "--seconds=4", "--warm-up=0.5",
        "--most-others=1000",
    )  # fmt: skip
    *_first, line = trials_of(out)
    assert line["verdict"] == "invalid", (line["why"], done.stderr)
    assert (line["hazards"], line["again"]) == (["R3"], False), "stuck tasks are the answer"
    figures = line["figures"]
    assert figures["in_hand"] == figures["stuck"] > 0
    assert (done.returncode, figures["ended"], figures["lost"]) == (1, 0, 0)
    assert f"{figures['in_hand']:.0f} in hand: 0 ended, {figures['stuck']:.0f} stuck" in done.stderr
    assert "in hand at a kill" in (out / "matrix.md").read_text()
    assert processes_of(out) == []


def test_what_is_refused_leaves_nothing(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text("repeat = 3\n")
    out = tmp_path / "out"
    for arguments, told in (
        ([f"--plan={plan}"], "unknown key 'repeat' (did you mean 'repeats'?)"),
        (["--queues=kafka"], "queue 'kafka': use redis_list"),
        (["--seconds=1", "--warm-up=1"], "warm-up of 1 s in trials of 1 s"),
        (["--durability=lax"], "durability"),
        (["--report-only"], "no plan.json"),
        (["--report-only", "--repeats=2"], "--report-only: the plan is that of the folder"),
    ):
        found = matrix(f"--out={out}", *arguments)
        assert (found.returncode, found.stdout) == (2, "")
        assert told in found.stderr
        assert not out.exists()
