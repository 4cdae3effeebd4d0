"""JetStream of a simulated server: its streams and consumers, and what is stored and delivered."""

import base64
import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.sim.nats.consumer import Consumer, Host, Pull
from hookbench.sim.nats.consumer_config import ConsumerConfig
from hookbench.sim.nats.disk import Crash, Disk, SyncTimes, state_kept
from hookbench.sim.nats.errors import StreamError
from hookbench.sim.nats.stream import (
    Change,
    Purged,
    Stored,
    StoredMessage,
    Stream,
    StreamConfig,
)
from hookbench.sim.nats.subjects import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hookbench.sim.nats.consumer_state import ConsumerChange, ConsumerState

__all__ = ["NO_CONSUMER", "NO_STREAM", "Answer", "JetStream", "read_config", "stored_headers"]

NO_STREAM = (404, 10059, "stream not found")
NO_CONSUMER = (404, 10014, "consumer not found")
_END = b"\r\n"
_NO_MESSAGE = (404, 10037, "no message found")
_decode = msgspec.json.Decoder().decode
_TYPE = "io.nats.jetstream.api.v1."

Answer = dict[str, Any]


class JetStream:
    """All streams and their consumers; it outlives a server that is started again on its data.

    Args:
        host: what consumers need of the server.
        disk: where streams with file storage are.
        entropy: of the times at which they are synced.
    """

    def __init__(self, host: Host, disk: Disk, entropy: random.Random) -> None:
        self._host = host
        self._disk = disk
        self._entropy = entropy
        self._syncs: dict[str, SyncTimes] = {}
        self._kept: dict[tuple[str, str], tuple[ConsumerState, list[ConsumerChange]]] = {}
        self._streams: dict[str, Stream] = {}
        self._consumers: dict[tuple[str, str], Consumer] = {}
        self._names = 0
        self._verbs: dict[str, Callable[[list[str], Any], Answer]] = {
            "INFO": self._account,
            "STREAM.INFO": self._stream_info,
            "STREAM.CREATE": self._create_stream,
            "STREAM.UPDATE": self._update_stream,
            "STREAM.DELETE": self._delete_stream,
            "STREAM.PURGE": self._purge_stream,
            "STREAM.MSG.GET": self._get_message,
            "STREAM.MSG.DELETE": self._delete_message,
            "CONSUMER.INFO": self._consumer_info,
            "CONSUMER.LIST": self._list_consumers,
            "CONSUMER.DELETE": self._delete_consumer,
            "CONSUMER.CREATE": self._create_consumer,
            "CONSUMER.DURABLE.CREATE": self._create_consumer,
        }

    def begin_again(self, crash: Crash) -> None:
        """A server is started on what a crash has left of this data, which has no memory left."""
        for name in [
            name for name, item in self._streams.items() if item.config.storage == "memory"
        ]:
            self._drop(name)
        for name, stream in self._streams.items():
            if stream.journal is not None:
                kept = self._syncs[name].kept(stream.journal, crash)
                if kept < len(stream.journal):
                    stream.carry_out(stream.journal[:kept])
            self._syncs[name] = SyncTimes(self._disk, self._host.wall_ns(), self._entropy)
        for key, consumer in self._consumers.items():
            state, changes = self._kept[key]
            for change in changes[: state_kept(changes, self._disk, crash)]:
                state.apply(change)
            state = state.through_file()
            changes.clear()
            self._kept[key] = state, changes
            consumer.restore(state)

    def store(self, subject: str, headers: bytes, payload: bytes) -> Answer | None:
        """Store what was published; the acknowledgement, ``None`` if no stream listens."""
        for stream in list(self._streams.values()):
            if stream.takes(subject):
                try:
                    before = stream.last_sequence
                    answer = stream.store(subject, headers, payload)
                except StreamError as error:
                    return {"stream": stream.config.name, "seq": 0, "error": error.told()}
                if stream.last_sequence != before:
                    self._tell_stored(stream, stream.messages.get(stream.last_sequence))
                return answer
        return None

    def carry_out(self, name: str, change: Change) -> Answer:
        """Change a stream as it was changed elsewhere; the answer to whoever asked for it."""
        stream = self._streams[name]
        try:
            if isinstance(change, Stored):
                before = stream.last_sequence
                answer = stream.store_at(
                    change.time_ns, change.subject, change.headers, change.payload
                )
                if stream.last_sequence != before:
                    self._tell_stored(stream, stream.messages.get(stream.last_sequence))
                return answer
            if isinstance(change, Purged):
                return self._purge_stream([name], {"filter": change.pattern, "seq": change.below})
            return self._delete_message([name], {"seq": change.sequence})
        except StreamError as error:
            return {"stream": name, "seq": 0, "error": error.told()}

    def replace(self, name: str, changes: "Iterable[Change]") -> None:
        """Have a stream be what these changes come to, and nothing else."""
        self._streams[name].carry_out(changes)
        for consumer in self._of(name):
            consumer.recount()

    def streams(self) -> dict[str, Stream]:
        """By their names."""
        return self._streams

    def consumer(self, stream: str, name: str) -> Consumer | None:
        """One that runs here."""
        return self._consumers.get((stream, name))

    def open_consumer(
        self,
        stream: str,
        config: ConsumerConfig,
        host: Host,
        record: "Callable[[ConsumerChange], None]",
    ) -> Consumer:
        """Run a consumer here that is kept elsewhere."""
        consumer = Consumer(self._streams[stream], config, host, record)
        self._consumers[stream, consumer.name] = consumer
        return consumer

    def close_consumer(self, stream: str, name: str) -> None:
        """Run it no more, if it runs here."""
        self._consumers.pop((stream, name), None)

    def _tell_stored(self, stream: Stream, message: StoredMessage | None) -> None:
        if message is None:
            return
        for consumer in self._of(stream.config.name):
            consumer.on_stored(message)

    def acknowledge(self, subject: str, word: bytes) -> bool | None:
        """A word about a delivery; whether it is confirmed, ``None`` if there is no such consumer.

        A consumer that was rolled back does not know deliveries of before, and confirms nothing of
        them.
        """
        tokens = subject.split(".")
        consumer = self._consumers.get((tokens[2], tokens[3]))
        if consumer is None:
            return None
        sequence = int(tokens[5])
        consumer.answer(sequence, word, count=int(tokens[4]))
        return consumer.has_delivered(sequence)

    def ask(self, subject: str, reply: str, payload: bytes) -> bool:
        """A pull request; whether there is such a consumer."""
        stream, _, name = subject.removeprefix("$JS.API.CONSUMER.MSG.NEXT.").partition(".")
        consumer = self._consumers.get((stream, name))
        if consumer is None:
            return False
        told = _decode(payload) if payload else {}
        if isinstance(told, int):
            told = {"batch": told}
        expires_ns = int(told.get("expires") or 0)
        pull = Pull(
            reply=reply,
            left=int(told.get("batch") or 1),
            expires_ns=expires_ns and self._host.now_ns() + expires_ns,
        )
        consumer.ask(pull, no_wait=bool(told.get("no_wait")))
        return True

    def api(self, subject: str, payload: bytes) -> Answer | None:
        """The answer to a request of the API; ``None`` for one that is not simulated."""
        words = subject.removeprefix("$JS.API.").split(".")
        for length in (3, 2, 1):
            verb = ".".join(words[:length])
            run = self._verbs.get(verb)
            if run is None:
                continue
            kind = f"{_TYPE}{verb.lower().replace('.', '_')}_response"
            try:
                body = _decode(payload) if payload else {}
                return {"type": kind, **run(words[length:], body)}
            except StreamError as error:
                return {"type": kind, "error": error.told()}
        return None

    def _account(self, _words: list[str], _body: Any) -> Answer:
        return {
            "memory": 0,
            "storage": 0,
            "streams": len(self._streams),
            "consumers": len(self._consumers),
            "limits": {"max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1},
            "api": {"total": 0, "errors": 0},
        }

    def _find(self, name: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            raise StreamError(*NO_STREAM)
        return stream

    def _of(self, stream: str) -> list[Consumer]:
        for key in [key for key, item in self._consumers.items() if item.is_forgotten()]:
            del self._consumers[key]
        return [item for (owner, _name), item in self._consumers.items() if owner == stream]

    def _stream_info(self, words: list[str], body: Any) -> Answer:
        return self._told(self._find(words[0]), subjects=str(body.get("subjects_filter") or ""))

    def _told(self, stream: Stream, *, subjects: str = "") -> Answer:
        state = stream.state(subjects)
        state["consumer_count"] = len(self._of(stream.config.name))
        return {
            "config": msgspec.to_builtins(stream.config),
            "created": _time(stream.created_ns),
            "state": state,
        }

    def _create_stream(self, words: list[str], body: Any) -> Answer:
        config = read_config(body, StreamConfig)
        existing = self._streams.get(words[0])
        if existing is not None:
            if existing.config != config:
                raise StreamError(
                    400, 10058, "stream name already in use with a different configuration"
                )
            return self._told(existing)
        stream = Stream(config, self._host.wall_ns)
        stream.on_removed = lambda message: self._tell_removed(config.name, message)
        self._streams[config.name] = stream
        if config.storage == "file" and not self._disk.always:
            stream.journal = []
        self._syncs[config.name] = SyncTimes(self._disk, stream.created_ns, self._entropy)
        return {**self._told(stream), "did_create": True}

    def _tell_removed(self, stream: str, message: StoredMessage) -> None:
        for (owner, _name), consumer in self._consumers.items():
            if owner == stream:
                consumer.on_removed(message)

    def _update_stream(self, words: list[str], body: Any) -> Answer:
        stream = self._find(words[0])
        stream.config = read_config(body, StreamConfig)
        return self._told(stream)

    def _delete_stream(self, words: list[str], _body: Any) -> Answer:
        self._find(words[0])
        self._drop(words[0])
        return {"success": True}

    def _drop(self, name: str) -> None:
        del self._streams[name]
        for key in [key for key in self._consumers if key[0] == name]:
            del self._consumers[key]

    def _purge_stream(self, words: list[str], body: Any) -> Answer:
        stream = self._find(words[0])
        pattern = str(body.get("filter") or "")
        gone = stream.purge(pattern, int(body.get("seq") or 0))
        for consumer in self._of(words[0]):
            if not pattern or matches(pattern, consumer.config.filter_subject):
                left = stream.next_of(pattern, 1)
                consumer.on_purged(stream.last_sequence + 1 if left is None else left.sequence)
        return {"success": True, "purged": gone}

    def _get_message(self, words: list[str], body: Any) -> Answer:
        stream = self._find(words[0])
        stream.expire()
        sequence = int(body.get("seq") or 0)
        if "last_by_subj" in body:
            message = stream.last_of(body["last_by_subj"])
        elif "next_by_subj" in body:
            message = stream.next_of(body["next_by_subj"], sequence)
        else:
            message = stream.messages.get(sequence)
        if message is None:
            raise StreamError(*_NO_MESSAGE)
        told: Answer = {
            "subject": message.subject,
            "seq": message.sequence,
            "time": _time(message.time_ns),
        }
        if message.payload:
            told["data"] = base64.b64encode(message.payload).decode()
        if message.headers:
            told["hdrs"] = base64.b64encode(message.headers).decode()
        return {"message": told}

    def direct(self, name: str, subject: str) -> tuple[bool, StoredMessage | None]:
        """Whether a stream may be read directly, and its last message of a subject."""
        stream = self._streams.get(name)
        if stream is None or not stream.config.allow_direct:
            return False, None
        stream.expire()
        return True, stream.last_of(subject)

    def _delete_message(self, words: list[str], body: Any) -> Answer:
        self._find(words[0]).remove(int(body["seq"]))
        return {"success": True}

    def _find_consumer(self, words: list[str]) -> Consumer:
        self._find(words[0])
        self._of(words[0])
        consumer = self._consumers.get((words[0], words[1]))
        if consumer is None:
            raise StreamError(*NO_CONSUMER)
        return consumer

    def _consumer_info(self, words: list[str], _body: Any) -> Answer:
        return self.told_consumer(self._find_consumer(words))

    def told_consumer(self, consumer: Consumer) -> Answer:
        """As CONSUMER.INFO tells it."""
        return {
            "stream_name": consumer.stream.config.name,
            "name": consumer.name,
            "created": _time(consumer.created_ns),
            "config": {
                name: value
                for name, value in msgspec.to_builtins(consumer.config).items()
                if value not in ("", False, {})
            },
            **consumer.state(),
        }

    def _list_consumers(self, words: list[str], _body: Any) -> Answer:
        self._find(words[0])
        told = [self.told_consumer(consumer) for consumer in self._of(words[0])]
        return {"total": len(told), "offset": 0, "limit": 256, "consumers": told}

    def _delete_consumer(self, words: list[str], _body: Any) -> Answer:
        consumer = self._find_consumer(words)
        del self._consumers[words[0], consumer.name]
        return {"success": True}

    def _create_consumer(self, words: list[str], body: Any) -> Answer:
        stream = self._find(words[0])
        config = read_config(body["config"], ConsumerConfig)
        name = config.durable_name or config.name
        if not name:
            self._names += 1
            name = config.name = f"ephemeral-{self._names}"
        action = body.get("action", "")
        self._of(words[0])
        existing = self._consumers.get((words[0], name))
        if existing is None:
            if action == "update":
                raise StreamError(400, 10149, "consumer does not exist")
            changes: list[ConsumerChange] = []
            consumer = Consumer(stream, config, self._host, changes.append)
            self._consumers[words[0], name] = consumer
            self._kept[words[0], name] = consumer.kept(), changes
            return self.told_consumer(consumer)
        if action == "create" and existing.config != config:
            raise StreamError(400, 10148, "consumer already exists")
        existing.change(config)
        return self.told_consumer(existing)


def read_config(body: Any, kind: Any) -> Any:
    """The settings of a request; what is not simulated is refused, unless it is empty."""
    known = {name: value for name, value in body.items() if name in kind.__struct_fields__}
    others = {
        name: value
        for name, value in body.items()
        if name not in known and value not in (None, 0, "", False, [], {}, "none")
    }
    if others:
        raise StreamError(400, 10052, f"not simulated: {', '.join(sorted(others))}")
    return msgspec.convert(
        {name: value for name, value in known.items() if value is not None}, kind
    )


def stored_headers(stream: str, message: StoredMessage) -> bytes:
    """The headers of a message that is read directly: its own, and behind them where it lies."""
    own = message.headers.removesuffix(_END) if message.headers else b"NATS/1.0\r\n"
    where = {
        "Nats-Stream": stream,
        "Nats-Subject": message.subject,
        "Nats-Sequence": message.sequence,
        "Nats-Time-Stamp": _time(message.time_ns),
    }
    return own + "".join(f"{name}: {value}\r\n" for name, value in where.items()).encode() + _END


def _time(wall_ns: int) -> str:
    """As the server writes times: RFC 3339, nine digits."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{moment.isoformat()[:19]}.{rest_ns:09d}Z"
