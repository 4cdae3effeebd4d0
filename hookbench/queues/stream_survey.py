"""The queue on a Redis stream from outside, for observers."""

from hookbench.queues.base import Depth
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_stream import GROUP, PAYLOAD_FIELD
from hookbench.task import Names

__all__ = ["DEPTH", "StreamSurvey"]

# KEYS: the stream. ARGV: the group. A stream that nobody has read has no group yet.
DEPTH = """
local length = redis.call('XLEN', KEYS[1])
if length == 0 then return {0, 0} end
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1])
return {length, held.err and 0 or held[1]}
"""
_READ_PAGE = 1000


class StreamSurvey:
    """A stream from outside; nothing is created, read as a consumer, or changed.

    It counts and tells what is in the stream: acknowledged entries have to be deleted.
    """

    def __init__(
        self, client: RedisClient, *, names: Names | None = None, task_type: str = "sync"
    ) -> None:
        self._client = client
        self.key = (names or Names()).stream_key(task_type)

    async def depth(self) -> Depth:
        """What is not yet read, and what is pending in the group, at one moment."""
        with broker_errors(f"XLEN {self.key}"):
            length, held = await self._client.eval(DEPTH, 1, self.key, GROUP)
        return Depth(pending=length - held, in_flight=held)

    async def contents(self) -> tuple[list[bytes], list[bytes]]:
        """All payloads not yet read, and all that are pending."""
        held: set[bytes] = set()
        unread: list[bytes] = []
        pending: list[bytes] = []
        depth = await self.depth()
        with broker_errors(f"XPENDING {self.key}"):
            if depth.in_flight:
                found = await self._client.xpending_range(
                    self.key, GROUP, "-", "+", depth.in_flight
                )
                held = {item["message_id"] for item in found}
            start = b"-"
            while True:
                page = await self._client.xrange(self.key, start, b"+", _READ_PAGE)
                for entry_id, fields in page:
                    (pending if entry_id in held else unread).append(fields.get(PAYLOAD_FIELD, b""))
                if len(page) < _READ_PAGE:
                    return unread, pending
                start = b"(" + page[-1][0]
