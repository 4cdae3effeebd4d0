import json

import pytest

from hookbench.errors import SettingError
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.rehearsal.file_fleet import FileFleet

NAMES = ("producer", "worker-0", "worker-1")


@pytest.fixture
def files(tmp_path):
    found = {name: PhaseFile(tmp_path / f"{name}.json") for name in NAMES}
    for file in found.values():
        file.write(4, Phase.NATS_ONLY)
    return found


@pytest.fixture
def fleet(files, tmp_path):
    return FileFleet(
        producers=[files["producer"].path],
        workers=[files["worker-0"].path, files["worker-1"].path],
        announced=[tmp_path],
    )


def read(files):
    return [file.read() for file in files.values()]


async def test_both_roles_come_into_the_same_step(fleet, files):
    await fleet.enter("producer", Phase.REDIS_ONLY)
    assert read(files) == [(5, Phase.REDIS_ONLY), (4, Phase.NATS_ONLY), (4, Phase.NATS_ONLY)]
    await fleet.enter("worker", Phase.REDIS_ONLY)
    assert read(files) == [(5, Phase.REDIS_ONLY)] * 3


async def test_to_tell_it_twice_is_to_tell_it_once(fleet, files):
    for _ in range(2):
        await fleet.enter("worker", Phase.NATS_PRIMARY)
    assert read(files)[1:] == [(5, Phase.NATS_PRIMARY)] * 2


async def test_whom_a_killed_procedure_left_out_comes_after(fleet, files):
    files["worker-1"].write(5, Phase.NATS_PRIMARY)
    await fleet.enter("worker", Phase.NATS_PRIMARY)
    assert read(files) == [(4, Phase.NATS_ONLY), *[(5, Phase.NATS_PRIMARY)] * 2]


async def test_a_phase_that_was_there_before_is_a_step_of_its_own(fleet, files):
    files["worker-1"].write(1, Phase.DUAL_READ)
    await fleet.enter("producer", Phase.DUAL_READ)
    assert files["producer"].read() == (5, Phase.DUAL_READ)


async def test_who_has_not_followed_is_named(fleet, tmp_path):
    said = {"worker-0": "nats_primary", "worker-1": "nats_only", "producer": "nats_only"}
    for name, phase in said.items():
        event = {"event": "phase", "role": name.partition("-")[0], "phase": phase}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(event) + "\n")
    assert await fleet.not_in("worker", Phase.NATS_PRIMARY) == ["worker-1"]
    assert await fleet.not_in("producer", Phase.NATS_ONLY) == []
    with (tmp_path / "worker-1.jsonl").open("a") as file:
        file.write('{"event": "stopped"}\n')
    assert await fleet.not_in("worker", Phase.NATS_PRIMARY) == []


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"producers": [], "workers": ["a"]}, "no phase file of a producer"),
        ({"producers": ["a"], "workers": []}, "no phase file of a worker"),
        ({"producers": ["a", "b"], "workers": ["c/../b"]}, "of producers and of workers"),
    ],
)
def test_a_fleet_that_cannot_be_rerouted_is_refused(tmp_path, roles, message):
    paths = {role: [tmp_path / name for name in names] for role, names in roles.items()}
    with pytest.raises(SettingError, match=message):
        FileFleet(**paths, announced=[])


async def test_a_phase_file_that_is_not_there_is_named(fleet, files):
    files["worker-1"].path.unlink()
    with pytest.raises(SettingError, match=r"worker-1\.json"):
        await fleet.enter("producer", Phase.REDIS_ONLY)
    assert files["producer"].read() == (4, Phase.NATS_ONLY)
