"""What a consumer keeps: on its disk, and on the other nodes of a cluster.

A running consumer tells what changes; this is what those changes come to. It has less than the
running one: who waits for messages, and when a delivery is due again. As in nats-server, whose
``ConsumerState`` it follows, a first or repeated delivery is kept with the time when the *message*
was stored, not delivered; only in-progress and a delayed nak put another time there. So after a
restart, or with a new leader, AckWait counts from the storing (``updateDelivered`` in
server/consumer.go of 2.15; measured with one node and with three).
"""

import msgspec

__all__ = ["Acked", "ConsumerChange", "ConsumerState", "Delivered", "Moved"]

_NS_PER_S = 1_000_000_000


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """A delivery, or a new time of one.

    Attributes:
        time_ns: when it happened.
        consumer_sequence: of the delivery.
        sequence: of the message.
        count: which delivery of the message.
        since_ns: from when on AckWait counts.
    """

    time_ns: int
    consumer_sequence: int
    sequence: int
    count: int
    since_ns: int


class Acked(msgspec.Struct, frozen=True, gc=False):
    """A delivery is not waited for any more, in whatever way that came about."""

    time_ns: int
    sequence: int


class Moved(msgspec.Struct, frozen=True, gc=False):
    """The next message is a later one: where it begins, or after a purge."""

    time_ns: int
    next_sequence: int


ConsumerChange = Delivered | Acked | Moved


class ConsumerState(msgspec.Struct, kw_only=True):
    """See the module.

    Attributes:
        next_sequence: of the first message that was not delivered.
        delivered: sequence of the last delivery.
        pending: consumer sequence and ``since_ns`` by sequence.
        counts: deliveries of messages that had more than one.
    """

    next_sequence: int = 1
    delivered: int = 0
    pending: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)
    counts: dict[int, int] = msgspec.field(default_factory=dict)

    def apply(self, change: ConsumerChange) -> None:
        """Do what the running consumer did."""
        if isinstance(change, Acked):
            self.pending.pop(change.sequence, None)
            self.counts.pop(change.sequence, None)
        elif isinstance(change, Moved):
            self.next_sequence = max(self.next_sequence, change.next_sequence)
        else:
            self._deliver(change)

    def _deliver(self, change: Delivered) -> None:
        sequence = change.sequence
        held = self.pending.get(sequence)
        if held is not None:
            self.pending[sequence] = held[0], change.since_ns
        elif sequence >= self.next_sequence:
            self.pending[sequence] = change.consumer_sequence, change.since_ns
        self.next_sequence = max(self.next_sequence, sequence + 1)
        self.delivered = max(self.delivered, change.consumer_sequence)
        if change.count > 1:
            self.counts[sequence] = max(self.counts.get(sequence, 1), change.count)

    def through_file(self) -> "ConsumerState":
        """As it is read from its file, which keeps times in whole seconds."""
        return ConsumerState(
            next_sequence=self.next_sequence,
            delivered=self.delivered,
            pending={
                sequence: (number, since_ns // _NS_PER_S * _NS_PER_S)
                for sequence, (number, since_ns) in self.pending.items()
            },
            counts=dict(self.counts),
        )
