"""A simulated pull consumer: what it has delivered, what it waits for, and who waits for it."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from hookbench.sim.nats.consumer_config import ConsumerConfig
from hookbench.sim.nats.consumer_state import (
    Acked,
    ConsumerChange,
    ConsumerState,
    Delivered,
    Moved,
)
from hookbench.sim.nats.errors import StreamError
from hookbench.sim.nats.frames import Headers
from hookbench.sim.nats.stream import StoredMessage, Stream
from hookbench.sim.nats.subjects import matches

__all__ = ["Consumer", "Host", "Pull"]

_FIXED = {
    "deliver_policy": "deliver policy",
    "opt_start_seq": "start sequence",
    "ack_policy": "ack policy",
}
"""What cannot be changed of a consumer that exists (error 10012)."""


class Pull(msgspec.Struct, kw_only=True):
    """A request for messages.

    Attributes:
        reply: where they go.
        left: how many may still come.
        expires_ns: when it ends; 0 for never.
        one_shot: it ends as soon as all has been read.
        delivered: how many came.
    """

    reply: str
    left: int
    expires_ns: int
    one_shot: bool = False
    delivered: int = 0


class Pending(msgspec.Struct):
    """A delivery that waits for its acknowledgement."""

    consumer_sequence: int
    due_ns: int


class Host(msgspec.Struct, frozen=True):
    """What a consumer needs of its server.

    Attributes:
        settled: of a consumer with replicas: calls something once a quorum has what was delivered
            so far, and it has gone out; ``None``: it has gone out.
    """

    now_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    after: Callable[[int, Callable[[], None]], Any]
    has_interest: Callable[[str], bool]
    deliver: Callable[[str, str, str, bytes, bytes], None]
    status: Callable[[str, str, Headers], None]
    advise: Callable[[str, dict[str, Any]], None]
    settled: Callable[[Callable[[], None]], None] | None = None


class Consumer:
    """State of one consumer; messages go out as soon as somebody asks and there are some.

    Args:
        stream: that it reads.
        config: its settings.
        host: its server.
        record: is told of each change, before what follows from it is sent.
    """

    def __init__(
        self,
        stream: Stream,
        config: ConsumerConfig,
        host: Host,
        record: Callable[[ConsumerChange], None],
    ) -> None:
        self.stream = stream
        self.config = config
        self.name = config.durable_name or config.name
        self.created_ns = host.wall_ns()
        self._host = host
        self._record = record
        self._next = self._first_sequence()
        self._delivered = 0
        self._pending: dict[int, Pending] = {}
        self._counts: dict[int, int] = {}
        self._again: deque[int] = deque()
        self._waiting: deque[Pull] = deque()
        self._unread = self._count_unread()
        self._timer: Any = None
        self._due_ns = 0
        self._idle_since_ns = host.now_ns()

    def _first_sequence(self) -> int:
        """Where the policy says, but not before what the stream has."""
        policy, end = self.config.deliver_policy, self.stream.last_sequence + 1
        if policy == "by_start_sequence":
            wanted = self.config.opt_start_seq
        elif policy == "new":
            wanted = end
        elif policy == "last":
            last = self.stream.last_of(self.config.filter_subject or ">")
            wanted = end if last is None else last.sequence
        elif policy == "all":
            wanted = 1
        else:
            raise StreamError(400, 10012, f"deliver policy {policy} is not simulated")
        if not self.stream.last_sequence:
            return max(1, wanted)
        return max(wanted, self.stream.first_sequence)

    def matches(self, message: StoredMessage) -> bool:
        """Whether a message is for this consumer."""
        wanted = self.config.filter_subject
        return not wanted or matches(wanted, message.subject)

    def _count_unread(self) -> int:
        return sum(
            message.sequence >= self._next and self.matches(message)
            for message in self.stream.messages.values()
        )

    def change(self, config: ConsumerConfig) -> None:
        """Update it in place.

        Raises:
            StreamError: something that cannot be changed is different.
        """
        for name, told in _FIXED.items():
            if getattr(config, name) != getattr(self.config, name):
                raise StreamError(500, 10012, f"{told} can not be updated")
        self.config = config
        self._unread = self._count_unread()
        self.serve()

    def on_stored(self, message: StoredMessage) -> None:
        """The stream has something new."""
        if message.sequence >= self._next and self.matches(message):
            self._unread += 1
            self.serve()

    def on_removed(self, message: StoredMessage) -> None:
        """The stream has something less; a delivery of it that is waited for ends, a bit later."""
        if message.sequence >= self._next and self.matches(message):
            self._unread -= 1
        held = self._pending.pop(message.sequence, None)
        count = self._counts.pop(message.sequence, 1)
        if held is not None:
            self._host.after(0, lambda: self._gone(message.sequence, count))

    def _gone(self, sequence: int, count: int) -> None:
        """As if it had been terminated: the server says so, and has room for another one."""
        self._record(Acked(self._host.wall_ns(), sequence))
        self._terminated(sequence, count)
        self.serve()

    def on_purged(self, first_sequence: int) -> None:
        """The stream was purged: what is gone is not waited for."""
        self._next = max(self._next, first_sequence)
        self._record(Moved(self._host.wall_ns(), self._next))

    def ask(self, pull: Pull, *, no_wait: bool) -> None:
        """A pull request has arrived."""
        self._idle_since_ns = self._host.now_ns()
        available = self._unread + len(self._again)
        if no_wait and available == 0 and not pull.expires_ns:
            self._host.status(pull.reply, "404 No Messages", {})
            return
        if no_wait and 0 < available < self._promised():
            self._host.status(pull.reply, "408 Requests Pending", {})
            return
        pull.one_shot = no_wait
        if len(self._waiting) >= self.config.max_waiting:
            self._host.status(pull.reply, "409 Exceeded MaxWaiting", {})
            return
        self._waiting.append(pull)
        if pull.expires_ns:
            self._host.after(pull.expires_ns - self._host.now_ns(), lambda: self._expire(pull))
        self.serve()

    def _expire(self, pull: Pull) -> None:
        if pull in self._waiting:
            self._waiting.remove(pull)
            self._end(pull)

    def _end(self, pull: Pull) -> None:
        told = {"Nats-Pending-Messages": str(pull.left), "Nats-Pending-Bytes": "0"}
        self._host.status(pull.reply, "408 Request Timeout", told)

    def serve(self) -> None:
        """Hand out what there is to those who wait."""
        self.stream.expire()
        while self._waiting:
            pull = self._waiting[0]
            if not self._host.has_interest(pull.reply):
                self._waiting.popleft()
                continue
            message = self._take()
            if message is None:
                if not self._is_full():
                    self._end_one_shots()
                return
            self._deliver(message, pull)
            if pull.left == 0:
                self._waiting.popleft()

    def _promised(self) -> int:
        """How many the requests that are here may still have; who has gone is forgotten."""
        here = [pull for pull in self._waiting if self._host.has_interest(pull.reply)]
        self._waiting = deque(here)
        return sum(pull.left for pull in here)

    def _is_full(self) -> bool:
        """As many wait for their acknowledgement as may."""
        most = self.config.max_ack_pending if self.config.ack_policy != "none" else 0
        return 0 < most <= len(self._pending)

    def _end_one_shots(self) -> None:
        """All has been read. A limit of pending acknowledgements that is met does not end them.

        One that has got something ends with 408 where a consumer has replicas, and else with 404:
        so do nats-servers 2.15.1, one and three of them.
        """
        settled = self._host.settled
        left: deque[Pull] = deque()
        for pull in self._waiting:
            if pull.one_shot and pull.delivered and settled is not None:
                settled(partial(self._end, pull))
            elif pull.one_shot and (pull.delivered or not pull.expires_ns):
                self._host.status(pull.reply, "404 No Messages", {})
            else:
                left.append(pull)
        self._waiting = left

    def _take(self) -> StoredMessage | None:
        """What is to be delivered next: again, or for the first time."""
        while self._again:
            sequence = self._again.popleft()
            message = self.stream.messages.get(sequence)
            held = self._pending.get(sequence)
            if message is None or held is None:
                continue
            if 0 < self.config.max_deliver <= self._counts.get(sequence, 1):
                self._give_up(message, held)
                continue
            self._counts[sequence] = self._counts.get(sequence, 1) + 1
            return message
        if self._is_full():
            return None
        found = self.stream.next_of(self.config.filter_subject, self._next)
        if found is None:
            return None
        self._next = found.sequence + 1
        self._unread -= 1
        return found

    def _give_up(self, message: StoredMessage, held: Pending) -> None:
        """Delivered often enough: one advisory, and the message stays in the stream."""
        del self._pending[message.sequence]
        self._record(Acked(self._host.wall_ns(), message.sequence))
        self._host.advise(
            f"MAX_DELIVERIES.{self.stream.config.name}.{self.name}",
            {
                "type": "io.nats.jetstream.advisory.v1.max_deliver",
                "stream": self.stream.config.name,
                "consumer": self.name,
                "stream_seq": message.sequence,
                "deliveries": self._counts.pop(message.sequence, 1),
                "consumer_seq": held.consumer_sequence,
            },
        )

    def _deliver(self, message: StoredMessage, pull: Pull) -> None:
        self._delivered += 1
        pull.left -= 1
        pull.delivered += 1
        count = self._counts.get(message.sequence, 1)
        reply = (
            f"$JS.ACK.{self.stream.config.name}.{self.name}.{count}.{message.sequence}"
            f".{self._delivered}.{message.time_ns}.{self._unread}"
        )
        if self.config.ack_policy != "none":
            due_ns = self._host.now_ns() + self.config.ack_wait
            self._pending[message.sequence] = Pending(self._delivered, due_ns)
            self._watch(due_ns)
        wall_ns = self._host.wall_ns()
        self._record(Delivered(wall_ns, self._delivered, message.sequence, count, message.time_ns))
        if self.config.ack_policy == "none":
            self._record(Acked(wall_ns, message.sequence))
        self._host.deliver(pull.reply, message.subject, reply, message.headers, message.payload)

    def _watch(self, due_ns: int) -> None:
        """Look after deliveries whose AckWait ends; one timer is enough."""
        if self._timer is not None and self._due_ns <= due_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = due_ns
        self._timer = self._host.after(max(0, due_ns - self._host.now_ns()), self._look)

    def _look(self) -> None:
        self._timer = None
        now_ns = self._host.now_ns()
        waiting = set(self._again)
        late = [
            sequence
            for sequence, held in self._pending.items()
            if held.due_ns <= now_ns and sequence not in waiting
        ]
        self._again.extend(sorted(late))
        ahead = [held.due_ns for held in self._pending.values() if held.due_ns > now_ns]
        if ahead:
            self._watch(min(ahead))
        if late:
            self.serve()

    def answer(self, sequence: int, word: bytes, *, count: int) -> None:
        """An acknowledgement, of whatever kind; of what is not pending it changes nothing.

        Args:
            sequence: of the message.
            word: what it says; nothing is a plain one.
            count: which delivery it is about.
        """
        if word.startswith(b"+TERM"):
            self._terminated(sequence, count)
        held = self._pending.get(sequence)
        if held is None:
            return
        now_ns = self._host.now_ns()
        if word.startswith(b"+WPI"):
            self._delay(sequence, held, now_ns + self.config.ack_wait)
            self._forget_again(sequence)
            self._watch(held.due_ns)
        elif word.startswith(b"-NAK"):
            self._nak(sequence, held, word)
        else:
            del self._pending[sequence]
            self._counts.pop(sequence, None)
            self._record(Acked(self._host.wall_ns(), sequence))
            self._forget_again(sequence)
        self.serve()

    def has_delivered(self, sequence: int) -> bool:
        """Whether a message was delivered, as far as it knows: of others no answer is confirmed."""
        return sequence < self._next

    def _delay(self, sequence: int, held: Pending, due_ns: int) -> None:
        """The delivery is due at another time."""
        held.due_ns = due_ns
        host = self._host
        wall_ns = host.wall_ns()
        since_ns = wall_ns + due_ns - host.now_ns() - self.config.ack_wait
        count = self._counts.get(sequence, 1)
        self._record(Delivered(wall_ns, held.consumer_sequence, sequence, count, since_ns))

    def _nak(self, sequence: int, held: Pending, word: bytes) -> None:
        self._forget_again(sequence)
        told = word[len(b"-NAK") :].strip()
        delay_ns = int(msgspec.json.decode(told)["delay"]) if told else 0
        due_ns = self._host.now_ns() + delay_ns
        if delay_ns:
            self._delay(sequence, held, due_ns)
            self._watch(due_ns)
        else:
            held.due_ns = due_ns
            self._again.append(sequence)

    def _terminated(self, sequence: int, count: int) -> None:
        self._host.advise(
            f"MSG_TERMINATED.{self.stream.config.name}.{self.name}",
            {
                "type": "io.nats.jetstream.advisory.v1.terminated",
                "stream": self.stream.config.name,
                "consumer": self.name,
                "stream_seq": sequence,
                "deliveries": count,
            },
        )

    def _forget_again(self, sequence: int) -> None:
        if sequence in self._again:
            self._again.remove(sequence)

    def restore(self, state: ConsumerState) -> None:
        """Go on from what was kept: nobody waits, and what is late by now is due at once."""
        host = self._host
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._again.clear()
        self._idle_since_ns = host.now_ns()
        self._next = state.next_sequence
        self._delivered = state.delivered
        ahead_ns = host.now_ns() - host.wall_ns() + self.config.ack_wait
        self._pending = {
            sequence: Pending(number, since_ns + ahead_ns)
            for sequence, (number, since_ns) in sorted(state.pending.items())
            if sequence in self.stream.messages
        }
        self._counts = {
            sequence: count
            for sequence, count in state.counts.items()
            if sequence in self.stream.messages
        }
        self._unread = self._count_unread()
        self._look()

    def kept(self) -> ConsumerState:
        """What it begins with: everything but where it starts comes from changes."""
        return ConsumerState(next_sequence=self._next)

    def who_waits(self) -> list[str]:
        """Where the answers to requests go that have not ended."""
        return [pull.reply for pull in self._waiting]

    def recount(self) -> None:
        """The stream is another one than before."""
        self._pending = {
            key: held for key, held in self._pending.items() if key in self.stream.messages
        }
        self._unread = self._count_unread()

    def is_forgotten(self) -> bool:
        """Whether nobody has asked for so long that the server removes it."""
        limit_ns = self.config.inactive_threshold
        return bool(
            limit_ns and not self._waiting and self._host.now_ns() - self._idle_since_ns > limit_ns
        )

    def state(self) -> dict[str, Any]:
        """As CONSUMER.INFO tells it, without its settings."""
        self.stream.expire()
        floor = min(self._pending, default=self._next) - 1
        return {
            "delivered": {"consumer_seq": self._delivered, "stream_seq": self._next - 1},
            "ack_floor": {"consumer_seq": 0, "stream_seq": max(0, floor)},
            "num_ack_pending": len(self._pending),
            "num_redelivered": len(self._counts),
            "num_waiting": len(self._waiting),
            "num_pending": self._unread,
        }
