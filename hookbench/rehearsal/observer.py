"""Looks at the brokers from outside: depths during a run, and what is left after it."""

import contextlib
import errno
import json
import os
import uuid
from pathlib import Path

import msgspec
import nats.errors
import nats.js.errors

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.model import Place, Residue
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.epochs import current_consumer
from hookbench.queues.moving import moved_key
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_reaper import RedisSurvey
from hookbench.queues.stream_survey import StreamSurvey
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.results.samples import Sample
from hookbench.task import Names
from hookbench.worker.letter_ids import id_of_letter

__all__ = ["Observer"]

SAMPLE_S = 0.25
_QUIET_S = 3.0
_POLL_S = 0.1


class Observer:
    """Reads, never writes."""

    def __init__(
        self,
        redis_url: str,
        nats_url: str,
        names: Names,
        *,
        clock: Clock,
        dialer: Dialer = NETWORK,
    ) -> None:
        self._names = names
        self._clock = clock
        self._dialer = dialer
        self._redis = dialer.redis(redis_url)
        self._lists = RedisSurvey(self._redis, names=names)
        self._stream = StreamSurvey(self._redis, names=names)
        self._nats_url = nats_url
        self._transport: AppTransport | None = None
        raise_if_cancelled()
        self.latest = Sample(time_ns=0)
        self.failures = 0

    async def _nats(self) -> AppTransport:
        if self._transport is None:
            self._transport = await self._dialer.nats(
                self._nats_url, names=self._names, clock=self._clock
            )
        return self._transport

    async def sample(self) -> Sample:
        """Depths now. A broker that does not answer is counted in ``failures`` and left out."""
        fields: dict[str, int] = {}
        try:
            depth, fields["redis_leases"] = await self._lists.depth_and_leases()
            stream = await self._stream.depth()
            fields["redis_pending"] = depth.pending + stream.pending
            fields["redis_work"] = depth.in_flight + stream.in_flight
            fields["redis_leases"] += stream.in_flight
        except BrokerUnreachableError:
            self.failures += 1
        try:
            fields.update(await self._nats_depths())
        except (nats.errors.Error, TimeoutError, BrokerUnreachableError):
            self.failures += 1
        raise_if_cancelled()
        self.latest = Sample(time_ns=self._clock.monotonic_ns(), **fields)
        return self.latest

    async def _nats_depths(self) -> dict[str, int]:
        jetstream = (await self._nats()).jetstream
        try:
            stream = await jetstream.stream_info(self._names.stream)
        except nats.js.errors.NotFoundError:
            return {}
        fields = {"stream": stream.state.messages}
        try:
            durable = await current_consumer(await self._nats())
            info = await jetstream.consumer_info(self._names.stream, durable)
        except nats.js.errors.NotFoundError:
            return fields
        fields["consumer_pending"] = info.num_pending or 0
        fields["ack_pending"] = info.num_ack_pending or 0
        fields["redelivered"] = info.num_redelivered or 0
        return fields

    async def record(self, path: Path) -> None:
        """Append a sample every 250 ms to a file of JSON lines, until cancelled.

        Raises:
            OSError: a line could not be written, or not all of it: then nothing follows it.
        """
        with path.open("ab", buffering=0) as file:
            while True:
                sample = await self.sample()
                line = msgspec.json.encode(sample) + b"\n"
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                await self._clock.sleep(SAMPLE_S)

    async def drain(self, *, reads_redis: bool, reads_nats: bool, timeout_s: float) -> str | None:
        """Wait until what the last phase reads is empty, or will not move any more.

        An orphan in a Redis work list moves after the lease of its worker at the latest, where one
        with leases runs, and else never; a delivery that JetStream waits for moves after its
        AckWait at the latest. Why the drain did not finish, ``None`` if it did.
        """
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        still_ns = self._clock.monotonic_ns()
        before: tuple[int | None, ...] = ()
        while True:
            sample = await self.sample()
            now_ns = self._clock.monotonic_ns()
            state = (
                sample.redis_pending,
                sample.redis_work,
                sample.consumer_pending,
                sample.ack_pending,
            )
            if state != before:
                before, still_ns = state, now_ns
            redis_empty = not reads_redis or sample.redis_pending == 0
            still = not sample.redis_leases and now_ns - still_ns > _QUIET_S * NS_PER_S
            work_settled = not reads_redis or sample.redis_work == 0 or still
            nats_empty = not reads_nats or (sample.consumer_pending, sample.ack_pending) == (0, 0)
            if redis_empty and work_settled and nats_empty:
                return None
            if now_ns > deadline_ns:
                return (
                    f"the drain did not finish in {timeout_s:.0f} s: {json.dumps(_plain(sample))}"
                )
            await self._clock.sleep(_POLL_S)

    async def residue(self, spooled: list[str]) -> Residue:
        """Everything that lies on the brokers and in the spool.

        Raises:
            BrokerUnreachableError: a broker did not answer.
        """
        pending, work = await self._lists.contents()
        unread, held = await self._stream.contents()
        pending, work = pending + unread, work + held
        places = {
            Place.REDIS_PENDING: _ids(pending),
            Place.REDIS_WORK: _ids(work),
            Place.SPOOL: [uuid.UUID(item) for item in spooled],
        }
        letters = [*await self._redis_letters(), *await self._nats_letters()]
        try:
            jetstream = (await self._nats()).jetstream
            first_sequence, last_sequence = 0, None
            try:
                state = (await jetstream.stream_info(self._names.stream)).state
                first_sequence, last_sequence = state.first_seq, state.last_seq
                durable = await current_consumer(await self._nats())
                info = await jetstream.consumer_info(self._names.stream, durable)
            except nats.js.errors.NotFoundError:
                return Residue(
                    places=places,
                    letters=letters,
                    first_sequence=first_sequence,
                    last_sequence=last_sequence,
                )
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"consumer info: {error!r}") from error
        raise_if_cancelled()
        return Residue(
            places=places,
            first_sequence=first_sequence,
            last_sequence=last_sequence,
            max_deliver=max(0, info.config.max_deliver or 0),
            delivered_sequence=info.delivered.stream_seq if info.delivered else 0,
            ack_floor_sequence=info.ack_floor.stream_seq if info.ack_floor else 0,
            ack_pending=info.num_ack_pending or 0,
            letters=letters,
        )

    async def _redis_letters(self) -> list[uuid.UUID]:
        key = self._names.dead_key("sync")
        with broker_errors(f"LRANGE {key}"):
            return _ids_of_letters(await self._redis.lrange(key, 0, -1))

    async def _nats_letters(self) -> list[uuid.UUID]:
        """Read by sequence, without a consumer: the stream stays as it is."""
        stream = self._names.dead_stream
        letters: list[bytes] = []
        try:
            jetstream = (await self._nats()).jetstream
            with contextlib.suppress(nats.js.errors.NotFoundError):
                state = (await jetstream.stream_info(stream)).state
                for sequence in range(max(1, state.first_seq), state.last_seq + 1):
                    with contextlib.suppress(nats.js.errors.NotFoundError):  # removed by hand
                        letters.append((await jetstream.get_msg(stream, sequence)).data or b"")
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"dead letters in {stream}: {error!r}") from error
        raise_if_cancelled()
        return _ids_of_letters(letters)

    async def remove_own_data(self) -> None:
        """Delete the keys and streams of this run's own names, on brokers that stay."""
        keys = [
            *await self._lists.keys(),
            self._stream.key,
            self._names.dead_key("sync"),
            moved_key(self._names),
        ]
        await self._redis.delete(*keys)
        await RedisDoneStore(self._redis, names=self._names, retention_s=1.0).remove_all()
        jetstream = (await self._nats()).jetstream
        bucket = f"KV_{self._names.done_bucket}"
        for stream in (*self._names.streams, bucket):
            try:
                await jetstream.delete_stream(stream)
            except nats.js.errors.NotFoundError:
                continue

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            await self._transport.close()
        await self._redis.aclose()


def _ids(payloads: list[bytes]) -> list[uuid.UUID]:
    """Junk has no id; it is counted by its dead letter."""
    return [found for payload in payloads if (found := id_of_payload(payload)) is not None]


def _ids_of_letters(letters: list[bytes]) -> list[uuid.UUID]:
    return [found for letter in letters if (found := id_of_letter(letter)) is not None]


def _plain(sample: Sample) -> dict[str, int | None]:
    return {name: getattr(sample, name) for name in sample.__struct_fields__}
