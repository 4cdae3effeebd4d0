"""max-ack-pending with room for every slot of every worker (hazard N5).

By Little's law a fleet has rate times duration tasks in work, and never more than it has slots:
that is its capacity. A bound of one number for all, as the guide's 100, lets a worker that hangs
with its slots full starve the others. So each worker announces its slots, and the consumer is
changed in place to their sum with head-room: whoever hangs holds its own slots and nobody else's.

An announcement outlives its worker by AckWait, for as long as what it had in hand is not delivered
to others.
"""

import json
import logging
import math
from typing import Any

import nats.errors
import nats.js.errors
from nats.js.api import StorageType

from hookbench.clock import Clock
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError, HookbenchError
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings, ensure_named_stream
from hookbench.queues.transport import AppTransport

__all__ = ["SlotBook", "pending_for"]

_log = logging.getLogger(__name__)

HEADROOM = 1.25
MOST = 100_000
ANNOUNCE_S = 5.0
_MISSED = 3
"""Announcements that may fail before a worker counts as gone, beside its AckWait."""
_SHRINK = 2
_TIMEOUT_S = 5.0


def pending_for(slots: int, *, floor: int, headroom: float = HEADROOM) -> int:
    """max-ack-pending for so many slots.

    Args:
        slots: of all workers together: what rate times duration comes to at the most.
        floor: the setting, below which it does not go.
        headroom: for workers that have not announced themselves yet.
    """
    return min(MOST, max(floor, math.ceil(slots * headroom)))


class SlotBook:
    """Announces the slots of this process for one task type, and keeps the consumer's bound.

    Args:
        transport: the connection.
        settings: of the consumer; its max-ack-pending is the floor.
        stream: settings of the hook stream; the announcements are as many-fold.
        worker: a name of this process that no other has, a token of a subject.
        slots: tasks that it may have in work at once.
        clock: for the time between announcements.
    """

    def __init__(
        self,
        transport: AppTransport,
        settings: ConsumerSettings,
        stream: StreamSettings,
        *,
        worker: str,
        slots: int,
        clock: Clock,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._stream = stream
        self._front = transport.names.worker_subject(settings.task_type)
        self._subject = f"{self._front}.{worker}.{slots}"
        self._clock = clock

    async def keep(self) -> None:
        """Announce, and adjust the consumer, until cancelled."""
        while True:
            try:
                await self.adjust()
            except HookbenchError as error:
                _log.warning("max-ack-pending is left as it is: %s", error)
            await self._clock.sleep(ANNOUNCE_S)

    async def adjust(self) -> int:
        """Announce, and change the consumer if the slots ask for it; its max-ack-pending.

        It grows at once, and shrinks when it is twice what is needed.

        Raises:
            BrokerUnreachableError: the server does not answer.
            BrokerUnsuitableError: it refuses the change.
        """
        try:
            await self._announce()
            return await self._adjust(await self.announced())
        except nats.js.errors.APIError as error:
            raise BrokerUnsuitableError(f"max-ack-pending: {error}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"max-ack-pending: {error!r}") from error

    async def announced(self) -> int:
        """Slots of all workers that have announced themselves, those that just left included."""
        names = self._transport.names
        info = await self._transport.jetstream.stream_info(
            names.workers_stream, subjects_filter=f"{self._front}.>"
        )
        return sum(int(subject.rpartition(".")[2]) for subject in info.state.subjects or {})

    async def _announce(self) -> None:
        names = self._transport.names
        wanted = {
            "subjects": [f"worker.{names.subject_root}.>"],
            "max_msgs_per_subject": 1,
            "max_age": self._settings.ack_wait_s + _MISSED * ANNOUNCE_S,
            "storage": StorageType.MEMORY,
            "num_replicas": self._stream.replicas,
        }
        await ensure_named_stream(self._transport, names.workers_stream, wanted)
        await self._transport.jetstream.publish(self._subject, b"")

    async def _adjust(self, slots: int) -> int:
        names = self._transport.names
        durable = self._transport.consumer_of(names.subject(self._settings.task_type))
        if durable is None:
            raise BrokerUnsuitableError(f"no consumer for {self._settings.task_type} yet")
        path = f"{names.stream}.{durable}"
        config = (await self._ask(f"CONSUMER.INFO.{path}"))["config"]
        found = int(config.get("max_ack_pending", 0))
        wanted = pending_for(slots, floor=self._settings.max_ack_pending)
        if wanted <= found < _SHRINK * wanted:
            return found
        # The JSON as it was told: what this client does not know stays as it is. An update, so
        # that a consumer that was deleted meanwhile is not made anew.
        body = {
            "stream_name": names.stream,
            "config": config | {"max_ack_pending": wanted},
            "action": "update",
        }
        await self._ask(f"CONSUMER.DURABLE.CREATE.{path}", body)
        _log.info("max-ack-pending of %s: %d, was %d (%d slots)", durable, wanted, found, slots)
        return wanted

    async def _ask(self, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        client = self._transport.client
        message = await client.request(f"$JS.API.{request}", data, timeout=_TIMEOUT_S)
        answer: dict[str, Any] = json.loads(message.data)
        if error := answer.get("error"):
            raise BrokerUnsuitableError(f"{request}: {error.get('description', error)}")
        return answer
