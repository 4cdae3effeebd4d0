"""Planted bugs that the search does not show under hardened, each with the reason.

A later stage shows each of them; which one, and with which seed, the evidence says.
"""

__all__ = ["UNSEEN"]

_SKIPS = "the done-store refuses the second start"
_SKIPS_COPY = "the done-store skips the second copy"
_OWN_ATTEMPTS = "the worker counts for itself, and buries the task before a further start"
_NO_STOP = "no schedule asks a worker to stop while it has tasks"
_ON_DISK = "with an outbox a task is accepted from its disk: no broker refuses it to the caller"
_OVERTAKEN = "a task that is overtaken is superseded by the later one, or counted only"
_LEASED = "not called: a work list with a lease has deliveries of its own"

UNSEEN: dict[str, str] = {
    "accepted-though-both-refused": _ON_DISK,
    "retry-with-a-new-id": _ON_DISK,
    "second-write-is-skipped": (
        "the outbox puts a task on each broker, whatever the producer does in its turn"
    ),
    "removed-before-it-is-sent": "not called: no schedule has a push and the flush of its hook",
    "cleared-by-one-of-two": "the measure reconcile puts on the other broker what one has",
    "newest-of-the-outbox-first": _OVERTAKEN,
    "repeated-under-another-id": _SKIPS_COPY,
    "swept-without-a-look": _SKIPS_COPY,
    "started-twice-on-a-retry": _SKIPS,
    "one-attempt-too-many": _OWN_ATTEMPTS,
    "one-attempt-too-many-for-the-consumer": _OWN_ATTEMPTS,
    "hung-tasks-are-kept": _NO_STOP,
    "last-read-is-dropped": _NO_STOP,
    "ack-to-the-broker-that-is-read": (
        "the gate of a phase that reads NATS alone waits until nobody has a task from Redis"
    ),
    "delivery-of-a-letter-goes-on": "the done-store has the end of a task that is buried",
    "redis-ack-is-dropped": _LEASED,
    "nats-ack-is-dropped": "not called: with confirmed_acks another call acknowledges",
    "ack-of-the-delivery-before": _LEASED,
    "redis-nak-that-acknowledges": _LEASED,
    "attempt-is-not-counted": _LEASED,
    "requeue-without-a-look": _LEASED,
    "last-of-a-batch-is-forgotten": _LEASED,
    "pushed-at-the-wrong-end": _OVERTAKEN,
    "newest-of-a-pull-first": "each message of its network arrives by itself: no pull has two",
    "buffered-deliveries-are-kept": _NO_STOP,
    "only-new-tasks-are-delivered": "not called: epoch_consumer makes its consumers elsewhere",
    "task-taken-for-junk": "the load has payloads in ASCII",
    "stale-nak-puts-back": "no seed has a handler that fails when its worker has lost its lease",
    "checked-before-the-service": _SKIPS,
    "state-is-added-to": _SKIPS,
    "watermark-one-too-low": _SKIPS,
    "deleted-consumer-is-made-anew": _SKIPS,
    "another-stream-is-taken-for-the-same": "no schedule loses the stream",
    "unjudged-is-behind": "no seed has the done-store away while tasks before an epoch are judged",
    "the-budget-is-not-looked-at": (
        "what is delivered beyond its budget was held by others; no seed has that many deaths with"
        " one task"
    ),
    "superseded-beside-its-letter": "no seed loses the end of a task that has a dead letter",
    "moved-without-the-word": (
        "no seed has a worker die between the answer that a task is superseded and its record of"
        " that, and its record moved before the task comes again"
    ),
}
