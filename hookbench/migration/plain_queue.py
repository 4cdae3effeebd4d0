"""One queue alone, without a phase: what a worker and a producer do on ``redis_stream``."""

from hookbench.errors import OversizeError, PublishRefusedError, PublishUnknownError, SendError
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder, repository_number
from hookbench.migration.received import Received, decode_delivery
from hookbench.queues.base import Queue
from hookbench.task import DEFAULT_TASK_LIMIT_BYTES, HookTask, check_size, encode_task

__all__ = ["QueueConsumer", "QueueProducer"]


class QueueProducer:
    """Puts tasks into one queue; records what ``ReceiveSyncService`` records."""

    def __init__(
        self,
        queue: Queue,
        broker: Broker,
        *,
        limit_bytes: int = DEFAULT_TASK_LIMIT_BYTES,
        recorder: Recorder | None = None,
    ) -> None:
        self._queue = queue
        self._broker = broker
        self._limit_bytes = limit_bytes
        self._recorder = recorder or NullRecorder()

    async def send(self, task: HookTask, *, intended_ns: int = 0) -> int:
        """Put one task; its number in the queue once it is acknowledged.

        Raises:
            OversizeError: larger than ``limit_bytes``; nothing was written.
            SendError: the broker did not acknowledge it; ``outcome`` says whether it may hold it.
        """
        data = encode_task(task)
        key = task.id.bytes
        record = self._recorder.record
        record(
            Event.PUT_INVOKED,
            key,
            value=intended_ns,
            repository=repository_number(task.repo_id),
        )
        try:
            check_size(data, self._limit_bytes)
        except OversizeError:
            record(Event.REFUSED, key)
            raise
        try:
            number = await self._queue.put(data)
        except (OversizeError, PublishRefusedError) as error:
            record(Event.PUT_FAIL, key, broker=self._broker)
            record(Event.REFUSED, key)
            raise SendError(f"task {task.id} was refused: {error}", outcome="fail") from error
        except PublishUnknownError as error:
            record(Event.PUT_UNKNOWN, key, broker=self._broker)
            record(Event.DOUBTFUL, key)
            raise SendError(f"task {task.id} is in doubt: {error}", outcome="unknown") from error
        record(Event.PUT_OK, key, broker=self._broker, value=number)
        record(Event.ACCEPTED, key)
        return number


class QueueConsumer:
    """A worker's source over one queue of one task type; acknowledged after processing."""

    def __init__(
        self, queue: Queue, *, wait_s: float = 5.0, recorder: Recorder | None = None
    ) -> None:
        self._queue = queue
        self._wait_s = wait_s
        self._recorder = recorder or NullRecorder()

    async def receive(self, _task_type: str, limit: int) -> list[Received]:
        """Up to ``limit`` tasks; none when none came within ``wait_s``.

        Raises:
            BrokerUnreachableError: the read failed.
        """
        deliveries = await self._queue.receive(limit, self._wait_s)
        return [decode_delivery(delivery, self._recorder) for delivery in deliveries]

    async def close(self) -> None:
        """Let a blocked read run out."""
        await self._queue.close()
