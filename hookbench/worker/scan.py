"""The stream compared with what is done and what is dead: which tasks have neither end.

A witness beside the account of the workers (hazard N3): a consumer that has given a task up says
so once, in an advisory, and has nothing pending any more.
"""

import enum
import uuid

import msgspec
import nats.errors
import nats.js.errors

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.migration.done_store import DoneStore
from hookbench.queues.advisories import Advisory, read_advisories
from hookbench.queues.epochs import current_consumer
from hookbench.queues.stream_windows import WINDOW, Stored, read_windows
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.worker.letter_ids import dead_in_nats

__all__ = ["OpenState", "OpenTask", "ScanReport", "scan_stream"]

EXAMPLES = 100


class OpenState(enum.StrEnum):
    """Why a task of the stream has no end yet.

    - ``given_up``: an advisory says that its last delivery was not answered: nothing brings it
      back;
    - ``unread``: the consumer has not come to it;
    - ``in_hand``: delivered, and its consumer may still wait for it;
    - ``acknowledged``: acknowledged, and not done: it is lost, unless somebody puts it back.
    """

    GIVEN_UP = "given_up"
    UNREAD = "unread"
    IN_HAND = "in_hand"
    ACKNOWLEDGED = "acknowledged"


class OpenTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is neither done nor dead."""

    sequence: int
    task_id: uuid.UUID
    state: OpenState
    age_s: float
    advisories: tuple[Advisory, ...] = ()


class ScanReport(msgspec.Struct, kw_only=True):
    """What a scan found.

    Attributes:
        done_known: whether a done-store was asked; without one only what an advisory or the
            consumer's own position proves is counted as open.
        tasks: tasks of the type in the stream.
        done: of those.
        dead: of those.
        junk: payloads that are no task.
        open: how many have no end, by state.
        examples: the first of them.
        advisories: how many were captured.
    """

    stream: str
    task_type: str
    consumer: str
    done_known: bool
    tasks: int = 0
    done: int = 0
    dead: int = 0
    junk: int = 0
    open: dict[OpenState, int] = msgspec.field(default_factory=dict)
    examples: list[OpenTask] = msgspec.field(default_factory=list)
    advisories: int = 0

    @property
    def open_count(self) -> int:
        """Tasks without an end."""
        return sum(self.open.values())


class _Position(msgspec.Struct, frozen=True):
    delivered: int
    ack_floor: int


async def scan_stream(
    transport: AppTransport,
    *,
    done: DoneStore | None,
    clock: Clock,
    task_type: str = "sync",
    window: int = WINDOW,
) -> ScanReport:
    """Compare, window by window.

    Raises:
        BrokerUnreachableError: one of those who know does not answer.
    """
    names = transport.names
    consumer = await current_consumer(transport, task_type)
    position = await _position(transport, consumer)
    advisories = await read_advisories(transport)
    dead = await dead_in_nats(transport, task_type)
    report = ScanReport(
        stream=names.stream,
        task_type=task_type,
        consumer=consumer,
        done_known=done is not None,
        advisories=sum(len(items) for items in advisories.values()),
    )
    subject = names.subject(task_type)
    async for stored in read_windows(transport, names.stream, subject=subject, window=window):
        ids = [id_of_payload(item.payload) for item in stored]
        tasks = [task for task in ids if task is not None]
        finished = await done.are_done(tasks) if done is not None else set()
        for item, task in zip(stored, ids, strict=True):
            if task is None:
                report.junk += 1
                continue
            report.tasks += 1
            if task in finished:
                report.done += 1
            elif task in dead:
                report.dead += 1
            else:
                told = tuple(advisories.get(item.sequence, ()))
                state = _state(item, position, told, done_known=done is not None)
                if state is not None:
                    age_s = (clock.wall_ns() - item.stored_ns) / NS_PER_S
                    _add(report, item, task, state, age_s, told)
    return report


async def _position(transport: AppTransport, consumer: str) -> _Position:
    stream = transport.names.stream
    try:
        info = await transport.jetstream.consumer_info(stream, consumer)
    except nats.js.errors.NotFoundError:
        return _Position(0, 0)
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"consumer {consumer}: {error!r}") from error
    delivered = info.delivered.stream_seq if info.delivered else 0
    return _Position(delivered, info.ack_floor.stream_seq if info.ack_floor else 0)


def _state(
    item: Stored, position: _Position, told: tuple[Advisory, ...], *, done_known: bool
) -> OpenState | None:
    if any(advisory.kind == "MAX_DELIVERIES" for advisory in told):
        return OpenState.GIVEN_UP
    if item.sequence > position.delivered:
        return OpenState.UNREAD
    if not done_known:
        return None
    if item.sequence > position.ack_floor:
        return OpenState.IN_HAND
    return OpenState.ACKNOWLEDGED


def _add(
    report: ScanReport,
    item: Stored,
    task: uuid.UUID,
    state: OpenState,
    age_s: float,
    told: tuple[Advisory, ...],
) -> None:
    report.open[state] = report.open.get(state, 0) + 1
    if len(report.examples) < EXAMPLES:
        report.examples.append(
            OpenTask(
                sequence=item.sequence,
                task_id=task,
                state=state,
                age_s=round(age_s, 3),
                advisories=told,
            )
        )
