"""Bugs of Redis work lists with leases."""

from hookbench.queues.redis_hands import RedisHands
from hookbench.queues.redis_reaper import RedisReaper
from tests.mutations import redis_lease_scenarios as scenarios
from tests.mutations.planting import Mutation


def _list_of(reaper, owner):
    return reaper._names.own_work_key(reaper._task_type, owner.decode())


def reaper_drops_what_it_takes(_original, trace):
    async def reap(self, owners):
        for owner in owners:
            key = _list_of(self, owner)
            for payload in await self._client.lrange(key, 0, -1):
                trace.hit(payload)
            await self._client.delete(key)

    return reap


def reaper_leaves_what_it_finds(_original, trace):
    async def reap(self, owners):
        for owner in owners:
            for payload in await self._client.lrange(_list_of(self, owner), 0, -1):
                trace.hit(payload)

    return reap


def stale_nak_puts_back(original, trace):
    async def remove(self, delivery, *, again):
        held = await original(self, delivery, again=again)
        if again and not held:
            trace.hit(delivery)
            await self._client.lpush(self._pending, delivery.payload)
        return held

    return remove


MUTATIONS = (
    Mutation(
        name="reaper-drops-what-it-takes",
        owner=RedisReaper,
        attribute="reap",
        plant=reaper_drops_what_it_takes,
        what="the tasks of a dead worker are taken out of its list and not put back",
        scenario=scenarios.dead_owner,
        invariant=1,
        row="redis_only",
        cause=("lost", "accepted", "-", "-"),
    ),
    Mutation(
        name="reaper-leaves-what-it-finds",
        owner=RedisReaper,
        attribute="reap",
        plant=reaper_leaves_what_it_finds,
        what="nobody puts back the tasks of a dead worker",
        scenario=scenarios.dead_owner,
        invariant=5,
        row="redis_only",
        hazard="R3",
    ),
    Mutation(
        name="stale-nak-puts-back",
        owner=RedisHands,
        attribute="_remove",
        plant=stale_nak_puts_back,
        what="a worker that lost its lease gives its task back although another one did it (R5)",
        scenario=scenarios.lease_lost,
        invariant=4,
        row="redis_only",
        cause=("duplicate", "ack_sent", "-", "-"),
    ),
)
