"""The part of the JetStream API that faults of stream and consumer use.

Configurations are JSON as the server tells them, so that an update changes what it names and
nothing else, also settings that no client knows. See
https://docs.nats.io/reference/reference-protocols/nats_api_reference.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from hookbench.errors import BrokerUnreachableError, FaultError, FaultTargetMissingError
from hookbench.faults.administration import Administration
from hookbench.faults.base import FaultNotFiredError

__all__ = [
    "ask",
    "change_consumer",
    "change_stream",
    "consumer_info",
    "consumer_name",
    "create_consumer",
    "delete_consumer",
    "find_consumer",
    "stream_info",
]

_CONSUMER_NOT_FOUND = 10014
_CHANGED_HANDS = (10148, 10149)  # JSConsumerAlreadyExists, JSConsumerDoesNotExist
"""Of a consumer that somebody made while it was to be made, or deleted while it was to change."""
_NO_RECORD = (10037, 10059)  # JSNoMessageFoundErr, JSStreamNotFoundErr
_UNAVAILABLE = 503
_OTHER_ONE = "can not be updated"
"""What the server says of an update that was read from another consumer of the name."""
_NOT_FOUND = (_CONSUMER_NOT_FOUND, 10059)
_START_FIELDS = ("opt_start_seq", "opt_start_time")
Config = dict[str, Any]


async def ask(
    administration: Administration, request: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answer to a request.

    Raises:
        FaultError: it is an error; the text has it.
        BrokerUnreachableError: there is none.
    """
    return _checked(request, await administration.jetstream(request, body))


def _checked(request: str, answer: dict[str, Any]) -> dict[str, Any]:
    error = answer.get("error")
    if not error:
        return answer
    text = f"JetStream refused {request}: {error.get('description', error)}"
    if error.get("err_code") in _NOT_FOUND:
        raise FaultTargetMissingError(f"{text}: no phase has made it yet; use a later at_s")
    if _OTHER_ONE in text or error.get("err_code") in _CHANGED_HANDS:
        raise FaultTargetMissingError(f"{text}: it was deleted or made anew meanwhile")
    if error.get("code") == _UNAVAILABLE:  # no leader, of the stream or of JetStream
        raise BrokerUnreachableError(text)
    raise FaultError(text)


async def stream_info(administration: Administration) -> dict[str, Any]:
    """``config``, ``state`` and ``cluster`` of the hook stream; errors as of ``ask``."""
    return await ask(administration, f"STREAM.INFO.{administration.names.stream}")


async def consumer_name(administration: Administration) -> str:
    """The workers' consumer: that of the last epoch, if the workers have agreed on epochs."""
    names = administration.names
    request = f"STREAM.MSG.GET.{names.epochs_stream}"
    answer = await administration.jetstream(request, {"last_by_subj": names.epoch_subject("sync")})
    if (answer.get("error") or {}).get("err_code") in _NO_RECORD:
        return names.consumer
    record = json.loads(base64.b64decode(_checked(request, answer)["message"]["data"]))
    return f"{names.consumer}-e{record['number']}"


async def find_consumer(administration: Administration, name: str) -> dict[str, Any] | None:
    """As ``consumer_info`` of a consumer, ``None`` where there is no such one."""
    request = f"CONSUMER.INFO.{administration.names.stream}.{name}"
    answer = await administration.jetstream(request)
    if (answer.get("error") or {}).get("err_code") == _CONSUMER_NOT_FOUND:
        return None
    return _checked(request, answer)


async def consumer_info(administration: Administration) -> dict[str, Any]:
    """``config``, ``created`` and ``delivered`` of the workers' consumer; errors as of ``ask``."""
    name = await consumer_name(administration)
    return await ask(administration, f"CONSUMER.INFO.{administration.names.stream}.{name}")


async def change_stream(administration: Administration, changes: Config) -> None:
    """Update the hook stream in place, and read it back.

    Raises:
        FaultNotFiredError: it did not become what was asked for.
        FaultError, BrokerUnreachableError: see ``ask``.
    """
    config = (await stream_info(administration))["config"]
    stream = administration.names.stream
    await ask(administration, f"STREAM.UPDATE.{stream}", config | changes)
    found = (await stream_info(administration))["config"]
    _compare(f"stream {stream}", changes, found)


async def change_consumer(administration: Administration, changes: Config) -> None:
    """Update the workers' consumer in place, and read it back; errors as of ``change_stream``."""
    config = (await consumer_info(administration))["config"]
    await _put_consumer(administration, config | changes, action="update")
    found = (await consumer_info(administration))["config"]
    _compare(f"consumer {_name_in(administration, config)}", changes, found)


def _compare(what: str, wanted: Config, found: Config) -> None:
    wrong = [
        f"{name} is {found.get(name)}, not {value}"
        for name, value in wanted.items()
        if found.get(name, 0) != value
    ]
    if wrong:
        raise FaultNotFiredError(f"{what}, read back after its update: {', '.join(wrong)}")


async def delete_consumer(administration: Administration, name: str) -> None:
    """Delete a consumer; errors as of ``ask``."""
    await ask(administration, f"CONSUMER.DELETE.{administration.names.stream}.{name}")


async def create_consumer(administration: Administration, config: Config) -> None:
    """Create the workers' consumer with the settings of a former one, from the first task on."""
    anew = {name: value for name, value in config.items() if name not in _START_FIELDS}
    await _put_consumer(administration, anew | {"deliver_policy": "all"}, action="create")


async def _put_consumer(administration: Administration, config: Config, *, action: str) -> None:
    names = administration.names
    body = {"stream_name": names.stream, "config": config, "action": action}
    path = f"{names.stream}.{_name_in(administration, config)}"
    await ask(administration, f"CONSUMER.DURABLE.CREATE.{path}", body)


def _name_in(administration: Administration, config: Config) -> str:
    return str(config.get("durable_name") or administration.names.consumer)
