"""Bugs on the paths of the measures, each with the checks of the witness that must see it."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock

from hookbench.ledger.events import Broker, Event, NullRecorder
from hookbench.migration import consumer
from hookbench.migration.done_store import MovingStore
from hookbench.migration.phases import Phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.received import decode_delivery
from hookbench.migration.records import MovedRecords
from hookbench.migration.sweeper import PutOutcome
from hookbench.queues import redis_reaper
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.moving import Mover
from hookbench.queues.nats_message import NatsMessage
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.redis_hands import RedisHands
from hookbench.queues.redis_lease import RedisLease
from hookbench.queues.redis_scripts import REAP
from hookbench.worker.claims import Claims
from hookbench.worker.loop import Worker
from tests.witness.small import BACK, PHASES

__all__ = ["BUGS", "Bug"]

_LATE_S = 0.2


class Bug(NamedTuple):
    """How it is planted, and what sees it."""

    plant: Callable[[], AbstractContextManager[Any]]
    seen_by: tuple[str, ...]
    phases: tuple[Phase, ...] = PHASES


def _in_place_of(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: mock.patch.object(owner, name, make(getattr(owner, name)))


def _unrecorded_from(broker: Broker) -> Callable[[Any], Any]:
    def make(_original: Any) -> Any:
        def decode(delivery: Any, recorder: Any) -> Any:
            return decode_delivery(
                delivery, NullRecorder() if delivery.broker is broker else recorder
            )

        return decode

    return make


def _take_unrecorded(original: Any) -> Any:
    async def take(self: Any, item: Any, task: Any, **more: Any) -> Any:
        self._recorder = NullRecorder()
        return await original(self, item, task, **more)

    return take


def _say_yes(_original: Any) -> Any:
    async def complete(_self: Any, _claim: Any) -> bool:
        return True

    return complete


def _leave_in_list(original: Any) -> Any:
    async def remove(self: Any, delivery: Any, *, again: bool) -> int:
        return await original(self, delivery, again=True) if again else 1

    return remove


def _send_no_ack(_original: Any) -> Any:
    async def send_ack(_self: Any) -> Any:
        confirmed = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    return send_ack


def _without_redis(*, recorded: bool) -> Callable[[Any], Any]:
    """The first put on Redis is left out of the step in which NATS has all tasks as well."""

    def make(original: Any) -> Any:
        async def put_on(self: Any, broker: Broker, item: Any, *, doubtful: bool) -> PutOutcome:
            here = broker is Broker.REDIS and PHASES[self._recorder.phase] is Phase.DUAL_READ
            if here and not hasattr(self, "left_out"):
                self.left_out = True
                if recorded:
                    key = item.task.id.bytes
                    self._recorder.record(Event.PUT_OK, key, broker=broker, value=1)
                return PutOutcome.OK
            return await original(self, broker, item, doubtful=doubtful)

        return put_on

    return make


def _trim_at_once(original: Any) -> Any:
    async def process(self: Any, item: Any) -> None:
        self._trim(item)
        await asyncio.sleep(_LATE_S)
        await original(self, item)

    return process


def _reap_twice() -> AbstractContextManager[Any]:
    counted = "redis.call('HINCRBY', KEYS[4], name(payload), 1)"
    assert counted in REAP
    twice = REAP.replace(counted, f"{counted}\n  redis.call('RPUSH', KEYS[3], payload)")
    return mock.patch.object(redis_reaper, "REAP", twice)


def _say_nothing(_original: Any) -> Any:
    return lambda _self, _tasks: None


def _leave_records(_original: Any) -> Any:
    async def hand_over(_self: Any, _target: Any) -> MovedRecords:
        return MovedRecords()

    return hand_over


def _push_unrecorded(original: Any) -> Any:
    async def push(self: Any, *arguments: Any) -> int:
        self._recorder = NullRecorder()
        return await original(self, *arguments)

    return push


def _push_nothing(_original: Any) -> Any:
    async def push(_self: Any, *_arguments: Any) -> int:
        return 0

    return push


BUGS = {
    "claim from Redis not recorded": Bug(
        _in_place_of(consumer, "decode_delivery", _unrecorded_from(Broker.REDIS)),
        ("redis_claims",),
    ),
    "delivery of NATS not recorded": Bug(
        _in_place_of(consumer, "decode_delivery", _unrecorded_from(Broker.NATS)),
        ("nats_deliveries",),
    ),
    "claim in the done-store not recorded": Bug(
        _in_place_of(Claims, "take", _take_unrecorded), ("claims", "done_by_claim")
    ),
    "completion not written to Redis": Bug(
        _in_place_of(RedisDoneStore, "complete", _say_yes), ("done_records", "redis_removed_early")
    ),
    "completion not written to NATS": Bug(
        _in_place_of(KvDoneStore, "complete", _say_yes), ("done_records",)
    ),
    "acknowledgement left out on Redis": Bug(
        _in_place_of(RedisHands, "_remove", _leave_in_list), ("redis_removals", "redis_ended")
    ),
    "acknowledgement left out on NATS": Bug(
        _in_place_of(NatsMessage, "send_ack", _send_no_ack),
        ("nats_acks", "nats_ended", "nats_confirmed", "nats_settled"),
    ),
    "accepted with one broker missing": Bug(
        _in_place_of(ReceiveSyncService, "put_on", _without_redis(recorded=False)), ("routes",)
    ),
    "put recorded and not made": Bug(
        _in_place_of(ReceiveSyncService, "put_on", _without_redis(recorded=True)),
        ("redis_puts", "routes"),
    ),
    "put back twice by the reaper": Bug(_reap_twice, ("redis_copies",)),
    "put back and not recorded": Bug(
        _in_place_of(RedisLease, "record", _say_nothing), ("redis_put_back",)
    ),
    "copy removed before the task has ended": Bug(
        _in_place_of(Worker, "_process", _trim_at_once), ("redis_trims",)
    ),
    "records not moved to NATS": Bug(
        _in_place_of(MovingStore, "hand_over", _leave_records), ("records_moved",)
    ),
    "moved by a procedure and not recorded": Bug(
        _in_place_of(Mover, "_push_once", _push_unrecorded), ("redis_moves",), BACK
    ),
    "taken from NATS and not moved": Bug(
        _in_place_of(Mover, "_push_once", _push_nothing), ("nats_drained",), BACK
    ),
}
