"""Effects, judge, table and plot of the peers by hand; no peer is installed."""

import subprocess
import sys

import msgspec
import pytest

from hookbench.errors import ResultsError, SettingError
from tests.bench.peers import __main__ as command
from tests.bench.peers.catalogue import CONTENDERS
from tests.bench.peers.contenders.child import RECORD, Given
from tests.bench.peers.effects import count_effects, read_effects
from tests.bench.peers.environments import (
    NotReadyError,
    Told,
    is_ready,
    make_environment,
    requirements,
)
from tests.bench.peers.judge import (
    Verdict,
    best_peer,
    measured_on_a_crash,
    ratio_to_best,
    spread,
    verdict,
)
from tests.bench.peers.measure import MOST_TASKS, Plan, Report, Row, choose, tasks_for
from tests.bench.peers.plot import finding, plot_peers
from tests.bench.peers.table import markdown, table_of
from tests.bench.peers.trial import ROOT, Crashed, child_environment

TOLD = Told(
    concurrency="100 coroutines",
    settings=[{"text": "batch=100", "why": "one request for many", "page": "https://a.example/b"}],
    promise="none lost",
    promised="acknowledged after the handler",
    promise_page="https://a.example/c",
    redelivery_s=10,
)
CRASHED = Crashed(tasks=1000, at_kill=400, waiting=0, lost=0, repeated=0, recovery_s=11.0)


def named(name):
    (found,) = [item for item in CONTENDERS if item.name == name]
    return found


def row(name, *noop, **fields):
    defaults = {
        "told": {"noop": TOLD, "sleep": TOLD},
        "rates_per_s": {"noop": list(noop), "sleep": [rate / 2 if rate else None for rate in noop]},
        "cpu_us": {"noop": [100.0] * len(noop)},
        "crashed": CRASHED,
    }
    return Row(contender=named(name), **(defaults | fields))


def report(*changed, rounds=3):
    """All contenders with rates that reach every target, but for the rows that are given."""
    rates = {item.name: [1000.0, 1100.0, 1200.0][:rounds] for item in CONTENDERS}
    rates["hookbench guide, jetstream"] = [4000.0] * rounds
    rates["hookbench guide, redis_list"] = [8000.0] * rounds
    rates["hookbench hardened, jetstream"] = [1500.0] * rounds
    rates["hookbench hardened, redis_list"] = [1500.0] * rounds
    rows = {name: row(name, *values) for name, values in rates.items()}
    rows |= {item.contender.name: item for item in changed}
    return Report(
        commit="abc1234", started="2026-01-02T03:04:05Z", plan=Plan(rounds=rounds), cpu="some CPU",
        cpus=2, python="3.11.7", brokers={"nats-server": "nats-server 2.15.1 (wheel)"},
        rows=list(rows.values()),
    )  # fmt: skip


def write(folder, *effects, name="1", room=100):
    folder.mkdir(exist_ok=True)
    data = b"".join(RECORD.pack(*item) for item in effects)
    (folder / name).write_bytes(data.ljust(room * RECORD.size, b"\0"))
    return folder


def test_effects_are_counted_and_timed_after_the_warm_up(tmp_path):
    at = [0, 500, *range(1000, 1019)]
    path = write(tmp_path / "effects", *((n, (t + 1) * 1_000_000) for n, t in enumerate(at)))
    found = read_effects(path, 21)
    assert (found.lost, found.repeated) == (0, 0)
    # 21 effects, two of them warm-up: 18 in the 18 ms from the third to the last.
    assert found.rate_per_s == pytest.approx(1000)
    assert found.last_first_ns == 1_019_000_000


def test_lost_and_repeated_are_told_apart(tmp_path):
    path = write(tmp_path / "effects", (0, 10), (1, 20), (1, 30), (1, 40), (3, 25))
    found = read_effects(path, 5)
    assert (found.lost, found.repeated) == (2, 2)
    assert found.last_first_ns == 25


def test_no_effect_at_all_is_all_lost(tmp_path):
    found = read_effects(write(tmp_path / "effects"), 5)
    assert (found.lost, found.repeated, found.rate_per_s) == (5, 0, None)


def test_effects_of_tasks_that_were_not_put_are_refused(tmp_path):
    folder = write(tmp_path / "effects", (0, 10), (1, 20))
    with pytest.raises(ResultsError, match="effects of 2 tasks, and 1 were put"):
        read_effects(folder, 1)


@pytest.mark.parametrize("there", [0, 1, 2, 99, 100])
def test_effects_are_counted_while_files_fill(tmp_path, there):
    folder = write(tmp_path / "effects", *((n, n + 1) for n in range(there)))
    assert count_effects(folder) == there
    write(folder, (0, 5), (1, 6), name="2")
    assert count_effects(folder) == there + 2
    assert read_effects(folder, 100).repeated == min(there, 2)


def test_a_process_and_its_fork_write_effects_to_files_of_their_own(tmp_path):
    program = (
        "import os\n"
        "from tests.bench.peers.contenders.child import payload_of, do_task_blocking as do\n"
        "do(payload_of(1))\n"
        "pid = os.fork()\n"
        "do(payload_of(2 if pid else 3))\n"
        "os.waitpid(pid, 0) if pid else os._exit(0)\n"
    )
    given = Given(
        url="", effects=str(tmp_path), room=10, sleep_s=0.0, concurrency=1, variant="", folder="."
    )
    environment = child_environment() | given.to_environment()
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert count_effects(tmp_path) == 3
    found = read_effects(tmp_path, 4)
    assert (found.lost, found.repeated) == (1, 0)


def test_what_a_child_is_given_goes_through_its_environment():
    given = Given(
        url="nats://a:1", effects="e", room=9, sleep_s=0.005, concurrency=3, variant="v", folder="f"
    )
    assert Given.from_environment(given.to_environment()) == given


def test_a_row_knows_its_spread_without_the_rounds_that_failed():
    found = spread(row("arq", 100.0, None, 300.0), "noop")
    assert (found.median, found.low, found.high, found.rounds) == (200.0, 100.0, 300.0, 2)
    assert spread(row("arq", None, None), "noop") is None


def test_the_best_peer_is_of_the_same_broker_and_no_reference():
    found = report(row("saq", 2000.0, 2000.0, 2000.0))
    assert best_peer(found.rows, "redis", "noop").contender.name == "saq"
    assert best_peer(found.rows, "nats", "noop").contender.queue == "jetstream"


def test_a_ratio_is_the_median_of_the_rounds_own():
    ours = row("hookbench guide, jetstream", 300.0, 1000.0, None)
    rows = [row("taskiq-nats", 100.0, 1000.0, 10.0), ours]
    assert ratio_to_best(rows, ours, "noop") == pytest.approx(2.0)


def test_every_target_is_reached_or_missed_by_its_own_ratio():
    assert [item.verdict for item in verdict(report())] == [Verdict.REACHED] * 4
    slower = report(row("hookbench guide, redis_list", 6000.0, 6000.0, 6000.0))
    found = {item.target.name: item for item in verdict(slower)}
    missed = found.pop("hookbench guide, redis_list")
    assert missed.verdict is Verdict.MISSED
    assert "5.45 times" in missed.text
    assert {item.verdict for item in found.values()} == {Verdict.REACHED}


@pytest.mark.parametrize(
    "gone",
    [
        row("arq", skipped="arq: ERROR: no such version", rates_per_s={}, told={}),
        row("arq", 1000.0, None, 1000.0),
    ],
    ids=["skipped", "a round failed"],
)
def test_a_peer_that_is_missing_leaves_its_broker_unknown(gone):
    found = {item.target.name: item for item in verdict(report(gone))}
    assert found["hookbench guide, redis_list"].verdict is Verdict.UNKNOWN
    assert "arq" in found["hookbench guide, redis_list"].text
    assert found["hookbench guide, jetstream"].verdict is Verdict.REACHED


@pytest.mark.parametrize(
    ("crashed", "words"),
    [
        (None, "not measured"),
        (CRASHED, "none lost"),
        (msgspec.structs.replace(CRASHED, lost=7, waiting=7), "7 lost"),
        (
            msgspec.structs.replace(CRASHED, waiting=100, repeated=3),
            "none lost, 100 only when new tasks came, 3 repeated",
        ),
        (
            msgspec.structs.replace(CRASHED, lost=9, waiting=9, cut_off=True),
            "9 not back when the time was up",
        ),
    ],
)
def test_a_kill_in_words(crashed, words):
    assert measured_on_a_crash(crashed) == words


def test_the_table_has_everyone_the_fastest_first_and_who_was_skipped():
    skipped = row("arq", skipped="arq: ERROR: no such version", rates_per_s={}, told={})
    found = report(skipped)
    lines = table_of(found, "redis")
    assert lines[2].startswith("| hookbench guide, redis_list")
    assert lines[-1].startswith("| arq ")
    assert "skipped" in lines[-1]
    assert len(set(map(len, lines))) == 1
    assert sum("| best |" in line.replace("  ", "") for line in lines) == 1
    text = markdown(found)
    assert "- skipped: arq: ERROR: no such version" in text
    assert "- `batch=100`: one request for many (<https://a.example/b>)" in text
    assert "- unknown: hookbench guide, redis_list" in text


def test_what_went_wrong_in_a_round_is_in_the_text():
    found = report(row("saq", 1.0, None, 1.0, problems=["round 2, noop: saq: it ended\nwith 1"]))
    assert "- round 2, noop: saq: it ended with 1" in markdown(found)


def test_a_report_is_read_as_it_was_stored(tmp_path, capsys):
    found = report()
    (tmp_path / "peers.json").write_bytes(msgspec.json.encode(found))
    assert command.load_report(tmp_path) == found
    assert command.main(["--stored", str(tmp_path)]) == 0
    assert capsys.readouterr().out == markdown(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stored", "/nowhere"], "/nowhere/peers.json"),
        (["--rounds", "0"], "--rounds 0"),
        (["--seconds", "0"], "--seconds 0"),
        (["--only", "kafka"], "kafka"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert command.main(arguments) == command.TROUBLE
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_contenders_are_chosen_by_parts_of_their_names():
    assert [item.name for item in choose(["taskiq-redis", "arq"])] == [
        "taskiq-redis list", "taskiq-redis stream", "arq",
    ]  # fmt: skip
    assert choose([]) == list(CONTENDERS)
    with pytest.raises(SettingError, match="no contender is called kafka"):
        choose(["arq", "kafka"])


def test_a_backlog_is_as_long_as_the_rate_asks_for_within_bounds():
    assert tasks_for(2_345, 4) == 9_400
    assert tasks_for(1, 4) == 600
    assert tasks_for(1e6, 4) == MOST_TASKS


def test_every_contender_has_a_module_and_pinned_requirements():
    for item in CONTENDERS:
        module = ROOT / "tests" / "bench" / "peers" / "contenders" / f"{item.module}.py"
        assert module.is_file(), item
        if not item.is_reference:
            assert all("==" in line for line in requirements(item.environment)), item
    assert len({item.name for item in CONTENDERS}) == len(CONTENDERS)


def test_an_environment_that_cannot_be_made_tells_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.bench.peers.environments.requirements", lambda _name: ["./no-such-folder"]
    )
    with pytest.raises(NotReadyError, match=r"arq: ERROR: .*no-such-folder") as told:
        make_environment("arq", tmp_path)
    assert "\n" not in str(told.value)
    assert not is_ready("arq", tmp_path)


def test_the_plot_has_a_row_for_everyone_that_ran_and_says_who_lost():
    loses = row("dramatiq", 900.0, 900.0, 900.0, crashed=msgspec.structs.replace(CRASHED, lost=3))
    skipped = row("arq", skipped="no", rates_per_s={}, told={})
    axes = plot_peers(report(loses, skipped))
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert "dramatiq *" in labels
    assert "arq" not in labels
    assert len(labels) == len(CONTENDERS) - 1
    assert "times" in finding(report())
    assert finding(Report(**(msgspec.structs.asdict(report()) | {"rows": []}))) == (
        "Tasks drained per second"
    )
