"""The scenarios of the mutations: each is valid without a bug."""

import asyncio
import os

from hookbench.githook.config import HookConfig
from hookbench.githook.flush import Flush
from hookbench.ledger.boot import boot_id
from hookbench.ledger.model import Bounds
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.migration.spool import Spool
from hookbench.task import decode_task, encode_task
from tests.conftest import eventually
from tests.mutations.ground import PRODUCER
from tests.mutations.scene import GUIDE, LEASE_S, LONG_LEASE_S, environment

_FLUSH_FOR_S = 2.0


class Failing:
    """Fails the first executions of a task."""

    def __init__(self, times):
        self.left = times

    async def __call__(self, _task, _execution):
        if self.left > 0:
            self.left -= 1
            raise RuntimeError(f"fails as planned, {self.left} times more")


class Gate:
    """Executions wait in it until it is opened."""

    def __init__(self):
        self.inside = []
        self.open = asyncio.Event()

    async def __call__(self, task, _execution):
        self.inside.append(task.id)
        await self.open.wait()


async def _work(scene, phase, tasks, *, leases=False, lease_s=LONG_LEASE_S, **worker):
    """Put tasks, let one worker come to rest, and stop it."""
    scene.enter(phase)
    with environment(lease_s=lease_s):
        await scene.put(*tasks)
        async with scene.worker(1, **worker):
            await scene.quiet(leases=leases)


async def redis_tasks(scene):
    """Three tasks, one of each class, through Redis."""
    await _work(scene, Phase.REDIS_ONLY, scene.tasks())


async def nats_tasks(scene):
    """Three tasks, one of each class, through NATS, with a lease of 0.5 s."""
    await _work(scene, Phase.NATS_PRIMARY, scene.tasks(), leases=True, lease_s=LEASE_S)


async def redis_batch(scene):
    """Three tasks that one read takes together."""
    await _work(scene, Phase.REDIS_ONLY, scene.tasks(), concurrency=3)


async def redis_odd_payload(scene):
    """A task with other letters than ASCII in its payload, through Redis."""
    await _work(scene, Phase.REDIS_ONLY, [scene.task(ref="refs/heads/überholt")])


async def redis_failing(scene):
    """A handler that fails five times, two times more than the budget, through Redis."""
    await _work(scene, Phase.REDIS_ONLY, [scene.task()], service=Failing(5))


async def nats_failing(scene):
    """A handler that fails five times, two times more than the budget, through NATS."""
    await _work(scene, Phase.NATS_PRIMARY, [scene.task()], service=Failing(5))


async def redis_failing_once(scene):
    """A handler that fails once, and then does its work, through Redis."""
    await _work(scene, Phase.REDIS_ONLY, [scene.task()], service=Failing(1))


async def nats_failing_once(scene):
    """A handler that fails once, and then does its work, through NATS."""
    await _work(scene, Phase.NATS_PRIMARY, [scene.task()], service=Failing(1))


async def redis_failing_after_effect(scene):
    """A transactional handler that has its effect, and then fails; one attempt is its budget."""
    scene.bounds = Bounds(max_attempts=1)
    task = scene.task("transactional")
    await _work(scene, Phase.REDIS_ONLY, [task], after=Failing(1), max_attempts=1)


async def doubtful_failing_after_effect(scene):
    """A transactional handler as above; its caller is in doubt, for the reply to LPUSH is lost."""
    scene.bounds = Bounds(max_attempts=1)
    scene.enter(Phase.REDIS_ONLY)
    async with scene.wire(drop_replies=1) as wire:
        outcomes = await scene.put(scene.task("transactional"), redis_url=wire.url)
    assert outcomes == ["unknown"]
    async with scene.worker(1, after=Failing(1), max_attempts=1):
        await scene.quiet()


async def lost_reply(scene):
    """The reply to an LPUSH is lost: the task is there, and its caller in doubt."""
    scene.enter(Phase.REDIS_ONLY)
    async with scene.wire(drop_replies=1) as wire:
        await scene.put(scene.task(), redis_url=wire.url)
    async with scene.worker(1):
        await scene.quiet()


async def lost_command(scene):
    """An LPUSH never arrives: the task is nowhere, and its caller in doubt."""
    scene.enter(Phase.REDIS_ONLY)
    async with scene.wire(drop_commands=1) as wire:
        await scene.put(scene.task(), redis_url=wire.url)
    async with scene.worker(1):
        await scene.quiet()


async def both_refuse(scene):
    """A dual write that both brokers refuse: there is no stream, and the key holds no list."""
    scene.enter(Phase.DUAL_WRITE)
    opened = scene.connections()
    redis, key = opened.redis(), scene.names.pending_key("sync")
    try:
        service = await open_service(Phase.DUAL_WRITE, opened, scene.names, recorder=scene.producer)
        await (await opened.nats()).jetstream.delete_stream(scene.names.stream)
        await redis.set(key, b"no list")
        await scene.send(service, scene.task())
        await redis.delete(key)
    finally:
        await opened.close()
    async with scene.worker(1):
        await scene.quiet()


async def dual_write(scene):
    """Three tasks in the phase of dual writes, in which Redis is read."""
    await _work(scene, Phase.DUAL_WRITE, scene.tasks())


async def redis_backlog_of_one_repository(scene):
    """Four tasks of one repository, put one after the other, through Redis."""
    scene.bounds = Bounds(max_inversions=0)
    await _work(scene, Phase.REDIS_ONLY, [scene.task() for _ in range(4)])


async def nats_backlog_of_one_repository(scene):
    """Four tasks of one repository, put one after the other, through NATS, read together."""
    scene.bounds = Bounds(max_inversions=0)
    tasks = [scene.task() for _ in range(4)]
    await _work(scene, Phase.NATS_PRIMARY, tasks, concurrency=4)


async def killed_worker(scene):
    """A worker is killed with a task in hand; another one gets it at the end of its lease."""
    await killed_with(scene, GUIDE)


async def killed_with(scene, measures):
    scene.enter(Phase.NATS_PRIMARY)
    await scene.put(scene.task())
    with environment(lease_s=LEASE_S):
        await scene.ground.kill_in_hand(scene, measures)
        async with scene.worker(2, measures=measures):
            await scene.quiet(leases=True)


async def phase_change_with_a_task_in_hand(scene):
    """The worker goes from Redis to NATS while it is busy with a task from Redis."""
    scene.enter(Phase.REDIS_ONLY)
    await scene.put(scene.task())
    gate = Gate()
    async with scene.worker(1, service=gate) as worker:
        await eventually(lambda: gate.inside, what="a task in hand")
        scene.enter(Phase.NATS_PRIMARY)
        await eventually(
            lambda: [event for event in worker.said if event.get("index") == 1],
            what="the change of phase",
        )
        gate.open.set()
        await scene.quiet()


async def _overlapping(scene, task):
    """A handler that is busy for longer than its lease: two workers have the task at once."""
    scene.enter(Phase.NATS_PRIMARY)
    gate = Gate()
    with environment(lease_s=LEASE_S):
        await scene.put(task)
        async with scene.worker(1, service=gate), scene.worker(2, service=gate):
            await eventually(lambda: len(gate.inside) == 2, what="two executions at once")
            gate.open.set()
            await scene.quiet(leases=True)


async def overlapping_transactional(scene):
    """A handler busy for longer than its lease: two workers have a transactional task at once."""
    await _overlapping(scene, scene.task("transactional"))


async def overlapping_idempotent(scene):
    """A handler busy for longer than its lease: two workers have an idempotent task at once."""
    await _overlapping(scene, scene.task("idempotent"))


async def hung_at_stop(scene):
    """A worker is stopped with a task that does not end; another one does it."""
    scene.enter(Phase.REDIS_ONLY)
    await scene.put(scene.task())
    gate = Gate()
    async with scene.worker(1, service=gate, drain_timeout_s=0.1):
        await eventually(lambda: gate.inside, what="a task in hand")
    async with scene.worker(2):
        await scene.quiet()


async def stopped_while_reading(scene):
    """A task comes to a worker that was asked to stop during its last read."""
    scene.enter(Phase.REDIS_ONLY)
    async with scene.worker(1, block_s=0.5) as worker:
        await scene.quiet()
        worker.request_stop()
        await scene.put(scene.task())
    async with scene.worker(2):
        await scene.quiet()


async def buffered_at_stop(scene):
    """Two tasks come to a worker that stops; one of them it has fetched and not taken."""
    scene.enter(Phase.NATS_PRIMARY)
    gate = Gate()
    async with scene.worker(1, service=gate, concurrency=4, block_s=5.0) as worker:
        await scene.quiet()
        worker.request_stop()
        await scene.put(scene.task())
        await eventually(lambda: gate.inside, what="a task in hand")
        await scene.put(scene.task())
        await scene.sees(lambda sample: sample.ack_pending == 2, "the second delivery")
        gate.open.set()
    async with scene.worker(2):
        await scene.quiet()


async def backlog_before_the_consumer(scene):
    """Three tasks are in the stream before its consumer exists."""
    await _work(scene, Phase.NATS_PRIMARY, scene.tasks())


async def reaped(scene):
    """A reaper takes a task from a slow worker, another one does it, and then the first one fails.

    The lists are as the hardened design will use them: hazards R4 and R5 closed.
    """
    scene.enter(Phase.REDIS_ONLY)
    task, gate, fail_once = scene.task(), Gate(), Failing(1)

    async def slow(task, execution):
        await gate(task, execution)
        await fail_once(task, execution)

    with environment(strict_lists=True):
        await scene.put(task)
        async with scene.worker(1, service=slow):
            await eventually(lambda: gate.inside, what="a task in hand")
            async with scene.worker(2):
                await _reap(scene, encode_task(task))
                await scene.quiet()
                gate.open.set()
                await scene.quiet()


async def _reap(scene, payload):
    """What a reaper does: there is none yet."""
    opened = scene.connections()
    try:
        redis = opened.redis()
        assert await redis.lrem(scene.names.work_key("sync"), 1, payload) == 1
        await redis.lpush(scene.names.pending_key("sync"), payload)
    finally:
        await opened.close()


async def _flush(scene, redis_url, *tasks):
    """Spool tasks as the hook does, flush them, and let a worker do them."""
    scene.enter(Phase.REDIS_ONLY)
    path = scene.folder / "spool.sqlite"
    with Spool(path) as spool:
        for task in tasks:
            now_ns = scene.clock.monotonic_ns()
            spool.add(str(task.id), encode_task(task), intended_ns=now_ns, boot_id=boot_id())
            scene.pushes += 1
    config = HookConfig(
        repo_id=tasks[0].repo_id,
        spool=str(path),
        redis_url=redis_url,
        phase=Phase.REDIS_ONLY.label,
        prefix=scene.names.prefix,
        ledger=str(scene.ledger),
        flush_for_s=_FLUSH_FOR_S,
        linger_s=0.0,
        owner_pid=os.getpid(),
    )
    await Flush(config, clock=scene.clock, dialer=scene.ground.dialer(PRODUCER)).run()
    with Spool(path) as spool:
        scene.spooled = [str(decode_task(row.task).id) for row in spool.oldest(len(tasks))]
    async with scene.worker(1):
        await scene.quiet()


async def pushed(scene):
    """A spooled push whose first LPUSH never arrives: the flush sends it again."""
    async with scene.wire(drop_commands=1) as wire:
        await _flush(scene, wire.url, scene.task())


async def pushed_in_order(scene):
    """Three pushes to one repository, spooled and flushed in their order."""
    scene.bounds = Bounds(max_inversions=0)
    await _flush(scene, scene.redis_url, *[scene.task() for _ in range(3)])


async def redis_plain_task(scene):
    """One plain task through Redis."""
    await _work(scene, Phase.REDIS_ONLY, [scene.task()])


async def nats_plain_task(scene):
    """One plain task through NATS, with a lease of 0.5 s."""
    await _work(scene, Phase.NATS_PRIMARY, [scene.task()], leases=True, lease_s=LEASE_S)


async def two_plain_tasks(scene):
    """Two plain tasks through Redis, in repositories of their own."""
    tasks = [scene.task(repository=name) for name in ("repo-1", "repo-2")]
    await _work(scene, Phase.REDIS_ONLY, tasks)
