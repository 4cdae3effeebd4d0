"""``hookbench move`` as an operator calls it: killed, held back, called again, called wrongly."""

import asyncio
import sys
from collections import Counter

import pytest

from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.procedures import PROCEDURES, Step
from hookbench.migration.reconcile import read_progress
from hookbench.rehearsal.file_fleet import FileFleet
from tests.conftest import eventually
from tests.integration.conftest import COMMAND
from tests.integration.migrating import ROOT, Scene

pytestmark = pytest.mark.timeout(120)

KILLED = -9
HELD_BACK = 1
WRONG = 2
JOIN = Step.JOIN_WORKERS
DO = "hookbench.migration.reconcile:Procedure._do"
DYING = [sys.executable, "-m", "tests.integration.dying", DO, "before"]


@pytest.fixture
async def scene(redis_broker, nats_broker, names, tmp_path):
    opened = Scene(redis_broker.url, nats_broker.url, names, tmp_path)
    opened.records = True
    yield opened
    await opened.close()


def progress_of(scene):
    return scene.folder / "move.json"


async def move(scene, source, target, *more, command=COMMAND):
    """Exit code and what was printed."""
    folder, names = scene.folder, scene.names
    process = await asyncio.create_subprocess_exec(
        *command,
        "move",
        f"--from={source.label}",
        f"--to={target.label}",
        f"--progress={progress_of(scene)}",
        f"--producer-phase-file={folder / 'producer.json'}",
        f"--worker-phase-file={folder / 'worker.json'}",
        f"--announced={folder / 'said'}",
        f"--redis-url={scene.redis_url}",
        f"--nats-url={scene.nats_url}",
        f"--prefix={names.prefix}",
        f"--subject-root={names.subject_root}",
        f"--stream={names.stream}",
        "--storage=memory",
        "--settle=1",
        *more,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, output.decode()


async def under_load(scene, phase):
    scene.start(phase)
    await eventually(lambda: len(scene.done()) > 5, timeout_s=20)


@pytest.mark.parametrize(
    ("source", "target", "steps"),
    [
        (Phase.REDIS_ONLY, Phase.DUAL_WRITE, (2, 3)),
        (Phase.DUAL_READ, Phase.NATS_PRIMARY, (3, 5)),
        (Phase.NATS_PRIMARY, Phase.NATS_ONLY, (5, 7)),
        (Phase.NATS_ONLY, Phase.REDIS_ONLY, (3, 6)),
    ],
    ids=lambda value: value.label if isinstance(value, Phase) else "",
)
async def test_killed_twice_and_called_again_it_goes_on(scene, source, target, steps):
    await under_load(scene, source)
    done = 0
    for step in steps:
        code, said = await move(scene, source, target, command=[*DYING, str(step - done)])
        assert code == KILLED, said
        done = step - 1
        assert len(read_progress(progress_of(scene)).done) == done
    code, said = await move(scene, source, target)
    assert code == 0, said
    assert f"{source.label} to {target.label}: done" in said
    assert not progress_of(scene).exists()
    await scene.come_to_rest()
    account = await scene.account(target, changes=PROCEDURES[source, target].count(JOIN) + 1)
    assert account.accepted > 5
    assert (account.lost, account.stuck) == (0, 0), account.findings
    assert {task for task, times in Counter(scene.executed).items() if times > 1} == set()


async def test_held_back_it_says_where_and_goes_on_when_it_may(scene):
    await under_load(scene, Phase.REDIS_ONLY)
    deaf = scene.announce("producer-deaf")
    deaf({"role": "producer", "phase": "redis_only", "version": "0"})
    way = (Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    code, said = await move(scene, *way, "--patience=1")
    assert code == HELD_BACK, said
    assert "held back at ask_before: gate" in said
    assert "no-go" in said
    assert "2 versions in 2" in said
    assert PhaseFile(scene.folder / "worker.json").read()[1] is Phase.REDIS_ONLY
    deaf({"event": "stopped"})
    code, said = await move(scene, *way)
    assert code == 0, said
    await scene.come_to_rest()


async def test_a_process_that_does_not_follow_is_named(scene):
    await under_load(scene, Phase.REDIS_ONLY)
    announced = next(
        iter(
            FileFleet(
                producers=[scene.folder / "producer.json"],
                workers=[scene.folder / "worker.json"],
                announced=[scene.folder / "said"],
            ).announcements()
        )
    )
    scene.announce("producer-deaf")(
        {"role": "producer", "phase": "redis_only", "version": announced.version}
    )
    code, said = await move(scene, Phase.REDIS_ONLY, Phase.DUAL_WRITE, "--patience=1")
    assert code == HELD_BACK, said
    assert "held back at reroute_producers" in said
    assert "producer-deaf not in dual_write" in said
    await scene.come_to_rest()


async def test_who_is_called_wrongly_is_told_and_nothing_is_changed(scene):
    (scene.folder / "said" / "worker-0.jsonl").write_text(
        '{"role": "worker", "phase": "redis_only", "version": "1"}\n'
    )
    PhaseFile(scene.folder / "producer.json").write(0, Phase.REDIS_ONLY)
    PhaseFile(scene.folder / "worker.json").write(0, Phase.REDIS_ONLY)
    way = (Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    wrong = {
        f"--worker-phase-file={scene.folder / 'producer.json'}": "of producers and of workers",
        f"--announced={scene.folder / 'nowhere.jsonl'}": "No such file or directory",
        f"--progress={scene.folder / 'nowhere' / 'move.json'}": "there is no folder",
        "--redis-url=redis://127.0.0.1:1": "127.0.0.1:1",
        "--nats-url=nats://127.0.0.1:1": "127.0.0.1:1",
    }
    for option, message in wrong.items():
        code, said = await move(scene, *way, option, "--patience=1")
        assert code in (WRONG, HELD_BACK), (option, said)
        assert message in said, (option, said)
        assert "Traceback" not in said
    code, said = await move(scene, Phase.REDIS_ONLY, Phase.NATS_ONLY)
    assert code == WRONG
    assert "no such" in said
    progress_of(scene).write_text('{"source": "dual_write", "target": "dual_read"}')
    code, said = await move(scene, *way)
    assert code == WRONG
    assert "finish that one first" in said
    assert PhaseFile(scene.folder / "producer.json").read() == (0, Phase.REDIS_ONLY)
    assert PhaseFile(scene.folder / "worker.json").read() == (0, Phase.REDIS_ONLY)
