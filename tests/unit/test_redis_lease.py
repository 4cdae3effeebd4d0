"""The lease in virtual time, over the answers that the scripts give on a real Redis."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from hookbench.errors import BrokerUnreachableError
from hookbench.queues.redis_lease import RedisLease
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.queues.redis_scripts import ADOPT, CLAIM, LOST, MAY_REAP, REAP, TEND
from tests.virtual import VirtualClock

S = 1_000_000_000


class FakeScripts:
    """Leases, and an empty queue."""

    def __init__(self, clock):
        self._clock = clock
        self.ends_ns = {}
        self.lost = set()
        self.renewed_ns = []
        self.reaped = []
        self.adopted = 0
        self.down = False

    async def eval(self, script, _numkeys, *rest):
        if self.down:
            raise RedisConnectionError("down")
        if script == TEND:
            return self._tend(*rest[2:5])
        if script == REAP:
            self.reaped.append(rest[4])
            return [0]
        self.adopted += script == ADOPT
        return {ADOPT: [], CLAIM: [0]}[script]

    async def evalsha(self, *_arguments):
        raise NoScriptError

    def _tend(self, owner, lease_ms, _fresh):
        now_ns = self._clock.monotonic_ns()
        if owner in self.lost:
            return [LOST, 0]
        lasted = self.ends_ns.get(owner, 0) > now_ns
        self.renewed_ns.append(now_ns)
        self.ends_ns[owner] = now_ns + lease_ms * 1_000_000
        ended = [name.encode() for name, end_ns in self.ends_ns.items() if end_ns <= now_ns]
        return [MAY_REAP, 0, *ended] if lasted else [0, 0]


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def redis(clock):
    return FakeScripts(clock)


def lease_of(redis, clock, **options):
    return RedisLease(redis, owner="me", lease_s=9.0, clock=clock, **options)


async def test_a_lease_is_renewed_three_times_in_its_length(redis, clock):
    lease = lease_of(redis, clock)
    begin_ns = clock.now_ns
    for _ in range(91):
        await lease.tend()
        await clock.sleep(0.1)
    assert [at_ns - begin_ns for at_ns in redis.renewed_ns] == [0, 3 * S, 6 * S, 9 * S]


async def test_what_was_not_renewed_stays_due(redis, clock):
    lease = lease_of(redis, clock)
    await lease.tend()
    await clock.sleep(3.0)
    redis.down = True
    for _ in range(2):
        with pytest.raises(BrokerUnreachableError):
            await lease.tend()
    redis.down = False
    await lease.tend()
    assert len(redis.renewed_ns) == 2


async def test_only_a_worker_whose_own_lease_lasted_reaps(redis, clock):
    lease = lease_of(redis, clock)
    redis.ends_ns["gone"] = clock.now_ns
    await lease.tend()
    assert redis.reaped == [], "a new worker knows nothing of what went before"
    await clock.sleep(20.0)  # Redis or the worker was away for longer than a lease
    await lease.tend()
    assert (redis.reaped, redis.adopted) == ([], 0)
    await clock.sleep(3.0)
    await lease.tend()
    assert (redis.reaped, redis.adopted) == ([b"gone"], 1)


async def test_a_lost_name_is_never_used_again(redis, clock):
    lost = []
    lease = lease_of(redis, clock)
    lease.on_lost = lambda: lost.append(lease.owner)
    await lease.tend()
    first = lease.owner
    redis.lost.add(first)
    await clock.sleep(3.0)
    await lease.tend()
    await lease.tend()
    assert lost == [first]
    assert lease.owner != first
    assert lease.owner in redis.ends_ns


async def test_a_worker_keeps_its_lease_over_outages_until_it_stops(redis, clock):
    queue = RedisLeasedQueue(redis, owner="me", lease_s=9.0, clock=clock)
    stopping = asyncio.Event()
    keeping = asyncio.ensure_future(queue.keep(stopping))
    await clock.sleep(10.0)
    redis.down = True
    await clock.sleep(10.0)
    redis.down = False
    await clock.sleep(10.0)
    assert redis.ends_ns[queue.owner] > clock.now_ns
    stopping.set()
    await keeping
    renewed = len(redis.renewed_ns)
    await clock.sleep(30.0)
    assert len(redis.renewed_ns) == renewed >= 6
