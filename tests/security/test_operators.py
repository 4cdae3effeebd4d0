"""An operator's work under its role, and every role on a Redis master with its replica."""

import contextlib
import json

import pytest
import redis

from hookbench.acl.passwords import make_passwords, password_file, sha256_of
from hookbench.acl.redis_rules import setuser_command
from hookbench.acl.roles import Role, Scope
from hookbench.clock import SystemClock
from hookbench.ids import system_entropy
from hookbench.ledger.events import Broker
from hookbench.live.boards import Boards
from hookbench.live.hold import Hold, this_operator
from hookbench.live.places import encode_step, parse_place
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.metrics.queues import QueueReader
from hookbench.migration.measures import HARDENED
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings, ensure_dead_stream
from hookbench.queues.moving import Mover
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.replica_wait import replicas_of
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.done_stores import BothStores
from hookbench.task import Names, encode_task, new_task
from hookbench.worker.dead_letters import (
    DeadLetter,
    NatsDeadLetters,
    RedisDeadLetters,
    RoutedDeadLetters,
)
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.integration.topologies import opened
from tests.security.test_roles import clear, handle, run, work_until

TASKS = 20
STREAM = StreamSettings()
CLOCK = SystemClock()


def connections(redis_url, nats_url):
    return Connections(
        redis_url=redis_url, nats_url=nats_url, names=Names(), clock=CLOCK, stream=STREAM
    )


def new_tasks(count):
    return [
        new_task(repo_id="a/b", task_type="sync", payload={}, clock=CLOCK, entropy=system_entropy())
        for _ in range(count)
    ]


async def put(phase, redis_url, nats_url, count=3, **more):
    opened_ = connections(redis_url, nats_url)
    tasks = new_tasks(count)
    try:
        service = await open_service(phase, opened_, Names(), **more)
        for task in tasks:
            await service.send(task)
    finally:
        await opened_.close()
    return tasks


async def work(redis_url, nats_url, phase, tasks):
    """A hardened worker until so many are done."""
    said = []
    worker = WorkerService(
        WorkerSettings(
            redis_url=redis_url, nats_url=nats_url, phase=phase, measures=HARDENED,
            block_timeout_secs=0.3, consumer=ConsumerSettings(ack_wait_s=2.0, max_deliver=-1),
        ),
        handle,
        clock=CLOCK,
        announce=said.append,
    )  # fmt: skip
    await work_until(worker, said, tasks)


@contextlib.asynccontextmanager
async def mover(redis_url, nats_url):
    client = connect_redis(redis_url)
    try:
        async with await AppTransport.connect(nats_url, names=Names()) as transport:
            replicas = replicas_of(redis_url)
            stores = BothStores(client, transport, stream=STREAM, clock=CLOCK, replicas=replicas)
            yield Mover(
                client, transport, clock=CLOCK, are_done=stores.are_done,
                move_records=stores.move_records, settle_s=0.0, replicas=replicas,
            )  # fmt: skip
    finally:
        await client.aclose()


async def test_every_move_of_a_procedure_is_an_operators(scope_of):
    guarded = scope_of()
    await clear(guarded)
    workers = guarded.redis_url(Role.WORKER), guarded.nats_url(Role.WORKER)
    producers = guarded.redis_url(Role.PRODUCER), guarded.nats_url(Role.PRODUCER)
    await put(Phase.DUAL_WRITE, *producers)
    await work(*workers, Phase.DUAL_READ, 3)
    guarded.admin.lpush("{hook}:sync:dead", "a letter")
    async with mover(guarded.redis_url(Role.OPERATOR), guarded.nats_url(Role.OPERATOR)) as moves:
        await put(Phase.REDIS_ONLY, *producers)
        assert await moves.left_in_work() == 0
        assert await moves.redis_to_nats() == 3
        assert await moves.letters_to_nats() == 1
        assert await moves.records_to_nats() == 3
        await put(Phase.DUAL_WRITE, *producers)
        await work(*workers, Phase.NATS_ONLY, 6)
        assert await moves.records_to_redis() == 6
        assert await moves.trim_copies() == 3
        await put(Phase.NATS_ONLY, *producers)
        assert await moves.left_on_nats() == 3
        assert await moves.nats_only_to_redis() == 3
        assert await moves.drain_to_redis(timeout_s=5.0) == 0  # each of them is in Redis
        assert await moves.left_on_nats() == 0
        await moves.last_sequence()
        await moves.forget_moves()
    assert guarded.admin.llen("{hook}:sync") == 3
    assert guarded.refusals() == []


async def test_an_operator_tells_phases_and_holds_places(scope_of):
    guarded = scope_of()
    await clear(guarded)
    places = [parse_place(text) for text in ("redis:p", "nats:p")]

    def boards(role):
        urls = guarded.redis_url(role), guarded.nats_url(role)
        return Boards(*urls, Names(), stream=STREAM, clock=CLOCK)

    operator, worker = boards(Role.OPERATOR), boards(Role.WORKER)
    try:
        hold = Hold(operator, places, this_operator("a move"), clock=CLOCK)
        await hold.take()
        for place in places:
            await hold.write(place, encode_step(1, Phase.DUAL_WRITE))
            board = await operator.of(place)
            own = await worker.of(place)
            assert await own.read(place.key) == await board.read(place.key)
            await own.announce(place.key, "w", b"{}")
            assert await board.announced(place.key) == {"w": b"{}"}
        await hold.let_go()
    finally:
        await operator.close()
        await worker.close()
    assert guarded.refusals() == []


async def test_the_commands_of_an_operator_need_no_more_than_its_role(scope_of, tmp_path):
    """A move, a round of reconciliation and dead letters, by the commands themselves."""
    guarded = scope_of()
    await clear(guarded)
    places = ("--producers=nats:p", "--workers=redis:w")
    urls = guarded.redis_url(Role.PRODUCER), guarded.nats_url(Role.PRODUCER)
    await put(Phase.DUAL_WRITE, *urls)
    await put(Phase.REDIS_ONLY, *urls)  # for the reconciler to put on NATS
    guarded.admin.lpush("{hook}:sync:dead", "a letter")
    for words in (
        ("phase", "set", "nats:p", "dual_write"),
        ("reconcile", "--once", "--grace=0"),
        ("dead", "list"),
    ):
        done = run(guarded, Role.OPERATOR, *words, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
    done = run(
        guarded, Role.OPERATOR, "migrate", "dual_write", "dual_read", *places, "--execute",
        "--patience=0.2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # nobody follows the places
    assert "nobody" in done.stderr or "no process" in done.stderr
    assert guarded.refusals() == []


async def bury(guarded, tasks):
    """A letter about each task, on the brokers in turns, as a worker writes it."""
    client = connect_redis(guarded.redis_url(Role.WORKER))
    letters = RoutedDeadLetters("a worker")
    letters.redis = RedisDeadLetters(client, Names())
    async with await AppTransport.connect(guarded.nats_url(Role.WORKER)) as transport:
        await ensure_dead_stream(transport)
        letters.nats = NatsDeadLetters(transport)
        for number, task in enumerate(tasks):
            await letters.bury(
                DeadLetter.of(
                    encode_task(task), task_type="sync", reason="failed 3 times", attempts=3,
                    broker=(Broker.REDIS, Broker.NATS)[number % 2], died_at_ns=CLOCK.wall_ns(),
                )
            )  # fmt: skip
    await client.aclose()


@pytest.mark.parametrize(
    ("phase", "kind", "more"),
    [
        (Phase.DUAL_WRITE, RedisKind.LIST, ("--measures=all",)),
        (Phase.REDIS_ONLY, RedisKind.STREAM, ("--redis-queue=stream",)),
    ],
)
async def test_dead_letters_are_shown_and_put_back_under_the_role(
    scope_of, tmp_path, phase, kind, more
):
    """The tasks have ended by the done-stores, which have to forget that with the measure."""
    guarded = scope_of(kind)
    await clear(guarded)
    urls = guarded.redis_url(Role.WORKER), guarded.nats_url(Role.WORKER)
    if kind is RedisKind.LIST:
        producers = guarded.redis_url(Role.PRODUCER), guarded.nats_url(Role.PRODUCER)
        tasks = await put(Phase.DUAL_WRITE, *producers)
        await work(*urls, Phase.DUAL_WRITE, 3)
        operators = guarded.redis_url(Role.OPERATOR), guarded.nats_url(Role.OPERATOR)
        async with mover(*operators) as moves:
            assert await moves.records_to_nats() == 3
    else:
        tasks = new_tasks(3)
    await bury(guarded, tasks)

    def dead(*words):
        done = run(guarded, Role.OPERATOR, "dead", *words, "--json", cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        assert guarded.refusals() == []
        return json.loads(done.stdout)["letters"]

    shown = dead("show", str(tasks[0].id)) + dead("show", "nats-1")
    assert [(item["broker"], item["task"]) for item in shown] == [
        ("redis", str(tasks[0].id)),
        ("nats", str(tasks[1].id)),
    ]
    answers = dead("requeue", "--all", f"--phase={phase.label}", *more)
    assert [(item["put"], item["removed"]) for item in answers] == [(True, True)] * 3
    assert dead("list") == []
    if kind is RedisKind.STREAM:
        assert guarded.admin.xlen(Names().stream_key("sync")) == 3
        return
    assert guarded.admin.llen("{hook}:sync") == 3
    await work(*urls, Phase.REDIS_ONLY, 3)  # which nobody would without the forgetting
    assert guarded.refusals() == []


@pytest.mark.parametrize("role", [Role.PRODUCER, Role.WORKER])
async def test_metrics_ask_for_no_more_than_a_role_may(scope_of, role):
    """A producer's, too, has to see that its brokers are there."""
    guarded = scope_of()
    await clear(guarded)
    await put(Phase.DUAL_WRITE, guarded.redis_url(Role.WORKER), guarded.nats_url(Role.WORKER))
    reader = QueueReader(
        guarded.redis_url(role), guarded.nats_url(role), Names(), task_types=("sync",),
        redis_kind=RedisKind.LIST, clock=CLOCK, depths=role is Role.WORKER,
    )  # fmt: skip
    try:
        found = await reader.look()
    finally:
        await reader.close()
    assert {name: look.up for name, look in found.items()} == {"redis": True, "nats": True}
    assert bool(found["redis"].tasks) is (role is Role.WORKER)
    assert guarded.refusals() == []


@pytest.mark.timeout(90)
async def test_roles_are_enough_on_a_master_with_its_replica(guarded, tmp_path):
    """Puts and records that wait for the replica; users stand in the rules of each node."""
    await clear(guarded)
    secrets = tmp_path / "secrets"
    make_passwords(secrets, list(Role))
    async with opened("redis_replica", tmp_path) as topology:
        nodes = topology.redis_url.removeprefix("redis+replica://").split("?")[0].split(",")
        admins = [redis.Redis.from_url(f"redis://{node.split('/')[0]}") for node in nodes]
        assert len(admins) == 2
        scope = Scope(replicated=True)
        for admin in admins:
            for role in Role:
                secret = sha256_of(password_file(secrets, "redis", role))
                admin.execute_command(setuser_command(role, scope, secret))
            admin.acl_log_reset()

        def url(role):
            file = password_file(secrets, "redis", role)
            mark = "&" if "?" in topology.redis_url else "?"
            return f"{topology.redis_url}{mark}user={role}&password_file={file}"

        try:
            producer = LoadGenerator(
                GeneratorSettings(
                    redis_url=url(Role.PRODUCER), nats_url=guarded.nats_url(Role.PRODUCER),
                    phase=Phase.DUAL_WRITE, measures=HARDENED, count=TASKS, rate_per_s=200.0,
                    spool=tmp_path / "outbox.sqlite",
                ),
                clock=CLOCK,
            )  # fmt: skip
            await producer.run()
            await work(url(Role.WORKER), guarded.nats_url(Role.WORKER), Phase.DUAL_READ, TASKS)
            await put(Phase.NATS_ONLY, url(Role.PRODUCER), guarded.nats_url(Role.PRODUCER), count=2)
            async with mover(url(Role.OPERATOR), guarded.nats_url(Role.OPERATOR)) as moves:
                await moves.records_to_nats()
                assert await moves.nats_only_to_redis() == 2
                await moves.forget_moves()
            refused = [entry for admin in admins for entry in admin.acl_log()]
        finally:
            for admin in admins:
                admin.close()
    assert refused == []
    assert guarded.refusals() == []
