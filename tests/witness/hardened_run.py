"""A witness on each broker of a run with all measures."""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import nats
import redis

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker, start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.results.store import load_manifest, resolve_run
from tests.witness.aof import AofError, read_units, wait_for_mark
from tests.witness.forward import Forward, Talk
from tests.witness.hardened import HardenedSeen
from tests.witness.hardened_told import HardenedTold, read_hardened
from tests.witness.monitor import RedisMonitor
from tests.witness.nats_log import BUCKET, DURABLES, STREAM, NatsSeen, is_wanted, read_talk
from tests.witness.redis_log import PENDING, WORK, RedisSeen, replay, task_of, unlike_monitor
from tests.witness.rehearsal import rehearse

__all__ = ["HardenedWitness", "HardenedWitnessed", "witness_hardened", "witnesses"]

_READ_AT_ONCE = 200


class HardenedWitnessed(msgspec.Struct, frozen=True, kw_only=True):
    """Both accounts of a run, its verdict, and the brokers' versions."""

    seen: HardenedSeen
    told: HardenedTold
    verdict: str
    tasks: int
    pushes: int
    versions: dict[str, str]


class HardenedWitness:
    """Hears ``MONITOR`` and every connection of NATS; reads the rest when it is asked."""

    def __init__(
        self,
        redis_broker: EmbeddedBroker,
        nats_broker: EmbeddedBroker,
        monitor: RedisMonitor,
        forward: Forward,
        talk: Talk,
    ) -> None:
        self.redis_broker = redis_broker
        self.nats_broker = nats_broker
        self.nats_url = forward.url
        self._monitor = monitor
        self._forward = forward
        self._talk = talk

    @property
    def redis_url(self) -> str:
        """Of the broker itself, which tells by itself what it is told."""
        return self.redis_broker.url

    def finish(self) -> HardenedSeen:
        """What happened; all clients must be gone. The phases are the caller's knowledge."""
        self._forward.settle()
        commands, missed = self._monitor.finish()
        seen = HardenedSeen(
            redis=RedisSeen(), nats=read_talk(self._talk.frames), phases=(), incomplete=missed
        )
        seen.incomplete += self._talk.troubles
        broker = self.redis_broker
        try:
            log = wait_for_mark(broker.port, broker.data, uuid.uuid4().hex)
            units = read_units(log.read_bytes())
        except AofError as error:
            seen.incomplete.append(f"the log of Redis: {error}")
        else:
            seen.redis = replay(units)
            seen.incomplete += unlike_monitor(units, commands)
        _read_lists(broker.port, seen)
        asyncio.run(_read_streams(self.nats_broker.url, seen.nats))
        return seen


@contextlib.contextmanager
def witnesses(folder: Path) -> Iterator[HardenedWitness]:
    """Brokers of their own, with a witness on each.

    Raises:
        ConnectionError: a witness could not be placed.
    """
    redis_broker = start_redis(resolve_redis(env={"PATH": ""}), folder, Durability.LAZY)
    try:
        nats_broker = start_nats(resolve_nats(env={"PATH": ""}), folder, Durability.LAZY)
        try:
            talk = Talk(is_wanted)
            with (
                RedisMonitor(redis_broker.port) as monitor,
                Forward(nats_broker.port, talk) as forward,
            ):
                yield HardenedWitness(redis_broker, nats_broker, monitor, forward, talk)
        finally:
            nats_broker.stop()
    finally:
        redis_broker.stop()


def witness_hardened(
    folder: Path, scenario: str, changes: list[str], timeout_s: float
) -> HardenedWitnessed:
    """Carry out a scenario under observation, with all measures.

    Raises:
        RuntimeError: the run came to no verdict; the text has the end of what it said.
        ConnectionError: a witness could not be placed.
    """
    (folder / "brokers").mkdir()
    with witnesses(folder / "brokers") as witness:
        urls = [
            f"--redis-url={witness.redis_url}",
            f"--nats-url={witness.nats_url}",
            f"--nats-monitor-url={witness.nats_broker.monitor_url}",
        ]
        rehearse(folder, scenario, ["design=hardened", *changes], timeout_s, urls)
        seen = witness.finish()
        versions = {
            "redis-server": str(witness.redis_broker.resolved.version),
            "nats-server": str(witness.nats_broker.resolved.version),
        }
    run = resolve_run("latest", folder / "results")
    manifest = load_manifest(run)
    seen.phases = [int(phase) for phase in manifest.settings["phases"]][: len(manifest.steps)]
    return HardenedWitnessed(
        seen=seen,
        told=read_hardened(run / "ledger"),
        verdict=str(manifest.verdict),
        tasks=manifest.account.tasks if manifest.account else 0,
        pushes=manifest.git.pushes if manifest.git else 0,
        versions=versions,
    )


def _read_lists(port: int, seen: HardenedSeen) -> None:
    with redis.Redis(port=port) as client:
        seen.pending_left = Counter(map(task_of, client.lrange(PENDING, 0, -1)))
        for key in [WORK, *client.scan_iter(match=WORK + b":*", count=1000)]:
            seen.work_left.update(map(task_of, client.lrange(key, 0, -1)))


async def _read_streams(url: str, seen: NatsSeen) -> None:
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        with contextlib.suppress(nats.js.errors.NotFoundError):
            bucket = (await jetstream.stream_info(f"KV_{BUCKET}")).state
            seen.bucket_sequence, seen.bucket_keys = bucket.last_seq, bucket.messages
        last = (await jetstream.stream_info(STREAM)).state.last_seq
        seen.last_sequence = last
        for info in await jetstream.consumers_info(STREAM):
            if info.name.startswith(DURABLES):
                waiting = info.num_ack_pending or 0
                seen.consumers[info.name] = (info.delivered.consumer_seq, waiting)
        for first in range(1, last + 1, _READ_AT_ONCE):
            numbers = range(first, min(first + _READ_AT_ONCE, last + 1))
            messages = await asyncio.gather(
                *(jetstream.get_msg(STREAM, number) for number in numbers)
            )
            for message in messages:
                seen.stored[message.seq] = task_of(message.data)
    finally:
        await client.close()
