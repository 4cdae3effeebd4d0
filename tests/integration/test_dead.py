"""``hookbench dead`` on real brokers: list, show, requeue, and a kill in between."""

import json
import subprocess

import msgspec
import pytest

from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.events import Broker
from hookbench.migration.producer import Receipt
from hookbench.queues.jetstream import StreamSettings, ensure_dead_stream, ensure_stream
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.stored import last_sequence, read_stream, remove_stored
from hookbench.queues.stream_survey import StreamSurvey
from hookbench.task import decode_task, encode_task
from hookbench.worker.dead_letters import (
    DeadLetter,
    NatsDeadLetters,
    RedisDeadLetters,
    RoutedDeadLetters,
)
from hookbench.worker.letters import NatsLetterBox
from hookbench.worker.requeue import Requeuer
from tests.conftest import eventually
from tests.integration.conftest import COMMAND

DYING = "tests.integration.dying"


class Letters:
    """Buries letters on the session's brokers, and runs ``hookbench dead`` on them."""

    def __init__(self, redis_broker, nats_broker, names, redis_client, transport, forks):
        self.forks = forks
        self.redis_broker = redis_broker
        self.nats_broker = nats_broker
        self.names = names
        self.client = redis_client
        self.transport = transport
        self.queue = RedisListQueue(redis_client, names=names)
        self.dead = RoutedDeadLetters("host-1 pid 7")
        self.dead.redis = RedisDeadLetters(redis_client, names)
        self.dead.nats = NatsDeadLetters(transport)

    async def bury(self, broker, payload, **changes):
        values = {"task_type": "sync", "reason": "failed 3 times", "attempts": 3, **changes}
        letter = DeadLetter.of(
            payload, broker=broker, died_at_ns=1_700_000_000_000_000_000, **values
        )
        await self.dead.bury(letter)

    def arguments(self):
        return [
            f"--redis-url={self.redis_broker.url}",
            f"--nats-url={self.nats_broker.url}",
            f"--prefix={self.names.prefix}",
            f"--subject-root={self.names.subject_root}",
            f"--stream={self.names.stream}",
        ]

    def run(self, verb, *more, dying=(), code=0):
        arguments = ["dead", verb, *more, *self.arguments()]
        if dying:
            done = self.forks.call(DYING, [*dying, *arguments])
        else:
            done = self.forks.call("hookbench", arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def table(self, *more):
        """Of the command as it is called by hand."""
        command = [*COMMAND, "dead", "list", *more, *self.arguments()]
        return subprocess.run(
            command, stdout=subprocess.PIPE, check=True, timeout=60
        ).stdout.decode()

    def json(self, verb, *more, code=0):
        return json.loads(self.run(verb, *more, "--json", code=code).stdout)

    def requeue(self, *more, code=0):
        memory = "--storage=memory"
        return self.json("requeue", *more, memory, code=code)["letters"]

    async def pending(self):
        payloads, _work = await self.queue.contents()
        return [decode_task(payload) for payload in payloads]

    async def stream(self):
        found = read_stream(self.transport, self.names.stream, limit=100)
        return [decode_task(item.payload) async for item in found]

    def ids(self):
        return [item["id"] for item in self.json("list")["letters"]]


@pytest.fixture
async def letters(redis_broker, nats_broker, names, redis_client, transport, forks):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    await ensure_dead_stream(transport)
    return Letters(redis_broker, nats_broker, names, redis_client, transport, forks)


async def test_letters_of_both_brokers_are_listed_and_filtered(letters, make_task):
    first, second, third = make_task(), make_task(), make_task()
    await letters.bury(Broker.REDIS, encode_task(first), reason="no such Repository")
    await letters.bury(Broker.REDIS, encode_task(second), task_type="gc")
    await letters.bury(Broker.NATS, encode_task(third), reason="no such repository either")
    everything = letters.json("list")
    assert [item["task"] for item in everything["letters"]] == [
        str(task.id) for task in (first, second, third)
    ]
    assert everything["more"] is False
    one = everything["letters"][2]
    assert (one["id"], one["broker"], one["type"], one["attempts"]) == ("nats-1", "nats", "sync", 3)
    assert one["repository"] == third.repo_id
    assert one["age_s"] > 0

    def found(*options):
        return [item["task"] for item in letters.json("list", *options)["letters"]]

    assert found("--type=gc") == [str(second.id)]
    assert found("--broker=nats") == [str(third.id)]
    assert found("--reason=NO SUCH") == [str(first.id), str(third.id)]
    assert found("--reason=no such", "--broker=redis") == [str(first.id)]
    table = letters.table("--limit=1")
    assert "no such Repository" in table
    assert "the first 1; more with --limit" in table


async def test_many_letters_come_in_order_over_pages(letters, make_task):
    tasks = [make_task() for _ in range(250)]
    for task in tasks:
        await letters.bury(Broker.REDIS, encode_task(task))
    listed = letters.json("list", "--limit=1000")["letters"]
    assert [item["task"] for item in listed] == [str(task.id) for task in tasks]


async def test_a_letter_is_shown_as_a_whole(letters, make_task):
    task = msgspec.structs.replace(make_task(), retry_count=2)
    await letters.bury(Broker.REDIS, encode_task(task))
    await letters.bury(Broker.NATS, b"\x00junk", reason="no task in 5 bytes")
    (shown,) = letters.json("show", str(task.id)[:23])["letters"]
    assert shown["payload"] == json.loads(encode_task(task))
    assert (shown["retries"], shown["worker"]) == (2, "host-1 pid 7")
    assert shown["died"] == "2023-11-14T22:13:20Z"
    (junk,) = letters.json("show", "nats-1")["letters"]
    assert junk["payload"] == b"\x00junk".hex()
    assert junk["task"] is None
    assert "no such" not in letters.run("show", "nats-1").stdout
    assert "006a756e6b" in letters.run("show", "nats-1").stdout
    assert "there is none" in letters.run("show", "redis-0", code=2).stderr


@pytest.mark.parametrize("lies_on", [Broker.REDIS, Broker.NATS])
@pytest.mark.parametrize("put_on", ["redis", "nats"])
async def test_a_task_goes_back_under_its_id_without_retries(letters, make_task, lies_on, put_on):
    task = msgspec.structs.replace(make_task(), retry_count=2)
    other = make_task()
    await letters.bury(lies_on, encode_task(task))
    await letters.bury(lies_on, encode_task(other))
    (answer,) = letters.requeue(str(task.id), f"--broker={put_on}")
    assert (answer["put"], answer["removed"], answer["problem"]) == (True, True, "")
    wanted = msgspec.structs.replace(task, retry_count=0)
    in_redis, in_nats = await letters.pending(), await letters.stream()
    assert (in_redis, in_nats) == (([wanted], []) if put_on == "redis" else ([], [wanted]))
    assert [item["task"] for item in letters.json("list")["letters"]] == [str(other.id)]


async def test_a_task_goes_back_to_a_redis_stream_where_that_is_the_queue(letters, make_task):
    task = make_task()
    await letters.bury(Broker.REDIS, encode_task(task))
    letters.requeue("--all", "--broker=redis", "--redis-queue=stream")
    assert await letters.pending() == []
    unread, _pending = await StreamSurvey(letters.client, names=letters.names).contents()
    assert [decode_task(payload) for payload in unread] == [task]
    told = letters.run("requeue", "--all", "--phase=dual_write", "--redis-queue=stream", code=2)
    assert "only redis_only has one" in told.stderr
    await letters.client.delete(letters.names.stream_key("sync"))


async def test_a_phase_puts_on_the_brokers_of_its_route(letters, make_task):
    tasks = [make_task() for _ in range(3)]
    for task in tasks:
        await letters.bury(Broker.NATS, encode_task(task))
    await letters.bury(Broker.NATS, encode_task(tasks[0]))  # twice about one task: one put
    answers = letters.requeue("--all", "--phase=dual_write")
    assert [answer["put"] for answer in answers] == [True] * 4
    assert [task.id for task in await letters.pending()][::-1] == [task.id for task in tasks]
    assert [task.id for task in await letters.stream()] == [task.id for task in tasks]
    assert letters.ids() == []


async def test_what_is_no_task_is_refused_and_stays(letters, make_task):
    task = make_task(payload={"filling": "x" * 900_000})
    await letters.bury(Broker.NATS, b"junk")
    await letters.bury(Broker.NATS, encode_task(task))  # larger than a letter can be: it is cut
    await letters.client.lpush(letters.names.dead_key("sync"), b"no letter")
    before = letters.ids()
    answers = letters.requeue("--all", "--broker=redis", code=1)
    assert [answer["put"] for answer in answers] == [False] * 3
    problems = {answer["id"]: answer["problem"] for answer in answers}
    assert "stays a dead letter" in problems["nats-1"]
    assert "a part of the task only" in problems["nats-2"]
    assert letters.ids() == before
    assert await letters.pending() == []


async def test_a_broker_that_refuses_leaves_the_letter(letters, make_task):
    await letters.bury(Broker.REDIS, encode_task(make_task()))
    await letters.client.lpush(letters.names.stream_key("sync"), b"x")
    await letters.client.delete(letters.names.pending_key("sync"))
    await letters.client.xadd(
        letters.names.pending_key("sync"), {b"a": b"b"}
    )  # no list: LPUSH fails
    (answer,) = letters.requeue("--all", "--broker=redis", code=1)
    assert (answer["put"], answer["removed"]) == (False, False)
    assert "WRONGTYPE" in answer["problem"]
    assert len(letters.ids()) == 1


async def test_a_put_that_the_stream_takes_for_a_duplicate_leaves_the_letter(letters, make_task):
    task = make_task()
    await letters.bury(Broker.NATS, encode_task(task))
    subject = letters.names.subject("sync")
    await letters.transport.publish(subject, b"earlier", msg_id=str(task.id))
    box = NatsLetterBox(letters.transport)
    (stored,) = [item async for item in box.letters()]

    async def send(task):
        ack = await letters.transport.publish(subject, encode_task(task), msg_id=str(task.id))
        return Receipt(sequence=ack.sequence)

    async def newest():
        return await last_sequence(letters.transport, letters.names.stream)

    (answer,) = await Requeuer([box], send, newest_sequence=newest).requeue([stored])
    assert (answer.put, answer.removed) == (False, False)
    assert "duplicate window" in answer.problem
    assert letters.ids() == ["nats-1"]


async def test_a_done_store_forgets_the_task_before_it_is_put(letters, make_task):
    task = make_task()
    await letters.bury(Broker.NATS, encode_task(task))
    box = NatsLetterBox(letters.transport)
    (stored,) = [item async for item in box.letters()]
    calls = []

    async def forget(ids):
        calls.append(("forget", list(ids)))
        return 1

    async def send(sent):
        calls.append(("send", [sent.id]))
        return Receipt(redis_length=1)

    (answer,) = await Requeuer([box], send, forget=forget).requeue([stored])
    assert (answer.put, answer.removed) == (True, True)
    assert calls == [("forget", [task.id]), ("send", [task.id])]


async def test_a_done_store_that_is_away_leaves_the_letter(letters, make_task):
    await letters.bury(Broker.NATS, encode_task(make_task()))
    box = NatsLetterBox(letters.transport)
    (stored,) = [item async for item in box.letters()]

    async def forget(_ids):
        raise BrokerUnreachableError("away")

    async def send(_task):
        raise AssertionError("it was put, and would be skipped")

    (answer,) = await Requeuer([box], send, forget=forget).requeue([stored])
    assert (answer.put, answer.removed, answer.problem) == (False, False, "away")
    assert letters.ids() == ["nats-1"]


@pytest.mark.parametrize("broker", ["redis", "nats"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_around_the_removal_loses_no_letter(letters, make_task, broker, when):
    task = make_task()
    kind = {"redis": "Redis", "nats": "Nats"}[broker]
    await letters.bury(Broker[broker.upper()], encode_task(task))
    place = f"hookbench.worker.letters:{kind}LetterBox.remove"
    arguments = ("--all", "--broker=redis", "--storage=memory")
    letters.run("requeue", *arguments, dying=[place, when, "1"], code=-9)
    assert [item.id for item in await letters.pending()] == [task.id]
    assert len(letters.ids()) == (1 if when == "before" else 0)
    again = letters.requeue("--all", "--broker=redis")
    assert [answer["removed"] for answer in again] == ([True] if when == "before" else [])
    # The put is repeated, under the same id: a done-store filters one of them.
    assert {item.id for item in await letters.pending()} == {task.id}
    assert letters.ids() == []


async def test_a_kill_before_the_put_leaves_the_letter(letters, make_task):
    await letters.bury(Broker.REDIS, encode_task(make_task()))
    place = "hookbench.migration.producer:ReceiveSyncService.send"
    letters.run("requeue", "--all", "--broker=redis", dying=[place, "before", "1"], code=-9)
    assert await letters.pending() == []
    assert len(letters.ids()) == 1


async def test_a_sequence_that_is_gone_is_no_error(letters, make_task):
    await letters.bury(Broker.NATS, encode_task(make_task()))
    stream = letters.names.dead_stream
    assert await remove_stored(letters.transport, stream, 1) is True
    assert await remove_stored(letters.transport, stream, 1) is False
    assert await remove_stored(letters.transport, "NO_SUCH_STREAM", 1) is False
    await eventually(lambda: letters.ids() == [])


def test_wrong_options_are_named(letters):
    assert "not both and not neither" in letters.run("requeue", "--phase=0", code=2).stderr
    assert "--phase or --broker" in letters.run("requeue", "--all", code=2).stderr
    assert "use redis or nats" in letters.run("list", "--broker=kafka", code=2).stderr
    told = letters.run("requeue", "--all", "--phase=0", "--broker-of=kafka", code=2).stderr
    assert "--broker-of 'kafka': use redis or nats" in told
