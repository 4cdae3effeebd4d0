"""Planted bugs that the search does not see under hardened, each with what shows it and why."""

import dataclasses

__all__ = ["UNSEEN", "Unseen"]


@dataclasses.dataclass(frozen=True)
class Unseen:
    """A bug that hardened does not show.

    Attributes:
        seen_by: the stage that does; empty for none.
        reason: why hardened does not, for a person.
    """

    seen_by: str
    reason: str


_MEASURES, _GUIDE, _NONE = "measures", "guide", ""
_SKIPS = "the done-store refuses the second start"
_SKIPS_COPY = "the done-store skips the second copy"
_OWN_ATTEMPTS = "the worker counts for itself, and buries the task before a further start"
_NO_STOP = "no schedule asks a worker to stop while it has tasks"

UNSEEN: dict[str, Unseen] = {
    "second-write-is-skipped": Unseen(
        _GUIDE, "the outbox puts a task on each broker, whatever the producer does in its turn"
    ),
    "removed-before-it-is-sent": Unseen(_NONE, "the flush of the git hook is not simulated"),
    "cleared-by-one-of-two": Unseen(
        _MEASURES, "the measure reconcile puts on the other broker what one has"
    ),
    "newest-of-the-outbox-first": Unseen(
        _MEASURES, "a task that is overtaken is superseded by the later one, or counted only"
    ),
    "repeated-under-another-id": Unseen(_MEASURES, _SKIPS_COPY),
    "swept-without-a-look": Unseen(_MEASURES, _SKIPS_COPY),
    "started-twice": Unseen(_MEASURES, _SKIPS),
    "started-twice-on-a-retry": Unseen(_MEASURES, _SKIPS),
    "one-attempt-too-many": Unseen(_MEASURES, _OWN_ATTEMPTS),
    "one-attempt-too-many-for-the-consumer": Unseen(_MEASURES, _OWN_ATTEMPTS),
    "hung-tasks-are-kept": Unseen(_NONE, _NO_STOP),
    "last-read-is-dropped": Unseen(_NONE, _NO_STOP),
}
