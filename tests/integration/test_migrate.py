"""``hookbench migrate``: dry, killed at each step and resumed, held back, turned round."""

import asyncio
import contextlib
import json
from collections import Counter

import pytest

from hookbench.cancellation import cancel
from hookbench.live.boards import Boards
from hookbench.live.follow import Follower
from hookbench.live.places import encode_step, parse_place
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.announcements import read_announced
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.procedures import PROCEDURES, Step
from hookbench.migration.reconcile import read_progress
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.integration.conftest import COMMAND
from tests.integration.migrating import CONSUMER, ROOT, Scene
from tests.integration.migrating_child import STREAM

pytestmark = pytest.mark.timeout(120)

KILLED = -9
HELD_BACK = 1
WRONG = 2
UNKNOWN = 3
JOIN = Step.JOIN_WORKERS
DO = "hookbench.migration.reconcile:Procedure._do"
DYING = [DO, "before"]


def halves(count):
    """Every step of a procedure, in two runs."""
    middle = count // 2 + 1
    return tuple(range(1, middle + 1)), tuple(range(middle + 1, count + 1))


@pytest.fixture
async def scene(redis_broker, nats_broker, names, tmp_path, forks):
    opened = Scene(redis_broker.url, nats_broker.url, names, tmp_path, forks=forks)
    opened.records = True
    opened.places = ()
    yield opened
    await opened.close()


def progress_of(scene):
    return scene.folder / "progress.json"


async def move(scene, source, target, *more, dying=(), execute=("--execute",), timeout_s=90.0):
    """Exit code and what was printed; by the command itself, or by one that dies at a place."""
    arguments = arguments_of(scene, source, target, *more, *execute)
    if dying:
        return await scene.forks.run(
            "tests.integration.dying", [*dying, *arguments], timeout_s=timeout_s
        )
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    return process.returncode, output.decode()


def arguments_of(scene, source, target, *more):
    folder, names = scene.folder, scene.names
    return [
        "migrate",
        source.label,
        target.label,
        f"--progress={progress_of(scene)}",
        *(scene.places or file_places(folder)),
        f"--redis-url={scene.redis_url}",
        f"--nats-url={scene.nats_url}",
        f"--prefix={names.prefix}",
        f"--subject-root={names.subject_root}",
        f"--stream={names.stream}",
        "--storage=memory",
        "--settle=1",
        *more,
    ]


def file_places(folder):
    return (
        f"--producers=file:{folder / 'producer.json'}",
        f"--workers=file:{folder / 'worker.json'}",
        f"--announced={folder / 'said'}",
    )


async def under_load(scene, phase):
    scene.start(phase)
    await eventually(lambda: len(scene.done()) > 5, timeout_s=20)


@pytest.mark.parametrize(
    ("way", "steps"),
    [
        (way, step)
        for way in (
            (Phase.REDIS_ONLY, Phase.DUAL_WRITE),
            (Phase.DUAL_READ, Phase.NATS_PRIMARY),
            (Phase.NATS_PRIMARY, Phase.NATS_ONLY),
            (Phase.NATS_ONLY, Phase.REDIS_ONLY),
        )
        for step in halves(len(PROCEDURES[way]))
    ],
    ids=lambda value: "-".join(
        item.label if isinstance(item, Phase) else str(item) for item in value
    ),
)
async def test_killed_at_each_step_and_called_again_it_goes_on(scene, way, steps):
    source, target = way
    await under_load(scene, source)
    done = 0
    for step in steps:
        code, said = await move(scene, source, target, dying=[*DYING, str(step - done)])
        assert code == KILLED, said
        done = step - 1
        found = read_progress(progress_of(scene))
        assert len(found.done if found else []) == done
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
    announced = next(iter(read_announced([scene.folder / "said"])))
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
        f"--workers=file:{scene.folder / 'producer.json'}": "of producers and of workers",
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


class KeyedScene(Scene):
    """Two workers and a producer that follow keys of a broker."""

    def __init__(self, kind, *arguments, **options):
        super().__init__(*arguments, **options)
        self.records = True
        names = ("producers", "worker-1", "worker-2")
        self.keys = [parse_place(f"{kind}:{name}") for name in names]
        self.places = (
            f"--producers={self.keys[0].text}",
            *(f"--workers={item.text}" for item in self.keys[1:]),
        )
        self.entered = []
        self.followers = []

    def _boards(self):
        return Boards(self.redis_url, self.nats_url, self.names, stream=STREAM, clock=self.clock)

    async def begin(self, phase):
        boards = self._boards()
        try:
            for key in self.keys:
                await (await boards.of(key)).write(key.key, encode_step(0, phase))
        finally:
            await boards.close()
        runs = []
        for number, key in enumerate(self.keys):
            file = PhaseFile(self.folder / f"{key.key}.json")
            follower = Follower(key, self._boards(), file, name=f"{key.key}-a", clock=self.clock)
            await follower.start()
            self.followers.append(follower)
            runs.append(self._process(number, file.path, follower).run())
        self.tasks = [asyncio.ensure_future(run) for run in (*runs[1:], runs[0])]
        self.beside = [asyncio.ensure_future(item.run()) for item in self.followers]

    def _process(self, number, path, follower):
        def heard(event):
            if event["event"] == "phase":
                self.entered.append((number, event["phase"]))

        common = {
            "redis_url": self.redis_url,
            "nats_url": self.nats_url,
            "phase_file": path,
            "names": self.names,
            "stream": STREAM,
        }
        parts = {"clock": self.clock, "announce": follower.listening(heard)}
        if number == 0:
            settings = GeneratorSettings(**common, rate_per_s=30.0, count=100_000, seed=3)
            self.producer = LoadGenerator(settings, ledger=self.ledger("producer", 2), **parts)
            return self.producer
        settings = WorkerSettings(
            **common,
            block_timeout_secs=0.2,
            measures=Measures(ack_after=True, read_both=True, done_store=True),
            redis_age_s=1.0,
            consumer=CONSUMER,
        )
        ledger = self.ledger("worker", 10 + number)
        service = WorkerService(settings, self.handle, ledger=ledger, **parts)
        self.services = [*getattr(self, "services", []), service]
        return service

    async def come_to_rest(self):
        self.producer.request_stop()
        await self.tasks[-1]
        with contextlib.suppress(AssertionError):  # then the account says what is missing
            await eventually(lambda: self.accepted() <= self.done(), timeout_s=self.rest_s)
        for service in self.services:
            service.request_stop()
        await asyncio.gather(*self.tasks)

    async def close(self):
        await cancel(*self.beside)  # which one of them may not have heard the first time
        for follower in self.followers:
            await follower.close()
        await super().close()


@pytest.fixture
async def keyed(request, redis_broker, nats_broker, names, tmp_path, forks):
    kind, phase = request.param
    opened = KeyedScene(kind, redis_broker.url, nats_broker.url, names, tmp_path, forks=forks)
    await opened.begin(phase)
    await eventually(lambda: len(opened.done()) > 5, timeout_s=20)
    yield opened
    await opened.close()


async def nothing_is_lost(scene, phase, *, changes):
    await scene.come_to_rest()
    account = await scene.account(phase, changes=changes)
    assert account.accepted > 5
    assert (account.lost, account.stuck) == (0, 0), account.findings
    assert {task for task, times in Counter(scene.executed).items() if times > 1} == set()


WRITES = {
    "redis": "hookbench.live.redis_board:RedisBoard.write",
    "nats": "hookbench.live.nats_board:NatsBoard.write",
}


def dying_at(kind, when, number):
    return [WRITES[kind], when, str(number)]


@pytest.mark.parametrize(
    ("keyed", "target"),
    [
        (("redis", Phase.REDIS_ONLY), Phase.DUAL_WRITE),
        (("nats", Phase.DUAL_READ), Phase.NATS_PRIMARY),
    ],
    indirect=["keyed"],
)
async def test_one_process_after_the_other_whenever_it_is_killed(keyed, target):
    kind = keyed.keys[0].kind
    source = Phase.REDIS_ONLY if kind == "redis" else Phase.DUAL_READ
    for when in ("before", "after", "before"):
        code, said = await move(keyed, source, target, dying=dying_at(kind, when, 1))
        assert code == KILLED, said
    code, said = await move(keyed, source, target)
    assert code == 0, said
    changed = [number for number, phase in keyed.entered if phase == target.label]
    assert changed == ([0, 1, 2] if kind == "redis" else [1, 2, 0])
    await nothing_is_lost(keyed, target, changes=1)


@pytest.mark.parametrize("keyed", [("redis", Phase.REDIS_ONLY)], indirect=True)
async def test_half_way_it_is_turned_round(keyed):
    way = (Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    code, said = await move(keyed, *way, dying=dying_at("redis", "after", 2))
    assert code == KILLED, said
    code, said = await move(keyed, *way, "--back", execute=())
    assert code in (0, 1, UNKNOWN), said
    assert "dual_write to redis_only: a plan" in said
    assert read_progress(progress_of(keyed)).target == "dual_write"
    code, said = await move(keyed, *way, "--back", dying=dying_at("redis", "before", 2))
    assert code == KILLED, said
    code, said = await move(keyed, *way)
    assert code == WRONG, said
    assert "turn" in said or "finish that one first" in said
    code, said = await move(keyed, *way, "--back")
    assert code == 0, said
    assert keyed.entered[-1][1] == "redis_only"
    assert not progress_of(keyed).exists()
    await nothing_is_lost(keyed, Phase.REDIS_ONLY, changes=2)


@pytest.mark.parametrize("keyed", [("redis", Phase.REDIS_ONLY)], indirect=True)
async def test_without_execute_nothing_is_changed(keyed):
    way = (Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    code, said = await move(keyed, *way, execute=())
    assert code == 0, said
    assert "to do    reroute_producers" in said
    assert "worker   redis:worker-2 in redis_only: worker-2-a" in said
    assert said.splitlines()[-1] == "go       redis_only to dual_write, before"
    code, said = await move(keyed, *way, "--json", execute=())
    plan = json.loads(said)
    assert (code, plan["done"], plan["gate"]["answer"]) == (0, [], "go")
    assert [place["followers"] for place in plan["places"]] == [
        ["producers-a"], ["worker-1-a"], ["worker-2-a"]
    ]  # fmt: skip
    assert not progress_of(keyed).exists()
    assert {phase for _number, phase in keyed.entered} == {"redis_only"}
    await keyed.come_to_rest()


@pytest.mark.parametrize("keyed", [("redis", Phase.NATS_PRIMARY)], indirect=True)
async def test_a_place_on_the_broker_that_is_left_is_refused(keyed):
    code, said = await move(keyed, Phase.NATS_PRIMARY, Phase.NATS_ONLY)
    assert code == WRONG
    assert "on the broker that nats_only leaves" in said
    await keyed.come_to_rest()
