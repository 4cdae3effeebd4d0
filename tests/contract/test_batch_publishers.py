"""Publishing in batches: what a stream answers, stores and refuses, one by one and as a whole."""

import asyncio
import contextlib

import nats.errors
import nats.js.errors
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats
from hookbench.brokers.resolve import resolve_nats
from hookbench.queues.batch_publishers import AtomicBatches, FastIngest
from hookbench.queues.reconnecting import connect_client
from hookbench.queues.stream_publisher import StreamAnswer

TIMEOUT_S = 10.0
SHORT_S = 0.5


@pytest.fixture
def own_nats(tmp_path):
    """A server for one test, which may kill it; what it stored outlives that."""
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.LAZY)
    yield broker
    broker.stop()


async def quiet(_error):
    """Outages are what some of these are about."""


@contextlib.asynccontextmanager
async def connected(url):
    client = await connect_client(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet
    )
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(request):
    name = "own_nats" if "own_nats" in request.fixturenames else "nats_broker"
    async with connected(request.getfixturevalue(name).url) as client:
        yield client


@pytest.fixture(params=[AtomicBatches, FastIngest])
def kind(request):
    return request.param


@pytest.fixture
async def stream(client, names):
    """Takes batches of both kinds; its settings."""
    config = StreamConfig(
        name=names.stream,
        subjects=[names.subject("*")],
        storage="file",
        allow_atomic=True,
        allow_batched=True,
    )
    await client.jetstream().add_stream(config)
    yield config
    with contextlib.suppress(nats.js.errors.NotFoundError, nats.errors.Error):
        await client.jetstream().delete_stream(names.stream)


async def put(publisher, subject, payloads, timeout_s=TIMEOUT_S):
    """Of each payload its answer, or the error."""
    return await asyncio.gather(
        *(publisher.publish(subject, data, timeout=timeout_s) for data in payloads),
        return_exceptions=True,
    )


async def stored(client, names):
    """The payloads of the stream, in order."""
    jetstream = client.jetstream()
    state = (await jetstream.stream_info(names.stream)).state
    return [
        (await jetstream.get_msg(names.stream, sequence)).data
        for sequence in range(state.first_seq, state.last_seq + 1)
        if state.messages
    ]


@pytest.mark.usefixtures("stream")
async def test_every_put_is_stored_once_and_in_order(kind, client, names):
    payloads = [b"%d" % number for number in range(250)]
    answers = await put(kind(client, limit=100), names.subject("sync"), payloads)
    assert await stored(client, names) == payloads
    told = [answer.seq for answer in answers]
    if kind is AtomicBatches:
        assert told == list(range(1, 251))
    else:  # of a batch, the last one's alone
        assert [seq for seq in told if seq] == [100, 200, 250]


@pytest.mark.usefixtures("stream")
async def test_one_alone_is_published_as_ever(kind, client, names):
    publisher = kind(client)
    for number in (1, 2):
        answer = await publisher.publish(names.subject("sync"), b"x", timeout=TIMEOUT_S)
        assert (answer.seq, answer.count) == (number, 0)


@pytest.mark.usefixtures("stream")
async def test_batches_of_two_connections_do_not_mix(kind, nats_broker, names):
    async with connected(nats_broker.url) as one, connected(nats_broker.url) as two:
        # Larger than a read of the server: it has parts of both batches at a time.
        mine = [b"a%d" % number + bytes(50_000) for number in range(300)]
        others = [b"b%d" % number + bytes(50_000) for number in range(300)]
        subject = names.subject("sync")
        answers = await asyncio.gather(
            put(kind(one, limit=50), subject, mine), put(kind(two, limit=50), subject, others)
        )
        assert not [item for item in (*answers[0], *answers[1]) if isinstance(item, Exception)]
        found = await stored(one, names)
    assert [data for data in found if data.startswith(b"a")] == mine
    assert [data for data in found if data.startswith(b"b")] == others
    if kind is AtomicBatches:  # each lies in one piece
        runs = [found[begin : begin + 50] for begin in range(0, 600, 50)]
        assert all(len({data[:1] for data in run}) == 1 for run in runs)


async def test_what_the_stream_refuses_is_refused_whole_or_from_there_on(
    kind, client, stream, names
):
    stream.max_msgs, stream.discard = 30, DiscardPolicy.NEW
    await client.jetstream().update_stream(stream)
    payloads = [b"%d" % number for number in range(50)]
    answers = await put(kind(client), names.subject("sync"), payloads, timeout_s=2.0)
    assert all(isinstance(answer, nats.errors.Error) for answer in answers)
    found = await stored(client, names)
    assert found == ([] if kind is AtomicBatches else payloads[:30])


async def test_a_stream_that_takes_no_batches_says_so(kind, client, stream, names):
    stream.allow_atomic = stream.allow_batched = False
    await client.jetstream().update_stream(stream)
    answers = await put(kind(client), names.subject("sync"), [b"x", b"y"], timeout_s=2.0)
    assert all(isinstance(answer, nats.js.errors.APIError) for answer in answers), answers
    assert "disabled" in str(answers[0])
    assert await stored(client, names) == []


async def test_without_a_stream_it_is_an_error_of_its_own(kind, client, names):
    answers = await put(kind(client), names.subject("sync"), [b"x", b"y"])
    assert [type(answer) for answer in answers] == [nats.js.errors.NoStreamResponseError] * 2


async def test_a_repeat_refuses_an_atomic_batch_and_not_a_fast_one(kind, client, stream, names):
    assert stream.allow_atomic
    publisher, subject = kind(client), names.subject("sync")

    async def with_ids(*ids):
        return await asyncio.gather(
            *(
                publisher.publish(
                    subject, item.encode(), timeout=TIMEOUT_S, headers={"Nats-Msg-Id": item}
                )
                for item in ids
            ),
            return_exceptions=True,
        )

    assert not [item for item in await with_ids("a", "b") if isinstance(item, Exception)]
    answers = await with_ids("b", "c")
    if kind is AtomicBatches:
        assert [type(item) for item in answers] == [nats.js.errors.BadRequestError] * 2
        assert await stored(client, names) == [b"a", b"b"]
    else:
        assert not [item for item in answers if isinstance(item, Exception)]
        assert await stored(client, names) == [b"a", b"b", b"c"]


async def test_after_a_kill_what_was_acknowledged_is_there(kind, client, stream, names, own_nats):
    """And of an atomic batch without an answer there is all of it or nothing."""
    assert stream.allow_batched
    publisher, subject = kind(client, limit=40), names.subject("sync")
    acknowledged, uncertain = [], []

    async def load():
        for number in range(1000):
            batch = [b"%d-%d" % (number, index) for index in range(40)]
            answers = await put(publisher, subject, batch, timeout_s=SHORT_S)
            failed = isinstance(answers[0], Exception)
            (uncertain if failed else acknowledged).append(batch)
            if failed:
                return

    loading = asyncio.create_task(load())
    while len(acknowledged) < 5:  # noqa: ASYNC110 - a count, and no event tells it
        await asyncio.sleep(0.001)
    own_nats.kill()
    await loading
    own_nats.restart()
    async with connected(own_nats.url) as fresh:
        found = await stored(fresh, names)
    assert uncertain
    sure = [data for batch in acknowledged for data in batch]
    assert found[: len(sure)] == sure
    rest = found[len(sure) :]
    assert (
        rest in ([], uncertain[0]) if kind is AtomicBatches else rest == uncertain[0][: len(rest)]
    )


@pytest.mark.parametrize("lost", [0, 3, 8])
@pytest.mark.usefixtures("stream")
async def test_a_batch_that_lost_a_message_is_no_success(kind, client, names, monkeypatch, lost):
    """The first one, one in its middle, or the one before the last of ten."""
    send, sent = client.send_now, []

    def send_but_one(subject, *arguments, **options):
        if subject != names.subject("sync"):
            return send(subject, *arguments, **options)
        sent.append(subject)
        return len(sent) == lost + 1 or send(subject, *arguments, **options)

    monkeypatch.setattr(client, "send_now", send_but_one)
    payloads = [b"%d" % number for number in range(10)]
    answers = await put(kind(client), names.subject("sync"), payloads, timeout_s=SHORT_S)
    assert len(sent) == 10
    assert all(isinstance(answer, nats.errors.Error) for answer in answers), answers
    found = await stored(client, names)
    assert found == ([] if kind is AtomicBatches else payloads[:lost])


@pytest.mark.usefixtures("stream")
async def test_an_answer_for_less_than_the_batch_is_no_success(kind, client, names, monkeypatch):
    publisher = kind(client)

    async def only_one(_batch, _puts):
        return StreamAnswer(seq=9, count=1)

    monkeypatch.setattr(publisher, "_send_batch", only_one)
    answers = await put(publisher, names.subject("sync"), [b"x", b"y"])
    assert [str(answer) for answer in answers] == ["a batch of 2 messages, and 1 stored"] * 2
