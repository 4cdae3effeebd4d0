"""What the roles may do, action by action: the table of docs/security.md, and what is tried.

Each action is a Redis command, or a subject of NATS that is published or listened to.
"""

import re
from pathlib import Path
from typing import NamedTuple

from hookbench.acl.roles import Role
from hookbench.task import Names

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
P, W, G, OP, H = Role
EVERYBODY = frozenset(Role)
NOBODY = frozenset()


class Action(NamedTuple):
    """Something to try.

    Attributes:
        what: as the table has it.
        allowed: the roles that may.
        redis: commands, each as its words.
        publish: subjects of NATS.
        subscribe: likewise, to listen to.
    """

    what: str
    allowed: frozenset
    redis: tuple = ()
    publish: tuple = ()
    subscribe: tuple = ()


API = "$JS.API"

ACTIONS = (
    Action(
        "put a task",
        frozenset({P, W, OP, H}),
        redis=(("LPUSH", "{hook}:sync", "x"),),
        publish=("queue.hook.sync",),
    ),
    Action(
        "look at waiting tasks",
        frozenset({W, G, OP, H}),
        redis=(("LRANGE", "{hook}:sync", "0", "-1"), ("LLEN", "{hook}:fsck")),
        publish=(f"{API}.STREAM.MSG.GET.HOOK_QUEUE", f"{API}.DIRECT.GET.HOOK_QUEUE"),
    ),
    Action(
        "take a task from a list",
        frozenset({W, H}),
        redis=(("BLMOVE", "{hook}:sync", "{hook}:sync:work", "RIGHT", "LEFT", "1"),),
    ),
    Action(
        "take a task from a consumer",
        frozenset({W, OP, H}),
        publish=(f"{API}.CONSUMER.MSG.NEXT.HOOK_QUEUE.hook-sync-worker",),
    ),
    Action(
        "acknowledge a task, or take it out",
        frozenset({W, OP, H}),
        redis=(("LREM", "{hook}:sync:work", "1", "x"),),
        publish=("$JS.ACK.HOOK_QUEUE.hook-sync-worker.1.1.1.1.0",),
    ),
    Action(
        "make or remove a consumer",
        frozenset({W, OP, H}),
        publish=(
            f"{API}.CONSUMER.DURABLE.CREATE.HOOK_QUEUE.other",
            f"{API}.CONSUMER.DELETE.HOOK_QUEUE.other",
        ),
    ),
    Action(
        "write claims and done-records",
        frozenset({W, OP, H}),
        redis=(("SET", "{hook}:task:1", "x"), ("SET", "{hook}:token", "1")),
        publish=("$KV.HOOK_QUEUE_DONE.1",),
    ),
    Action(
        "read claims and done-records",
        frozenset({W, G, OP, H}),
        redis=(("GET", "{hook}:task:1"),),
        publish=(f"{API}.STREAM.MSG.GET.KV_HOOK_QUEUE_DONE",),
    ),
    Action(
        "keep a dead letter",
        frozenset({W, OP, H}),
        redis=(("LPUSH", "{hook}:sync:dead", "x"),),
        publish=("dead.queue.hook.sync",),
    ),
    Action(
        "read the phase",
        EVERYBODY,
        redis=(("GET", "{hook}:phase/p"),),
        publish=(f"{API}.STREAM.MSG.GET.KV_HOOK_QUEUE_phases",),
    ),
    Action(
        "say how a process is, on Redis",
        frozenset({P, W, OP, H}),
        redis=(("SET", "{hook}:phase/p/said/q", "x", "PX", "1000"),),
    ),
    Action(
        "say how a process is, on NATS",
        frozenset({P, W, H}),
        publish=("$KV.HOOK_QUEUE_fleet.p.q",),
    ),
    Action(
        "change the phase, or hold a place",
        frozenset({OP, H}),
        redis=(("SET", "{hook}:phase/p", "x"), ("SET", "{hook}:phase/p/operator", "x")),
        publish=("$KV.HOOK_QUEUE_phases.p", "$KV.HOOK_QUEUE_operators.p"),
    ),
    Action(
        "remove a claim or a record",
        frozenset({OP, H}),
        redis=(("DEL", "{hook}:task:1"),),
    ),
    Action(
        "remove a list",
        frozenset({H}),
        redis=(
            ("DEL", "{hook}:sync"), ("DEL", "{hook}:sync:work"), ("DEL", "{hook}:sync:dead"),
        ),
    ),
    Action(
        "purge, change or remove a stream",
        frozenset({H}),
        publish=tuple(
            f"{API}.STREAM.{request}.HOOK_QUEUE" for request in ("PURGE", "UPDATE", "DELETE")
        ),
    ),
    Action(
        "remove one task of a stream",
        frozenset({W, H}),
        publish=(f"{API}.STREAM.MSG.DELETE.HOOK_QUEUE",),
    ),
    Action(
        "remove a dead letter of a stream",
        frozenset({OP, H}),
        publish=(f"{API}.STREAM.MSG.DELETE.{Names().dead_stream}",),
    ),
    Action(
        "run a script",
        frozenset({P, W, OP, H}),
        redis=(("EVAL", "return 1", "1", "{hook}:sync"),),
    ),
    Action(
        "read the server's settings",
        frozenset({H}),
        redis=(("CONFIG", "GET", "appendonly"),),
    ),
    Action(
        "touch keys or streams of others",
        NOBODY,
        redis=(("GET", "other"), ("SET", "other", "x"), ("LPUSH", "{hooks}:sync", "x")),
        publish=("other.sync", "$SYS.REQ.SERVER.PING"),
    ),
    Action(
        "listen to tasks, or to answers to others",
        NOBODY,
        subscribe=("queue.hook.>", "_INBOX.>", "$JS.API.>", ">"),
    ),
    Action(
        "clear or change the server",
        NOBODY,
        redis=(
            ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "SET", "appendonly", "no"), ("SHUTDOWN",),
            ("KEYS", "*"), ("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH"), ("MONITOR",),
            ("ACL", "LIST"), ("REPLICAOF", "h", "1"), ("DEBUG", "SLEEP", "0"),
            ("CLIENT", "KILL", "x:1"),
            ("MIGRATE", "h", "1", "k", "0", "1"), ("MODULE", "LIST"), ("SWAPDB", "0", "1"),
        ),
    ),
)  # fmt: skip


def documented():
    """The rows of the table in the document: what, and the roles that may."""
    rows = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 1 + len(Role) and set(cells[1:]) <= {"yes", "no"}:
            rows[cells[0]] = frozenset(
                role for role, cell in zip(Role, cells[1:], strict=True) if cell == "yes"
            )
    return rows


def refused_subject(error):
    """The subject in nats-py's text of a violation."""
    found = re.search(r'permissions violation for \w+ to "([^"]+)"', str(error))
    return found and found[1]
