"""Epochs: each entry into reading NATS has a consumer of its own, from the watermark.

A durable consumer cannot be told to start elsewhere (error 10012), so a new entry needs a new one.
All workers of a fleet must mean the same consumer, so the first that needs an epoch writes its
number and its first sequence into a stream of one subject per task type, on the condition that
nobody was faster (``Nats-Expected-Last-Subject-Sequence``); the others read it. A crash between
the record and the consumer leaves a record that is not ``made``: the next worker makes it.

- A consumer that is there is joined.
- One that is gone although it was made, or starts elsewhere, has been deleted: where it stood is
  not known any more, and only a new epoch may follow.
- An epoch that was left for reading Redis is closed: what was done there is unknown to it.
"""

import logging

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import ConsumerInfo, DeliverPolicy, StorageType

from hookbench.errors import BrokerUnreachableError
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    consumer_config,
    differences_of,
    ensure_durable,
    ensure_named_stream,
)
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import NO_ANCHOR, Anchor, EndedFn, find_watermark

__all__ = [
    "FIRST_ENTRY",
    "NEVER",
    "Entry",
    "Epoch",
    "close_epoch",
    "consumer_drift",
    "current_consumer",
    "epoch_consumer_name",
    "open_epoch",
    "read_epoch",
]

_log = logging.getLogger(__name__)

_TRIES = 20
_KEPT_RECORDS = 100
_MARK = "hookbench.epoch"
"""In the metadata of a consumer: that this project made it, and for which epoch."""
_WRONG_LAST_SEQUENCE = 10071
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
NEVER = -1
"""The step of something that has not happened."""


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers have agreed on.

    Attributes:
        number: 1 for the first.
        start_sequence: the first sequence of the stream that its consumer delivers.
        entry: the step of the timeline in which it was begun.
        made: its consumer was there.
        closed: it was left: nobody may join it any more.
        anchor: what was below its start, for the search of the next one.
    """

    number: int
    start_sequence: int
    entry: int
    made: bool = False
    closed: bool = False
    anchor: Anchor = NO_ANCHOR


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker comes to read NATS.

    Attributes:
        step: of the timeline, in which it does.
        redis_step: the last one in which it read Redis, ``NEVER`` if it has not: an epoch that was
            begun before that one was left meanwhile.
    """

    step: int = 0
    redis_step: int = NEVER


FIRST_ENTRY = Entry()
_decoder = msgspec.json.Decoder(Epoch)


def epoch_consumer_name(transport: AppTransport, task_type: str, number: int) -> str:
    """``hook-sync-worker-e2``."""
    return f"{transport.names.consumer_of(task_type)}-e{number}"


async def read_epoch(transport: AppTransport, task_type: str) -> tuple[Epoch | None, int]:
    """The last record of a task type, and its revision; ``None`` and 0 if there is none.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    names = transport.names
    try:
        message = await transport.jetstream.get_last_msg(
            names.epochs_stream, names.epoch_subject(task_type)
        )
    except nats.js.errors.NotFoundError:
        return None, 0
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"epochs of {names.stream}: {error!r}") from error
    return _decoder.decode(message.data or b""), message.seq or 0


async def current_consumer(transport: AppTransport, task_type: str = "sync") -> str:
    """The consumer that workers use now: of the last epoch, or the one without epochs.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    epoch, _revision = await read_epoch(transport, task_type)
    if epoch is None:
        return transport.names.consumer_of(task_type)
    return epoch_consumer_name(transport, task_type, epoch.number)


async def consumer_drift(
    transport: AppTransport, consumer: ConsumerSettings, *, sized: bool = False
) -> list[str]:
    """What the consumer that workers use now has otherwise than they would make it.

    It is only looked at; one that is not there yet has no drift.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    name = await current_consumer(transport, consumer.task_type)
    info = await _find(transport, name)
    if info is None:
        return []
    wanted = consumer_config(transport, consumer)
    if sized:
        del wanted["max_ack_pending"]
    return differences_of(wanted, info.config)


async def open_epoch(
    transport: AppTransport,
    consumer: ConsumerSettings,
    *,
    entry: Entry,
    ended: EndedFn | None,
    stream: StreamSettings,
    sized: bool = False,
) -> Epoch:
    """Join the epoch of the fleet, or begin one at the watermark.

    Args:
        transport: the connection.
        consumer: settings of the consumer, and its task type.
        entry: how the caller comes to read NATS.
        ended: who knows which tasks have ended, see ``find_watermark``.
        stream: settings of the hook stream; the records are stored alike.
        sized: max-ack-pending is changed in place, and may differ.

    Raises:
        ConfigDriftError: the consumer of the epoch has other settings.
        BrokerUnreachableError: the server does not answer, or others begin epochs all the time.
    """
    await _ensure_records(transport, stream)
    task_type = consumer.task_type
    for _ in range(_TRIES):
        epoch, revision = await read_epoch(transport, task_type)
        if epoch is not None and not _is_left(epoch, entry):
            name = epoch_consumer_name(transport, task_type, epoch.number)
            info = await _find(transport, name)
            if _is_whole(info, epoch) or (info is None and not epoch.made):
                await _make(transport, consumer, epoch, sized=sized)
                if not epoch.made:
                    made = msgspec.structs.replace(epoch, made=True)
                    await _write(transport, task_type, made, revision)
                await _remove_old(transport, task_type, epoch)
                return epoch
            _log.warning(
                "consumer of epoch %d was deleted or made anew: a new epoch begins", epoch.number
            )
        anchor = NO_ANCHOR if epoch is None else epoch.anchor
        mark = await find_watermark(transport, task_type, ended, anchor=anchor)
        begun = Epoch(
            number=epoch.number + 1 if epoch is not None else 1,
            start_sequence=mark.sequence,
            entry=entry.step,
            anchor=mark.anchor,
        )
        if await _write(transport, task_type, begun, revision):
            _log.warning(
                "epoch %d of %s starts at sequence %d, %d tasks have ended since the last one",
                begun.number,
                task_type,
                begun.start_sequence,
                mark.ended,
            )
    raise BrokerUnreachableError(
        f"epochs of {transport.names.stream}: others began {_TRIES} epochs meanwhile; try again"
    )


async def close_epoch(transport: AppTransport, task_type: str, number: int) -> None:
    """Say that an epoch was left: whoever reads NATS next begins another one.

    Raises:
        BrokerUnreachableError: the server does not answer.
    """
    for _ in range(_TRIES):
        epoch, revision = await read_epoch(transport, task_type)
        if epoch is None or epoch.number != number or epoch.closed:
            return
        closed = msgspec.structs.replace(epoch, closed=True)
        if await _write(transport, task_type, closed, revision):
            return


def _is_left(epoch: Epoch, entry: Entry) -> bool:
    return epoch.closed or epoch.entry < entry.redis_step


def _is_whole(info: ConsumerInfo | None, epoch: Epoch) -> bool:
    """Whether it is the consumer that was made for the epoch, and starts where it is to."""
    return (
        info is not None
        and (info.config.metadata or {}).get(_MARK) == str(epoch.number)
        and info.config.opt_start_seq == epoch.start_sequence
    )


async def _ensure_records(transport: AppTransport, stream: StreamSettings) -> None:
    names = transport.names
    wanted = {
        "subjects": [f"epoch.{names.subject_root}.>"],
        "max_msgs_per_subject": _KEPT_RECORDS,
        "storage": StorageType(stream.storage),
        "num_replicas": stream.replicas,
    }
    await ensure_named_stream(transport, names.epochs_stream, wanted)


async def _write(transport: AppTransport, task_type: str, epoch: Epoch, revision: int) -> bool:
    """Write a record after the one of ``revision``; ``False`` if another one came between."""
    names = transport.names
    try:
        await transport.jetstream.publish(
            names.epoch_subject(task_type),
            msgspec.json.encode(epoch),
            headers={_EXPECTED: str(revision)},
        )
    except (nats.errors.Error, TimeoutError) as error:
        if getattr(error, "err_code", None) == _WRONG_LAST_SEQUENCE:
            return False
        raise BrokerUnreachableError(f"epochs of {names.stream}: {error!r}") from error
    return True


async def _find(transport: AppTransport, name: str) -> ConsumerInfo | None:
    try:
        info: ConsumerInfo = await transport.jetstream.consumer_info(transport.names.stream, name)
    except nats.js.errors.NotFoundError:
        return None
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"consumer {name}: {error!r}") from error
    return info


async def _make(
    transport: AppTransport, consumer: ConsumerSettings, epoch: Epoch, *, sized: bool
) -> None:
    """Create the consumer of an epoch, or check it."""
    name = epoch_consumer_name(transport, consumer.task_type, epoch.number)
    wanted = consumer_config(transport, consumer) | {
        "deliver_policy": DeliverPolicy.BY_START_SEQUENCE,
        "opt_start_seq": epoch.start_sequence,
    }
    at_first: dict[str, object] = {"metadata": {_MARK: str(epoch.number)}}
    if sized:
        at_first["max_ack_pending"] = wanted.pop("max_ack_pending")
    await ensure_durable(transport, name, wanted, at_first=at_first)


async def _remove_old(transport: AppTransport, task_type: str, epoch: Epoch) -> None:
    """Remove consumers of earlier epochs that nobody uses: no pull waits, nothing is in flight.

    Only those that bear the mark of this project; a worker that still used one moves on when its
    next read fails.
    """
    names = transport.names
    subject = names.subject(task_type)
    try:
        for info in await transport.jetstream.consumers_info(names.stream):
            number = (info.config.metadata or {}).get(_MARK, "")
            mine = number.isdecimal() and info.config.filter_subject == subject
            if not mine or int(number) >= epoch.number:
                continue
            if info.name != epoch_consumer_name(transport, task_type, int(number)):
                continue
            if not info.num_waiting and not info.num_ack_pending:
                await transport.jetstream.delete_consumer(names.stream, info.name)
    except nats.js.errors.NotFoundError:
        return  # another worker was faster
    except (nats.errors.Error, TimeoutError) as error:
        _log.warning("consumers of earlier epochs are left for later: %r", error)
