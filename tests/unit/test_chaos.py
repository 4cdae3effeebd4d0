"""Random schedules of faults: what follows from the seed, and what can fire."""

import msgspec
import pytest

from hookbench.brokers.topology import TOPOLOGIES
from hookbench.errors import SettingError
from hookbench.faults.process import Kill, Pause
from hookbench.faults.wire_fault import Wire
from hookbench.migration.phases import Phase
from hookbench.rehearsal.chaos import chaos_schedule
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.scenarios.resolved import scenario_toml
from hookbench.scenarios.schema import load_scenario, to_settings

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
        assert without == tuple(
            fault for fault in all_kinds if fault.__struct_config__.tag != "power_cut"
        )
    assert any(
        fault.__struct_config__.tag == "power_cut"
        for seed in range(20)
        for fault in chaos_schedule(with_seed(seed))
    )


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_fault_begins_and_ends_within_the_load(topology):
    kinds = set()
    for seed in range(60):
        settings = with_seed(seed, topology=topology)
        faults = chaos_schedule(settings)
        assert faults
        assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
        for fault in faults:
            assert fault.at_s - fault.lead_s + 2.0 >= 2.0
            assert fault.at_s + fault.for_s <= settings.seconds - 4.0
            kinds.add(fault.__struct_config__.tag)
    single = {"wire", "power_cut"}
    wanted = {
        "single": single,
        "redis_replica": {"promote"},
        "nats_cluster": {"step_down"},
        "replicated": {"promote", "step_down"},
        "redis_cluster": set(),
    }[topology]
    assert kinds & (single | {"promote", "step_down"}) == wanted


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
    with pytest.raises(SettingError, match=r"5 s: use 10 s or more"):
        chaos_schedule(with_seed(1, phase_seconds=1.0))
