"""What became of each task on NATS, from both sides of every connection."""

import json
from collections import Counter
from typing import NamedTuple

import msgspec

from tests.witness.accounts import Delivery
from tests.witness.forward import Frame
from tests.witness.redis_log import letter_of, task_of
from tests.witness.wire import Publish, Settlement, parse_settlement

__all__ = ["BUCKET", "DURABLES", "STREAM", "Handed", "NatsSeen", "is_wanted", "read_talk"]

STREAM = "HOOK_QUEUE"
DURABLES = "hook-sync-worker"
SUBJECT = "queue.hook."
_ACKS = f"$JS.ACK.{STREAM}."
BUCKET = "HOOK_QUEUE_DONE"
_LETTERS = "dead.queue.hook."
_EPOCHS = "epoch.queue.hook."
_SLOTS = "worker.queue.hook."
_RECORDS = f"$KV.{BUCKET}."
_WANTED = (SUBJECT, _RECORDS, _LETTERS, _EPOCHS, _SLOTS)
_SMALL_BYTES = 512
_NO_RESPONDERS = b"NATS/1.0 503"


class Handed(NamedTuple):
    """One delivery: the consumer, and its own number of it."""

    consumer: str
    number: int


class NatsSeen(msgspec.Struct, kw_only=True):
    """What went over the connections, and what the server holds after the run.

    Attributes:
        puts: sequence and task of each publish that the stream acknowledged, repeats included.
        repeats: of these, those that the stream knew already.
        unanswered: publishes of a task without an acknowledgement.
        handed: sequence and attempt of each delivery of a durable consumer to a worker; whoever
            announces slots is one. drained: likewise to somebody else, which is a procedure.
        answers: the last word of the client about it: ``ack``, ``nak`` or ``term``.
        confirmed: acknowledgements that the server answered.
        writes: key and entry of each write to the bucket that was taken, by its sequence; a mark of
            what was copied is one without a state (``s``).
        letters: dead letters that were stored.
        epochs: first sequence by the number of the epoch.
        stored: task by sequence, read back after the run.
        last_sequence: of the stream; ``bucket_sequence`` of the bucket.
        bucket_keys: how many the bucket holds.
        consumers: deliveries by each durable consumer's own count, and how many it waits for.
    """

    puts: Counter[tuple[int, str]] = msgspec.field(default_factory=Counter)
    repeats: int = 0
    unanswered: Counter[str] = msgspec.field(default_factory=Counter)
    handed: dict[Handed, Delivery] = {}
    drained: dict[Handed, Delivery] = {}
    answers: dict[Handed, str] = {}
    confirmed: set[Handed] = set()
    writes: dict[int, tuple[str, dict[str, object]]] = {}
    letters: Counter[str] = msgspec.field(default_factory=Counter)
    epochs: dict[int, int] = {}
    stored: dict[int, str] = {}
    last_sequence: int = 0
    bucket_sequence: int = 0
    bucket_keys: int = 0
    consumers: dict[str, tuple[int, int]] = {}
    strange: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def claimed(self) -> Counter[tuple[str, int]]:
        """Task and token of each claim: the write that is the claim itself makes its token."""
        return Counter(
            {
                (key, int(entry.get("b", 0)) + sequence): 1
                for sequence, (key, entry) in self.writes.items()
                if entry.get("s") == "c" and not entry.get("t")
            }
        )

    @property
    def done(self) -> Counter[tuple[str, int]]:
        """Task and token of each completion; a copied record has no token of this store."""
        return Counter(
            {
                (key, int(entry["t"])): 1
                for key, entry in self.writes.values()
                if entry.get("s") == "d" and entry["t"] != entry.get("b", 0)
            }
        )

    @property
    def superseded(self) -> Counter[str]:
        """Tasks that were ended without an execution."""
        return Counter({key: 1 for key, entry in self.writes.values() if entry.get("s") == "s"})

    @property
    def ended(self) -> set[str]:
        """Tasks whose last record is that of an end."""
        last = {key: entry.get("s") for _sequence, (key, entry) in sorted(self.writes.items())}
        return {key for key, state in last.items() if state in ("d", "s")}


def is_wanted(frame: Frame) -> bool:
    """Whether a message says something about a task, or may be the answer to one that does.

    Whoever looks through the stream has deliveries of his own, which are no hand-over.
    """
    if frame.from_client:
        return frame.subject.startswith((*_WANTED, _ACKS))
    if frame.reply.startswith(f"{_ACKS}{DURABLES}"):
        return True
    return not frame.reply and len(frame.payload) < _SMALL_BYTES


def read_talk(frames: list[Frame]) -> NatsSeen:
    """Publishes with their answers, deliveries with theirs, in the order of arrival."""
    seen = NatsSeen()
    asked: dict[tuple[int, str], Frame] = {}
    workers = {item.connection for item in frames if item.subject.startswith(_SLOTS)}
    for frame in frames:
        if frame.from_client:
            if frame.subject.startswith(_ACKS):
                _answer(seen, frame)
            elif frame.subject.startswith(SUBJECT):
                seen.unanswered[task_of(frame.payload)] += 1
            asked[frame.connection, frame.reply] = frame
        elif frame.reply:
            found = _settlement(frame.reply)
            handed = Handed(found.consumer, found.delivery)
            target = seen.handed if frame.connection in workers else seen.drained
            target[handed] = Delivery(found.sequence, found.attempt)
        elif question := asked.pop((frame.connection, frame.subject), None):
            _hear_answer(seen, question, frame)
    seen.unanswered = +seen.unanswered
    return seen


def _settlement(subject: str, payload: bytes = b"") -> Settlement:
    return parse_settlement(Publish(subject, b"", payload))


def _answer(seen: NatsSeen, frame: Frame) -> None:
    found = _settlement(frame.subject, frame.payload)
    if found.consumer.startswith(DURABLES) and found.what != "in progress":
        handed = Handed(found.consumer, found.delivery)
        before = seen.answers.setdefault(handed, found.what)
        if before != found.what:  # an acknowledgement may be sent again, and nothing else
            seen.strange[f"{found.what} after {before}"] += 1


def _hear_answer(seen: NatsSeen, question: Frame, answer: Frame) -> None:
    subject = question.subject
    if answer.headers.startswith(_NO_RESPONDERS):
        return
    if subject.startswith(_ACKS):
        found = _settlement(subject, question.payload)
        if found.what == "ack" and not answer.payload:
            seen.confirmed.add(Handed(found.consumer, found.delivery))
        return
    said = json.loads(answer.payload)
    if "error" in said or "seq" not in said:  # refused, or not about a stream
        return
    if subject.startswith(SUBJECT):
        task = task_of(question.payload)
        seen.unanswered[task] -= 1
        seen.puts[said["seq"], task] += 1
        seen.repeats += bool(said.get("duplicate"))
    elif subject.startswith(_LETTERS):
        if not said.get("duplicate"):
            seen.letters[letter_of(question.payload)] += 1
    elif subject.startswith(_EPOCHS):
        entry = json.loads(question.payload)
        seen.epochs[entry["number"]] = entry["start_sequence"]
    elif subject.startswith(_RECORDS):
        key = subject.removeprefix(_RECORDS)
        seen.writes[said["seq"]] = (key, json.loads(question.payload))
