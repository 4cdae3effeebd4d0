"""Which tasks the dead letters on the brokers are about."""

import re
import uuid

import msgspec

from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.task import Names
from hookbench.worker.dead_letters import DeadLetter

__all__ = ["dead_in_nats", "dead_in_redis", "id_of_letter"]

_WINDOW = 256
_ID_OF_CUT = re.compile(rb'^\{"id": ?"([0-9a-f-]{36})"')
_decoder = msgspec.json.Decoder(DeadLetter)


def id_of_letter(data: bytes) -> uuid.UUID | None:
    """The task that a letter is about; one about junk is about none.

    The payload of an oversize letter is cut, and no JSON any more.
    """
    payload = _decoder.decode(data).payload
    found = id_of_payload(payload)
    if found is None and (match := _ID_OF_CUT.search(payload)) is not None:
        found = uuid.UUID(match[1].decode())
    return found


async def dead_in_nats(transport: AppTransport, task_type: str | None = None) -> set[uuid.UUID]:
    """Tasks of which the stream of dead letters holds one; of one type, or of all.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    names = transport.names
    subject = None if task_type is None else names.dead_subject(task_type)
    found: set[uuid.UUID | None] = set()
    async for stored in read_windows(transport, names.dead_stream, subject=subject):
        found.update(id_of_letter(item.payload) for item in stored)
    return {item for item in found if item is not None}


async def dead_in_redis(client: RedisClient, names: Names, task_type: str) -> set[uuid.UUID]:
    """Tasks of which the Redis list of dead letters holds one.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    key = names.dead_key(task_type)
    found: set[uuid.UUID | None] = set()
    with broker_errors(f"LRANGE {key}"):
        start = 0
        while letters := await client.lrange(key, start, start + _WINDOW - 1):
            found.update(id_of_letter(letter) for letter in letters)
            start += len(letters)
    return {item for item in found if item is not None}
