"""Plans of a matrix: cells, order, what is refused, and what makes two of them different."""

import itertools

import msgspec
import pytest

from hookbench.brokers.durability import Durability
from hookbench.errors import ResultsError, SettingError
from hookbench.faults.process import Kill
from hookbench.migration.phases import Phase
from hookbench.queues.redis_kind import RedisKind
from hookbench.rehearsal.matrix_plan import (
    MatrixPlan,
    cell_settings,
    cells_of,
    load_stored_plan,
    new_stored_plan,
    plan_differences,
    save_stored_plan,
    with_more_repeats,
)
from hookbench.scenarios.matrix_file import change_plan, load_plan

SMALL = MatrixPlan(
    queues=("redis_list", "redis_stream"),
    phases=("dual_read",),
    durability=(Durability.LAZY, Durability.FSYNC),
    payload=(64, 4096),
    kinds=("throughput", "latency"),
    repeats=3,
)


def test_every_combination_is_a_cell_and_every_repeat_of_it_a_trial():
    cells, left_out = cells_of(SMALL)
    assert left_out == []
    assert {(item.route, str(item.durability), item.payload) for item in cells} == set(
        itertools.product(
            ("redis_list", "redis_stream", "dual_read"), ("lazy", "fsync"), ("64", "4096")
        )
    )
    stored = new_stored_plan(SMALL)
    wanted = set(itertools.product(cells, ("throughput", "latency"), (1, 2, 3)))
    assert len(stored.trials) == len(wanted)
    assert {(item.cell, item.kind, item.repeat) for item in stored.trials} == wanted


def test_the_order_is_random_and_follows_from_the_seed():
    first, again = new_stored_plan(SMALL), new_stored_plan(SMALL)
    other = new_stored_plan(msgspec.structs.replace(SMALL, seed=8))
    assert first.trials == again.trials
    assert first.trials != other.trials
    assert set(first.trials) == set(other.trials)
    cells = [item.cell for item in first.trials]
    sides = sum(one == two for one, two in itertools.pairwise(cells))
    assert sides < len(cells) / 3, "repeats of a cell are not made one after the other"


def test_a_phase_that_has_a_queue_alone_is_that_queue_and_said_to_be_left_out():
    cells, left_out = cells_of(
        msgspec.structs.replace(SMALL, phases=("redis_only", "dual_read", "nats_only"))
    )
    routes = list(dict.fromkeys(item.route for item in cells))
    assert routes == ["redis_list", "redis_stream", "dual_read", "jetstream"]
    assert left_out == [
        "phase redis_only: it is the queue redis_list alone, which is there",
        "phase nats_only: it is the queue jetstream alone, and called so",
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"queues": ("kafka",)}, "queue 'kafka': use redis_list, redis_stream, jetstream"),
        ({"queues": ("null",)}, "queue 'null': .* hookbench ceiling"),
        ({"queues": (), "phases": ()}, "neither queues nor phases"),
        ({"phases": ("triple_write",)}, "phase 'triple_write': use one of"),
        ({"queues": ("jetstream", "jetstream")}, "queues has jetstream twice"),
        ({"phases": ("dual_read", "2")}, "phases has dual_read twice"),
        ({"payload": (64, 64)}, "payload has 64 twice"),
        ({"durability": ()}, "no durability"),
        ({"kinds": ()}, "no kinds"),
        ({"repeats": 0}, "repeats 0: use between 1 and 1000"),
        ({"repeats": 1000}, "matrix of 24,000 trials: at most 10,000"),
        ({"seconds": 2.0}, "warm-up of 2 s in trials of 2 s: use less"),
        ({"payload": ("large",)}, "payload"),
        ({"rate_per_s": 0.0}, "rate of 0.0 tasks/s"),
        ({"callers": 0}, "0 callers"),
        ({"most_others_cores": -1.0}, "most_others_cores -1: use 0 or more"),
        ({"most_others_cores": float("nan")}, "most_others_cores nan: use 0 or more"),
        ({"kills": 0}, "kills 0: use between 1 and 10"),
        ({"kills": 11}, "kills 11: use between 1 and 10"),
        ({"arrivals": "sometimes"}, "arrivals"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(changes, told):
    with pytest.raises(SettingError, match=told):
        new_stored_plan(msgspec.structs.replace(SMALL, **changes))


def test_a_cell_is_a_rehearsal_of_one_phase():
    plan = msgspec.structs.replace(SMALL, durability=(Durability.REPLICATED,), payload=(64,))
    found = {
        (item.cell.route, item.kind, item.repeat): cell_settings(plan, item, out=None)
        for item in new_stored_plan(plan).trials
    }
    stream = found["redis_stream", "throughput", 2]
    assert (stream.phases, stream.redis_kind) == ((Phase.REDIS_ONLY,), RedisKind.STREAM)
    assert (stream.loop, stream.callers, stream.seed) == ("windowed", 100, 8)
    assert (stream.topology, stream.service_ms) == ("replicated", 0.0)
    both = found["dual_read", "latency", 1]
    assert (both.phases, both.redis_kind) == ((Phase.DUAL_READ,), RedisKind.LIST)
    assert (both.loop, both.arrivals, both.rate_per_s, both.seed) == ("open", "poisson", 500.0, 7)
    seeds = {repeat: settings.seed for (_route, _kind, repeat), settings in found.items()}
    assert seeds == {1: 7, 2: 8, 3: 9}, "all cells get the same load in the same repeat"


def test_a_trial_of_redelivery_kills_a_worker_between_the_warm_up_and_the_end():
    plan = msgspec.structs.replace(SMALL, kinds=("latency", "redelivery"), kills=3, repeats=1)
    by_kind = {
        item.kind: cell_settings(plan, item, out=None) for item in new_stored_plan(plan).trials
    }
    killed = by_kind["redelivery"]
    assert [(type(fault), fault.target) for fault in killed.faults] == [(Kill, "worker-0")] * 3
    assert [fault.at_s for fault in killed.faults] == [3.0, 5.0, 7.0]
    assert (killed.loop, killed.rate_per_s, killed.service_ms) == ("open", 500.0, 20.0)
    assert (by_kind["latency"].faults, by_kind["latency"].service_ms) == ((), 0.0)
    assert killed.synthetic_repositories > 100 * by_kind["latency"].synthetic_repositories
    killed.check()


def test_a_plan_of_before_there_were_trials_of_redelivery_is_read(tmp_path):
    save_stored_plan(tmp_path, new_stored_plan(SMALL))
    path = tmp_path / "plan.json"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"kill' not in line and "most_others" not in line]
    assert len(kept) == len(lines) - 3
    path.write_text("".join(kept))
    assert load_stored_plan(tmp_path).plan == SMALL


def test_more_repeats_come_behind_what_a_plan_has():
    stored = new_stored_plan(SMALL)
    more = with_more_repeats(stored, 5)
    assert more.trials[: len(stored.trials)] == stored.trials, "places in the book stay"
    added = more.trials[len(stored.trials) :]
    assert {item.repeat for item in added} == {4, 5}
    assert set(more.trials) == set(new_stored_plan(more.plan).trials)
    assert more.plan == msgspec.structs.replace(SMALL, repeats=5)
    assert with_more_repeats(stored, 5) == more
    assert sorted(added, key=str) != list(added), "in random order"
    with pytest.raises(SettingError, match="repeats 1001: use between 1 and 1000"):
        with_more_repeats(stored, 1001)


def test_differences_are_named_key_by_key():
    assert plan_differences(SMALL, SMALL) == []
    other = msgspec.structs.replace(SMALL, repeats=5, phases=("dual_read", "dual_write"))
    assert plan_differences(SMALL, other) == [
        "phases [dual_read], not [dual_read, dual_write]",
        "repeats 3, not 5",
    ]


def test_a_stored_plan_is_read_as_it_was_written(tmp_path):
    assert load_stored_plan(tmp_path) is None
    stored = new_stored_plan(SMALL)
    save_stored_plan(tmp_path, stored)
    assert load_stored_plan(tmp_path) == stored
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ResultsError, match="schema 2, this version reads up to 1"):
        load_stored_plan(tmp_path)
    path.write_text("{")
    with pytest.raises(ResultsError, match=r"plan\.json: damaged"):
        load_stored_plan(tmp_path)


def test_a_file_has_keys_of_its_own_and_defaults_for_the_rest(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        'queues = []\nphases = ["1", "dual-read"]\npayload = ["64", 128]\nseconds = 4\n'
    )
    plan = load_plan(path)
    assert (plan.queues, plan.phases) == ((), ("dual_write", "dual_read"))
    assert (plan.payload, plan.seconds) == ((64, 128), 4.0)
    assert plan.repeats == MatrixPlan().repeats
    assert change_plan(plan, {"payload": ["64", "128"], "phases": ["1", "2"]}, "-") == plan


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("repeat = 3", r"unknown key 'repeat' \(did you mean 'repeats'\?\); known are queues"),
        ('repeats = "three"', "repeats 'three': Expected `int`"),
        ('durability = ["lax"]', "durability.*lax"),
        ('kinds = ["speed"]', "kinds .*speed"),
        ("queues = ", "plan .*toml"),
    ],
)
def test_a_wrong_file_is_told_by_key_and_value(tmp_path, text, told):
    path = tmp_path / "plan.toml"
    path.write_text(text + "\n")
    with pytest.raises(SettingError, match=told):
        load_plan(path)
    with pytest.raises(SettingError, match="No such file"):
        load_plan(tmp_path / "other.toml")
