"""A real rehearsal on brokers of its own, with a witness on each."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import nats
import redis

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.results.store import load_manifest, resolve_run
from tests.witness.accounts import Answer, Delivery, Seen, Told, read_told
from tests.witness.monitor import Command, RedisMonitor
from tests.witness.redis_log import task_of
from tests.witness.wire import NatsWitness, Publish, Settlement

__all__ = ["Witnessed", "rehearse", "see_commands", "see_messages", "task_of", "witness_run"]

# The names of the migration guide.
PENDING = b"{hook}:sync"
WORK = b"{hook}:sync:work"
STREAM = "HOOK_QUEUE"
CONSUMER = "hook-sync-worker"
SUBJECT = "queue.hook.>"
_CHANGES = {"LPUSH", "LREM", "BLMOVE", "LMOVE"}
_HARMLESS = {"LLEN", "LRANGE", "EVAL", "EVALSHA", "EXISTS", "TYPE"}
_READ_AT_ONCE = 200
_VERDICTS = (0, 1)  # exit codes of a run that came to one: valid, invalid


class Witnessed(msgspec.Struct, frozen=True, kw_only=True):
    """Both accounts of a run, its verdict, and the brokers' versions."""

    seen: Seen
    told: Told
    verdict: str
    tasks: int
    pushes: int
    versions: dict[str, str]


def witness_run(folder: Path, scenario: str, changes: list[str], timeout_s: float) -> Witnessed:
    """Carry out a scenario under observation.

    Raises:
        RuntimeError: the run came to no verdict; the text has the end of what it said.
        ConnectionError: a witness could not be placed.
    """
    (folder / "brokers").mkdir()
    seen = Seen()
    redis_broker = start_redis(resolve_redis(env={"PATH": ""}), folder / "brokers", Durability.LAZY)
    try:
        nats_broker = start_nats(
            resolve_nats(env={"PATH": ""}), folder / "brokers", Durability.LAZY
        )
        try:
            with (
                RedisMonitor(redis_broker.port) as monitor,
                NatsWitness(nats_broker.port, SUBJECT) as wire,
            ):
                urls = [f"--redis-url={redis_broker.url}", f"--nats-url={nats_broker.url}"]
                rehearse(folder, scenario, changes, timeout_s, urls)
                commands, redis_missed = monitor.finish()
                published, answers, nats_missed = wire.finish()
            seen.incomplete = [*redis_missed, *nats_missed]
            see_commands(commands, seen)
            see_messages(published, answers, seen)
            _read_lists(redis_broker.port, seen)
            asyncio.run(_read_stream(nats_broker.url, seen))
        finally:
            nats_broker.stop()
    finally:
        redis_broker.stop()
    run = resolve_run("latest", folder / "results")
    manifest = load_manifest(run)
    return Witnessed(
        seen=seen,
        told=read_told(run / "ledger"),
        verdict=str(manifest.verdict),
        tasks=manifest.account.tasks if manifest.account else 0,
        pushes=manifest.git.pushes if manifest.git else 0,
        versions={"redis-server": str(redis_broker.resolved.version), "nats-server": wire.version},
    )


def rehearse(
    folder: Path, scenario: str, changes: list[str], timeout_s: float, urls: list[str]
) -> None:
    """Run a scenario with the real names, for a run removes what stands under names of its own.

    Raises:
        RuntimeError: it came to no verdict; the text has the end of what it said.
    """
    options = [*urls, "--real-names", f"--out={folder / 'results'}"]
    options += [f"--set={change}" for change in changes]
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", "run", scenario, *options],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode not in _VERDICTS:
        raise RuntimeError(
            f"hookbench run {scenario} ended with {done.returncode}:"
            f" {done.stdout[-800:]} {done.stderr[-800:]}"
        )


def see_commands(commands: list[Command], seen: Seen) -> None:
    """Count what was put on the lists and taken off them; a change of another kind is a doubt."""
    strange = Counter()
    for command in commands:
        name, (_name, *arguments) = command.name, command.arguments
        if PENDING not in arguments and WORK not in arguments:
            continue
        if name == "LPUSH" and arguments[0] == PENDING:
            target = seen.requeued if command.from_lua else seen.pushed
            target.update(task_of(value) for value in arguments[1:])
        elif name == "LREM" and arguments[0] == WORK:
            target = seen.taken_back if command.from_lua else seen.removed
            target[task_of(arguments[2])] += 1
        elif name == "LREM" and arguments[0] == PENDING and not command.from_lua:
            seen.looked_for[task_of(arguments[2])] += 1
        elif name not in _HARMLESS and (name not in _CHANGES or arguments[:2] != [PENDING, WORK]):
            strange[name] += 1
    seen.incomplete += [
        f"{count} {name} on the lists, which the witness does not know"
        for name, count in strange.items()
    ]


def see_messages(published: list[Publish], answers: list[Settlement], seen: Seen) -> None:
    """Count what was published and how deliveries were answered."""
    known: set[bytes] = set()
    for item in published:
        seen.published[task_of(item.payload)] += 1
        if item.message_id is not None:
            seen.repeats += item.message_id in known
            known.add(item.message_id)
    ours = [
        item
        for item in answers
        if (item.stream, item.consumer) == (STREAM, CONSUMER) and item.what != "in progress"
    ]
    if len(ours) + sum(item.what == "in progress" for item in answers) != len(answers):
        seen.incomplete.append("acknowledgements of another consumer")
    seen.answers = [
        Answer(item.what, Delivery(item.sequence, item.attempt), item.delivery) for item in ours
    ]


def _read_lists(port: int, seen: Seen) -> None:
    with redis.Redis(port=port) as client:
        for key, left in ((PENDING, seen.pending_left), (WORK, seen.work_left)):
            left.update(task_of(payload) for payload in client.lrange(key, 0, -1))


async def _read_stream(url: str, seen: Seen) -> None:
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(STREAM)).state
        seen.messages, seen.last_sequence = state.messages, state.last_seq
        consumer = await jetstream.consumer_info(STREAM, CONSUMER)
        seen.deliveries = consumer.delivered.consumer_seq
        seen.ack_pending = consumer.num_ack_pending
        for first in range(1, state.last_seq + 1, _READ_AT_ONCE):
            numbers = range(first, min(first + _READ_AT_ONCE, state.last_seq + 1))
            messages = await asyncio.gather(
                *(jetstream.get_msg(STREAM, number) for number in numbers)
            )
            for message in messages:
                seen.stored[message.seq] = task_of(message.data)
    finally:
        await client.close()
