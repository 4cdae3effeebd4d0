"""Random schedules of faults: what follows from the seed, and what can fire."""

from collections import Counter

import msgspec
import pytest

from hookbench.brokers.topology import TOPOLOGIES
from hookbench.errors import SettingError
from hookbench.faults.process import Kill, Pause
from hookbench.faults.registry import FAULTS, kind_of
from hookbench.faults.wire.rules import LINK_ACTIONS
from hookbench.faults.wire_fault import Wire
from hookbench.migration.phases import Design, Phase
from hookbench.rehearsal.chaos import chaos_schedule
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.scenarios.resolved import scenario_toml
from hookbench.scenarios.schema import load_scenario, to_settings

FRAME_ACTIONS = {"drop", "delay", "duplicate", "reset", "half_open", "trickle", "cut"}
SETTINGS = RehearsalSettings(phase_seconds=5.0)


def with_seed(seed, **changes):
    return msgspec.structs.replace(SETTINGS, seed=seed, **changes)


def test_a_schedule_follows_from_the_seed_alone():
    first, again, other = (chaos_schedule(with_seed(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_kind_can_be_left_out_and_the_rest_stays_as_it_is():
    for seed in range(20):
        all_kinds = chaos_schedule(with_seed(seed))
        without = chaos_schedule(with_seed(seed), without=["power_cut"])
        assert without == tuple(fault for fault in all_kinds if kind_of(fault) != "power_cut")
    assert any(
        kind_of(fault) == "power_cut"
        for seed in range(20)
        for fault in chaos_schedule(with_seed(seed))
    )


def test_of_kinds_that_are_drawn_alone_there_are_many():
    settings = with_seed(3, topology="replicated", phase_seconds=8.0)
    kinds = ("promote", "partition", "step_down")
    all_of_them = Counter(kind_of(fault) for fault in chaos_schedule(settings))
    drawn = Counter(kind_of(fault) for fault in chaos_schedule(settings, only=kinds))
    assert set(drawn) == set(kinds)
    assert all(drawn[kind] > all_of_them[kind] for kind in kinds)
    assert chaos_schedule(settings, only=kinds, without=kinds) == ()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_fault_begins_and_ends_within_the_load(topology):
    kinds = set()
    for seed in range(60):
        settings = with_seed(seed, topology=topology)
        faults = chaos_schedule(settings)
        assert faults
        times = [(fault.phase_index, fault.at_s) for fault in faults]
        assert times == sorted(times)
        for fault in faults:
            begin_s = fault.phase_index * settings.phase_seconds + fault.at_s
            assert fault.at_s < settings.phase_seconds
            assert fault.at_s >= fault.lead_s
            assert 2.0 <= begin_s <= settings.seconds - fault.for_s - 4.0
            if kind_of(fault) == "rolling_restart":  # it lasts as long as it takes
                assert begin_s <= settings.seconds - 6.0 * settings.workers
            kinds.add(kind_of(fault))
    single, several = {"wire", "power_cut"}, {"promote", "step_down", "partition"}
    wanted = {
        "single": single,
        "redis_replica": {"promote", "partition"},
        "nats_cluster": {"step_down", "partition"},
        "replicated": several,
        "redis_cluster": set(),
    }[topology]
    assert kinds == set(FAULTS) - (single | several) | wanted


@pytest.mark.parametrize("design", Design)
def test_no_kind_is_rare_and_the_wire_does_all_that_it_can(design):
    kinds, actions = Counter(), Counter()
    for seed in range(60):
        for fault in chaos_schedule(with_seed(seed, design=design, phase_seconds=8.0)):
            kinds[kind_of(fault)] += 1
            actions[getattr(fault, "action", "-")] += 1
    assert min(kinds.values()) >= 60
    assert set(actions) == {"-", *LINK_ACTIONS, *FRAME_ACTIONS}


def test_with_gates_the_load_lasts_until_the_last_fault_is_over():
    guide, hardened = (with_seed(1, design=design) for design in Design)
    assert (guide.load_until_end, hardened.load_until_end) == (False, True)
    assert hardened.seconds > guide.seconds + 60.0
    hardened.check()
    late = msgspec.structs.replace(
        hardened, faults=(Kill(target="nats", at_s=1.0, for_s=1.0, phase_index=5),)
    )
    with pytest.raises(SettingError, match="phase_index 5: the timeline has the phases 0 to 4"):
        late.check()


def test_a_broker_that_nobody_uses_yet_is_left_alone():
    settings = with_seed(0, phases=(Phase.REDIS_ONLY,), phase_seconds=60.0)
    for seed in range(40):
        for fault in chaos_schedule(msgspec.structs.replace(settings, seed=seed)):
            assert not (isinstance(fault, Kill | Pause) and fault.target == "nats")
            assert not fault.target.endswith("-nats")


@pytest.mark.parametrize(
    ("measures", "read"), [("none", "BLMOVE"), ("leases", "EVALSHA"), ("oom_claims", "EVALSHA")]
)
def test_a_fault_of_reads_meets_the_command_that_reads(measures, read):
    settings = with_seed(0, phases=(Phase.REDIS_ONLY,), phase_seconds=60.0, measures=measures)
    commands = {
        fault.command
        for seed in range(40)
        for fault in chaos_schedule(msgspec.structs.replace(settings, seed=seed))
        if isinstance(fault, Wire) and fault.target == "workers-redis" and fault.command
    }
    assert commands == {read, "LREM"}


@pytest.mark.parametrize(
    ("phases", "link", "goes_on"),
    [
        ((Phase.NATS_ONLY, Phase.REDIS_ONLY), "producers-nats", False),
        ((Phase.NATS_ONLY, Phase.NATS_PRIMARY), "producers-nats", True),
        ((Phase.REDIS_ONLY, Phase.NATS_ONLY), "workers-redis", False),
        ((Phase.REDIS_ONLY, Phase.DUAL_WRITE), "workers-redis", True),
    ],
)
def test_a_frame_has_time_to_come_or_comes_in_the_next_phase_too(phases, link, goes_on):
    """A link that another fault has just broken carries nothing for some seconds."""
    settings = with_seed(0, phases=phases, phase_seconds=20.0)
    left_s = {0: [], 1: []}
    for seed in range(150):
        for fault in chaos_schedule(msgspec.structs.replace(settings, seed=seed)):
            if isinstance(fault, Wire) and fault.target == link and fault.command:
                left_s[fault.phase_index].append(20.0 - fault.at_s - fault.for_s)
    assert min(left_s[1], default=6.0) >= 6.0  # after the last phase there is no load
    assert (min(left_s[0]) >= 6.0) != goes_on


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_schedule_is_kept_in_the_scenario_of_the_run(topology, tmp_path):
    for seed in range(20):
        settings = with_seed(seed, topology=topology)
        settings = msgspec.structs.replace(settings, faults=chaos_schedule(settings))
        path = tmp_path / f"{seed}.toml"
        path.write_text(scenario_toml(settings))
        again = to_settings(load_scenario(path), out=settings.out)
        assert again.faults == settings.faults


def test_somebody_elses_broker_and_a_short_timeline_are_refused():
    with pytest.raises(SettingError, match="leave --redis-url"):
        chaos_schedule(with_seed(1, redis_url="redis://127.0.0.1:6379"))
    with pytest.raises(SettingError, match=r"5 s in phases of 1 s: use 10 s or more"):
        chaos_schedule(with_seed(1, phase_seconds=1.0))
