"""A NATS publish that is repeated, within the duplicate window and after it."""

import asyncio

import msgspec
from nats.js.api import StorageType, StreamConfig

from hookbench.cancellation import cancel
from hookbench.errors import HazardError, SettingError
from hookbench.faults.wire.client import ProxyControl
from hookbench.faults.wire.model import Rule
from hookbench.hazards.bench import Bench
from hookbench.hazards.model import Harm, Hazard, Observation
from hookbench.hazards.producer import Producer
from hookbench.hazards.watching import wait_until_read
from hookbench.migration.phases import Phase
from hookbench.migration.publishing import PublishPatience
from hookbench.task import HookTask

__all__ = ["ROWS"]

_WINDOW_S = 1.0


async def _window_passed(bench: Bench) -> list[Observation]:
    """N2: two acknowledgements of a publish are lost, and the caller sends the same task again.

    Once at once, and once after the duplicate window (1 s here). The guide's publish has no
    Nats-Msg-Id, so its window guards nothing: the repeat inside of it is stored as well. With ids
    the producer itself repeats it inside, and is refused if it could not; what a caller sends
    after the window is stored again, and is the done-store's to filter.
    """
    bench.stream = msgspec.structs.replace(bench.stream, duplicate_window_s=_WINDOW_S)
    await bench.enter(Phase.NATS_PRIMARY)
    await bench.worker()
    proxy = await bench.link("nats")
    with_ids = bench.measures.message_ids or bench.measures.outbox
    refused = [await _refused(bench, proxy)] if with_ids else []
    producer = await bench.producer(nats_url=proxy.url("nats"))
    (task,) = bench.tasks(1)
    if with_ids:
        await proxy.add(Rule(action="drop", direction="reply", command="PubAck", count=1))
        told = await producer.send(task)
        await bench.wait_until(lambda: _dropped(proxy, 1), "an acknowledgement is dropped")
        await bench.wait_until(producer.swept, "the outbox is empty")
        bench.note(f"sent, an acknowledgement dropped: {'accepted' if told else 'in doubt'}")
    else:
        await proxy.add(Rule(action="drop", direction="reply", command="PubAck", count=2))
        await _send_unanswered(bench, producer, task, proxy, nth=1)
        await _send_unanswered(bench, producer, task, proxy, nth=2)
    await _let_window_pass(bench)
    accepted = await producer.send(task)
    bench.note(f"sent after the window: {'accepted' if accepted else 'not accepted'}")
    await bench.wait_until(producer.swept, "the outbox is empty")
    await wait_until_read(bench)
    await bench.quiesce()
    return [*await bench.conclude(), *refused, await _copies(bench)]


async def _refused(bench: Bench, proxy: ProxyControl) -> Observation:
    """A producer whose retries could come after the window does not start."""
    try:
        await bench.producer(nats_url=proxy.url("nats"), patience=PublishPatience())
    except SettingError as error:
        bench.note(f"a producer with the usual horizon is refused: {error}")
        return Observation(text=f"refused at its start: {error}", count=1)
    raise HazardError(f"a producer started with a duplicate window of {_WINDOW_S:g} s")


async def _dropped(proxy: ProxyControl, count: int) -> bool:
    return (await proxy.stats()).rules[0].firings >= count


async def _send_unanswered(
    bench: Bench, producer: Producer, task: HookTask, proxy: ProxyControl, *, nth: int
) -> None:
    """Send a task, and give up when its acknowledgement was dropped."""
    sending = asyncio.ensure_future(producer.send(task))

    try:
        await bench.wait_until(lambda: _dropped(proxy, nth), f"acknowledgement {nth} is dropped")
    finally:
        await cancel(sending)
    bench.note(f"sent, acknowledgement {nth} dropped, the caller gave up")


async def _let_window_pass(bench: Bench) -> None:
    """Wait until the server has forgotten an id that it learns now, in a stream of its own."""
    transport = await bench.nats()
    await transport.jetstream.add_stream(
        StreamConfig(
            name="WINDOW",
            subjects=["window"],
            duplicate_window=_WINDOW_S,
            storage=StorageType.MEMORY,
        )
    )
    await transport.publish("window", b"", msg_id="window")

    async def forgotten() -> bool:
        return not (await transport.publish("window", b"", msg_id="window")).duplicate

    await bench.wait_until(forgotten, f"the duplicate window of {_WINDOW_S:g} s passes")


async def _copies(bench: Bench) -> Observation:
    """How often the stream holds the task, and what the copies have to be known by."""
    jetstream = (await bench.nats()).jetstream
    state = (await jetstream.stream_info(bench.names.stream)).state
    times_s: list[float] = []
    with_id = 0
    for sequence in range(state.first_seq, state.last_seq + 1):
        stored = await jetstream.get_msg(bench.names.stream, sequence)
        with_id += "Nats-Msg-Id" in (stored.headers or {})
        if stored.time is not None:
            times_s.append(stored.time.timestamp())
    after_ms = [round((time_s - times_s[0]) * 1_000) for time_s in times_s[1:]]
    return Observation(
        text=f"the stream holds {len(times_s)} copies, {with_id} with a Nats-Msg-Id; those after"
        f" the first came {after_ms} ms later, the duplicate window is {_WINDOW_S * 1_000:g} ms",
        count=len(times_s),
    )


ROWS = (
    Hazard(
        id="N2",
        where="phase 3",
        mechanism="a publish whose answer is lost is sent again, and stored again: outside of the"
        " duplicate window, and in the guide also inside, for it sends no Nats-Msg-Id",
        harm=Harm.DUPLICATED,
        scenario=_window_passed,
    ),
)
