"""What NATS carried, from a core subscription on a raw socket. Knows nothing of hookbench."""

import json
import re
import uuid
from typing import NamedTuple, Self

from tests.witness.tap import Tap

__all__ = ["Frames", "NatsWitness", "Publish", "Settlement", "parse_settlement"]

_MESSAGE_ID = re.compile(rb"^Nats-Msg-Id: *([^\r\n]*)\r\n", re.IGNORECASE | re.MULTILINE)
# $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, and the
# newer form with <domain>.<account> in front and a token behind (ADR-15).
_OLD_TOKENS = 9
_NEW_TOKENS = 11
_WORDS = {b"": "ack", b"+ACK": "ack", b"-NAK": "nak", b"+TERM": "term", b"+WPI": "in progress"}


class Publish(NamedTuple):
    """One message as the server handed it on."""

    subject: str
    headers: bytes
    payload: bytes

    @property
    def message_id(self) -> bytes | None:
        """``Nats-Msg-Id``, by which JetStream drops repeats."""
        found = _MESSAGE_ID.search(self.headers)
        return found[1] if found else None


class Settlement(NamedTuple):
    """A worker's answer to one delivery: ``ack``, ``nak``, ``term`` or ``in progress``."""

    what: str
    stream: str
    consumer: str
    attempt: int
    sequence: int
    delivery: int
    """The number of the delivery in its consumer."""


def parse_settlement(publish: Publish) -> Settlement:
    """The answer in a message to ``$JS.ACK.…``.

    Raises:
        ValueError: it has another form; the text has the subject and the payload.
    """
    tokens = publish.subject.split(".")
    words = publish.payload.split(b" ", 1)[0]
    if words not in _WORDS or not (len(tokens) == _OLD_TOKENS or len(tokens) >= _NEW_TOKENS):
        raise ValueError(f"no acknowledgement: {publish.subject} {publish.payload[:80]!r}")
    first = 2 if len(tokens) == _OLD_TOKENS else 4
    stream, consumer, *numbers = tokens[first : first + 5]
    attempt, sequence, delivery = (int(number) for number in numbers)
    return Settlement(_WORDS[words], stream, consumer, attempt, sequence, delivery)


class Frames:
    """The server's side of the NATS protocol, from chunks of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.messages: list[Publish] = []
        self.info: dict[str, object] = {}
        self.pings = 0
        self.pongs = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived.

        Raises:
            ConnectionError: the server says an error, or something that is not known.
        """
        self._buffer += data
        at = 0
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            line = bytes(self._buffer[at:end])
            past = end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                past += int(line.rsplit(b" ", 1)[1]) + 2
                if len(self._buffer) < past:
                    break
                self._message(line, bytes(self._buffer[end + 2 : past - 2]))
            else:
                self._control(line)
            at = past
        del self._buffer[:at]

    def _message(self, line: bytes, content: bytes) -> None:
        operation, subject, *rest = line.split(b" ")
        headers = int(rest[-2]) if operation == b"HMSG" else 0
        self.messages.append(Publish(subject.decode(), content[:headers], content[headers:]))

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self.pings += 1
        elif line == b"PONG":
            self.pongs += 1
        elif line.startswith(b"INFO "):
            self.info = json.loads(line[5:])
        elif line != b"+OK":
            raise ConnectionError(f"NATS says {line[:200]!r}")


class NatsWitness:
    """Listens to the subjects of a queue and to all acknowledgements until ``finish``."""

    def __init__(self, port: int, subject: str) -> None:
        self._frames = Frames()
        self._subject = subject
        self._tap = Tap(port, self._hear)

    def __enter__(self) -> Self:
        options = {"verbose": False, "pedantic": False, "headers": True, "name": "witness"}
        subjects = (self._subject, "$JS.ACK.>", "witness.>")
        lines = [f"SUB {name} {number}\r\n" for number, name in enumerate(subjects, start=1)]
        self._tap.send(f"CONNECT {json.dumps(options)}\r\n{''.join(lines)}PING\r\n".encode())
        self._tap.start()
        # The server takes a connection's lines in order: with its PONG, it has the subscriptions.
        self._tap.wait_for(lambda: self._frames.pongs > 0, "the subscription on NATS")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._tap.__exit__()

    def _hear(self, data: bytes) -> bytes:
        before = self._frames.pings
        self._frames.feed(data)
        return b"PONG\r\n" * (self._frames.pings - before)

    @property
    def version(self) -> str:
        """Of the server."""
        return str(self._frames.info.get("version", "?"))

    def finish(self) -> tuple[list[Publish], list[Settlement], list[str]]:
        """What was published, how deliveries were answered, and why that is incomplete, if so."""
        mark = f"witness.{uuid.uuid4().hex}"
        try:
            self._tap.send(f"PUB {mark} 0\r\n\r\n".encode())
            # Handed on after all that was published before: a connection's messages are a queue.
            messages = self._frames.messages
            self._tap.wait_for(
                lambda: bool(messages) and messages[-1].subject == mark, "the end of NATS"
            )
        except OSError as error:
            return [], [], [f"the subscription on NATS was cut: {error}"]
        answers = [item for item in messages if item.subject.startswith("$JS.ACK.")]
        tasks = [item for item in messages if not item.subject.startswith(("$JS.ACK.", "witness."))]
        return tasks, [parse_settlement(item) for item in answers], []
