"""The ACL rules of Redis: which commands a role runs on which keys.

A rule is a list of grants, and a grant becomes a selector
(https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/, from Redis 7.0 on): a
command is allowed if one grant has it and all of its keys. A script needs a grant for itself, with
all of its keys to read and to write, since Redis cannot know what it does; each command in it is
checked again, so a script can do nothing that its user may not.
"""

from collections.abc import Iterable, Sequence

import msgspec

from hookbench.acl.roles import RUN_PREFIX, Role, Scope
from hookbench.queues.moving import moved_key
from hookbench.queues.redis_kind import RedisKind
from hookbench.task import Names

__all__ = ["Grant", "acl_line", "grants_of", "setuser_command"]

_SCRIPTS = ("eval", "evalsha")
_ANYWHERE = (
    "ping", "select", "client|setinfo", "client|setname", "info", "role", "time",
    "command", "cluster|slots", "asking",
)  # fmt: skip
"""Without keys: to connect, to ask what the server is, and to find the nodes of a cluster."""
_LOOK = ("scan",)
"""Redis checks no pattern of keys here: who may SCAN sees the names of all keys."""
_TRANSACTIONS = ("multi", "exec", "discard")
_READ = (
    "get", "llen", "lrange", "mget", "xlen", "xpending", "xrange", "xrevrange", "zrange",
)  # fmt: skip
_TAKE_FROM_LISTS = (
    "blmove", "lindex", "llen", "lmove", "lpos", "lpush", "lrange", "lrem", "rpush",
    "exists", "hdel", "hget", "hgetall", "hincrby", "hset",
    "zadd", "zcount", "zrange", "zrangebyscore", "zrem", "zscore",
)  # fmt: skip
_TAKE_FROM_STREAMS = (
    "xack", "xautoclaim", "xclaim", "xdel", "xgroup|create", "xinfo|groups", "xlen", "xpending",
    "xrange", "xreadgroup",
)  # fmt: skip
_DONE = ("get", "set", "pexpire", "xadd", "xrange", "xrevrange")
_MOVE = (
    "del", "lset", "sadd", "srem", "type", "xadd", "xinfo|stream", "xsetid", "wait", "config|get",
)  # fmt: skip


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Commands on keys; without keys they are commands that have none.

    Attributes:
        commands: in lower case, ``xgroup|create`` for one of a container.
        keys: patterns.
        access: ``~`` for keys that are read and written, ``%R~`` or ``%W~`` for one of both.
    """

    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()
    access: str = "~"

    @property
    def text(self) -> str:
        """As Redis takes it."""
        patterns = (f"{self.access}{key}" for key in self.keys)
        return " ".join([*(f"+{command}" for command in self.commands), *patterns])


def grants_of(role: Role, scope: Scope) -> list[Grant]:
    """What a role may do on Redis; the first grant is of commands without keys."""
    if role is Role.PRODUCER:
        return _producer(scope)
    if role is Role.WORKER:
        return _worker(scope)
    prefix = scope.names.prefix
    if role is Role.OPERATOR:
        return _operator(scope)
    if role is Role.GATE:
        return [
            Grant(commands=(*_ANYWHERE, *_LOOK)),
            Grant(commands=_READ, keys=(f"{prefix}:*",), access="%R~"),
        ]
    commands = {*_SCRIPTS, *_READ, *_TAKE_FROM_LISTS, *_TAKE_FROM_STREAMS, *_DONE, *_MOVE}
    everything = tuple(sorted(commands - {"wait", "config|get"}))
    return [
        Grant(commands=(*_ANYWHERE, *_LOOK, *_TRANSACTIONS, "wait", "config|get")),
        Grant(commands=everything, keys=(f"{prefix}:*", f"{RUN_PREFIX}:*")),
    ]


def _producer(scope: Scope) -> list[Grant]:
    """Puts, and the look whether a task lies there already; it takes nothing out.

    On a stream that look reads the newest entries. A put that replicas are waited for writes what
    lies there over by itself, so that WAIT has a write to wait for.
    """
    names = scope.names
    grants = [Grant(commands=_ANYWHERE + (("wait",) if scope.replicated else ()))]
    if scope.redis_kind is RedisKind.STREAM:
        again: tuple[str, ...] = ("xinfo|stream", "xsetid") if scope.replicated else ()
        keys = tuple(names.stream_key(item) for item in scope.task_types)
        grants.append(Grant(commands=(*_SCRIPTS, "xadd", "xrevrange", *again), keys=keys))
    else:
        pending = tuple(names.pending_key(item) for item in scope.task_types)
        work = [names.work_key(item) for item in scope.task_types]
        looked_at = (*pending, *work, *(f"{key}:*" for key in work))
        again = ("lset",) if scope.replicated else ()
        grants[0] = Grant(commands=(*grants[0].commands, *_LOOK))
        grants += [
            Grant(commands=(*_SCRIPTS, "lpos", *again), keys=looked_at),
            Grant(commands=("lpush",), keys=pending, access="%W~"),
        ]
    return [*grants, *_follow(scope)]


def _worker(scope: Scope) -> list[Grant]:
    names = scope.names
    anywhere = (*_ANYWHERE, *_LOOK, *_TRANSACTIONS)
    again = ("lset",) if scope.replicated else ()
    queue = [*_SCRIPTS, *_TAKE_FROM_LISTS, *again]
    if scope.redis_kind is RedisKind.STREAM:
        queue += _TAKE_FROM_STREAMS
    pending = tuple(names.pending_key(item) for item in scope.task_types)
    own = tuple(f"{key}:*" for key in pending)
    return [
        Grant(commands=anywhere + (("wait",) if scope.replicated else ())),
        Grant(commands=tuple(dict.fromkeys(queue)), keys=(*pending, *own)),
        Grant(commands=(*_SCRIPTS, *_DONE), keys=_records(names)),
        Grant(commands=("del",), keys=tuple(map(names.seen_key, scope.task_types)), access="%W~"),
        Grant(commands=("get", "set"), keys=tuple(f"{key}:reconciler" for key in pending)),
        *_follow(scope),
    ]


def _operator(scope: Scope) -> list[Grant]:
    """Reads all, and takes out entry by entry what it has put elsewhere: it removes no list.

    ``DEL`` is for the record of a task whose dead letter is put back, for the notes of a procedure,
    and for a hold on a place.
    """
    names = scope.names
    moved, records, place = moved_key(names), f"{names.prefix}:task:*", f"{names.prefix}:phase/*"
    pending = tuple(names.pending_key(item) for item in scope.task_types)
    lists = (*pending, *(f"{key}:*" for key in pending))
    put = ["lpos", "lpush"] + ["lset"] * scope.replicated
    if scope.redis_kind is RedisKind.STREAM:
        put = ["xadd", "xrevrange"] + ["xinfo|stream", "xsetid"] * scope.replicated
    return [
        Grant(commands=(*_ANYWHERE, *_LOOK, *(("wait",) if scope.replicated else ()))),
        Grant(commands=_READ, keys=(f"{names.prefix}:*",), access="%R~"),
        Grant(
            commands=tuple(dict.fromkeys((*_SCRIPTS, *put, "lpush", "lrem", "sadd", "srem"))),
            keys=(*lists, moved),
        ),
        Grant(commands=("del",), keys=(moved, records), access="%W~"),
        Grant(commands=(*_SCRIPTS, *_DONE), keys=_records(names)),
        Grant(commands=(*_SCRIPTS, "get", "set", "del"), keys=(place,)),
    ]


def _records(names: Names) -> tuple[str, ...]:
    """Keys of the done-store."""
    return tuple(
        f"{names.prefix}:{key}" for key in ("task:*", "token", "last:*", "changes", "mark")
    )


def _follow(scope: Scope) -> list[Grant]:
    """Find the phase at a place on Redis, and say there how one is."""
    place = f"{scope.names.prefix}:phase/*"
    return [
        Grant(commands=("get",), keys=(place,), access="%R~"),
        Grant(commands=("set", "del"), keys=(f"{place}/said/*",), access="%W~"),
    ]


def _rules(grants: Sequence[Grant], secrets: Iterable[str]) -> str:
    first, *others = grants
    selectors = (f"({grant.text})" for grant in others)
    return " ".join(
        ["reset", "on", *secrets, "resetkeys", "resetchannels", "-@all", first.text, *selectors]
    )


def setuser_command(role: Role, scope: Scope, secret: str) -> str:
    """``ACL SETUSER`` with the rules of a role, for a server that runs.

    Args:
        role: which is also the user's name.
        scope: what the rules are for.
        secret: ``#`` and the SHA-256 of the password in hexadecimal digits.
    """
    return f"ACL SETUSER {role} {_rules(grants_of(role, scope), [secret])}"


def acl_line(role: Role, scope: Scope, secret: str) -> str:
    """Likewise as a line of an ``aclfile``."""
    rules = _rules(grants_of(role, scope), [secret]).removeprefix("reset ")
    return f"user {role} {rules}"
