"""The roles, and what their rules depend on."""

import enum

import msgspec

from hookbench.queues.redis_kind import RedisKind
from hookbench.task import KNOWN_TASK_TYPES, Names

__all__ = ["RUN_PREFIX", "Role", "Scope", "inbox_prefix"]

RUN_PREFIX = "{hook-*}"
"""Prefixes of ``Names.for_run``: a rehearsal on somebody's broker uses such names."""


class Role(enum.StrEnum):
    """A kind of process.

    ``producer`` puts tasks. ``worker`` takes them, works on them, and keeps claims, done-records
    and dead letters. ``gate`` looks, for ``hookbench gate`` and ``hookbench watch``. ``operator``
    also tells the phase and moves tasks, records and letters, for ``hookbench migrate``,
    ``reconcile``, ``dead`` and ``phase``: it works on no task, and clears nothing as a whole.
    ``harness`` is for rehearsals, which make and remove whatever they need.
    """

    PRODUCER = "producer"
    WORKER = "worker"
    GATE = "gate"
    OPERATOR = "operator"
    HARNESS = "harness"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules are for.

    Attributes:
        names: of the queue on both brokers.
        task_types: that are put and worked on.
        redis_kind: what holds the tasks on Redis.
        replicated: whether puts wait for replicas (``redis+replica://``), which needs commands that
            can also overwrite.
    """

    names: Names = Names()
    task_types: tuple[str, ...] = KNOWN_TASK_TYPES
    redis_kind: RedisKind = RedisKind.LIST
    replicated: bool = False


def inbox_prefix(role: Role) -> str:
    """What the inboxes of a role begin with, so that none can listen to another one's answers."""
    return f"_INBOX_{role}"
