import asyncio

from hookbench.brokers.redis_memory import RedisMemory
from hookbench.cancellation import cancel
from hookbench.errors import BrokerUnreachableError
from hookbench.worker.memory_watch import EVERY_S, watch_memory
from tests.virtual import VirtualClock


def node(policy="noeviction", used_bytes=0):
    return RedisMemory(
        url="redis://there",
        version="8.2.3",
        policy=policy,
        used_bytes=used_bytes,
        maxmemory_bytes=100,
    )


async def watched(*answers):
    """What is announced while the memory is as ``answers`` tell, one after the other."""
    clock = VirtualClock()
    said = []
    rest = list(answers)

    async def read():
        answer = rest.pop(0) if rest else answers[-1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    watching = asyncio.ensure_future(watch_memory(read, said.append, clock))
    await clock.sleep(EVERY_S * (len(answers) + 1))
    await cancel(watching)
    assert not rest
    return [event["alarm"] for event in said if event["event"] == "alarm"]


async def test_a_policy_that_evicts_is_told_once():
    (said,) = await watched([node()], [node("allkeys-lru")], [node("allkeys-lru")])
    assert "allkeys-lru" in said


async def test_what_is_over_and_comes_again_is_told_again():
    full, room = [node(used_bytes=95)], [node(used_bytes=50)]
    assert len(await watched(full, [node(used_bytes=96)], room, full)) == 2


async def test_an_outage_is_no_alarm_and_ends_nothing():
    said = await watched(BrokerUnreachableError("down"), [node()], [node("volatile-lru")])
    assert len(said) == 1
