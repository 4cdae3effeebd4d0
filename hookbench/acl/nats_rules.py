"""The permissions of NATS: to which subjects a role publishes, and where it listens.

All that is done with JetStream is a publish to a subject of its API, with an inbox for the answer
(https://docs.nats.io/reference/reference-protocols/nats_api_reference), so that a role is a list of
subjects. Only what is listed is allowed; nobody listens to anything but its own inboxes.
"""

import json
from collections.abc import Iterable

import msgspec

from hookbench.acl.roles import Role, Scope, inbox_prefix

__all__ = ["Permissions", "authorization", "permissions_of"]

_API = "$JS.API"


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects, with the wildcards of NATS."""

    publish: list[str]
    subscribe: list[str]


def permissions_of(role: Role, scope: Scope) -> Permissions:
    """What a role may do on NATS."""
    find = {
        Role.PRODUCER: _producer,
        Role.WORKER: _worker,
        Role.GATE: _gate,
        Role.OPERATOR: _operator,
        Role.HARNESS: _harness,
    }[role]
    publish = sorted({f"{_API}.INFO", *find(scope)})
    return Permissions(publish=publish, subscribe=[f"{inbox_prefix(role)}.>"])


def _stream(name: str, *requests: str) -> list[str]:
    return [f"{_API}.STREAM.{request}.{name}" for request in requests]


def _made(name: str) -> list[str]:
    """Look whether a stream is there, and make it: one that is there is not changed by that."""
    return _stream(name, "INFO", "CREATE")


def _read(name: str) -> list[str]:
    """Read a stream message by message, by its leader or by a replica."""
    return [
        *_stream(name, "INFO", "MSG.GET"),
        f"{_API}.DIRECT.GET.{name}",
        f"{_API}.DIRECT.GET.{name}.>",
    ]


def _pulled(name: str) -> list[str]:
    """Make consumers of a stream, pull by them, and remove them; with it the stream can be read."""
    return [
        f"{_API}.CONSUMER.CREATE.{name}",
        f"{_API}.CONSUMER.CREATE.{name}.>",
        f"{_API}.CONSUMER.DURABLE.CREATE.{name}.*",
        f"{_API}.CONSUMER.INFO.{name}.*",
        f"{_API}.CONSUMER.LIST.{name}",
        f"{_API}.CONSUMER.MSG.NEXT.{name}.*",
        f"{_API}.CONSUMER.DELETE.{name}.*",
    ]


def _answers(name: str) -> list[str]:
    """Acknowledgements, in the form without and with a domain (NATS ADR-15)."""
    return [f"$JS.ACK.{name}.>", f"$JS.ACK.*.*.{name}.>"]


def _bucket(name: str) -> str:
    return f"KV_{name}"


def _follow(scope: Scope) -> list[str]:
    """Find the phase at a place on NATS, and say there how one is."""
    phases, said = _boards(scope)
    return [*_read(_bucket(phases)), *_made(_bucket(said)), f"$KV.{said}.>"]


def _boards(scope: Scope) -> tuple[str, str]:
    """The buckets of ``NatsBoard`` that a fleet uses."""
    return f"{scope.names.stream}_phases", f"{scope.names.stream}_fleet"


def _tasks(scope: Scope) -> list[str]:
    return [scope.names.subject(item) for item in scope.task_types]


def _producer(scope: Scope) -> Iterable[str]:
    return [*_made(scope.names.stream), *_tasks(scope), *_follow(scope)]


def _worker(scope: Scope) -> Iterable[str]:
    """``MSG.DELETE`` is of the rescue of tasks that age: one by one, after their letter is kept."""
    names = scope.names
    done = _bucket(names.done_bucket)
    own = (names.stream, names.dead_stream, names.epochs_stream, names.advisories_stream, done)
    found = [*_follow(scope), *_tasks(scope), *_answers(names.stream)]
    for stream in own:
        found += [*_made(stream), *_read(stream), *_pulled(stream)]
    return [
        *found,
        *_made(names.workers_stream),
        *_stream(names.stream, "MSG.DELETE"),
        names.dead_subject("*"),
        names.epoch_subject("*"),
        names.worker_subject("*") + ".>",
        f"$KV.{names.done_bucket}.>",
    ]


def _gate(scope: Scope) -> Iterable[str]:
    names = scope.names
    buckets = (names.done_bucket, *_boards(scope))
    found: list[str] = []
    for stream in (*names.streams, *map(_bucket, buckets)):
        found += _read(stream)
        found.append(f"{_API}.CONSUMER.INFO.{stream}.*")
        found += [f"{_API}.CONSUMER.{request}.{stream}" for request in ("LIST", "NAMES")]
    return found


def _operator(scope: Scope) -> Iterable[str]:
    """What the gate may, and the moves: it purges, changes and removes no stream.

    ``MSG.DELETE`` is of the dead letters that were put back.
    """
    names = scope.names
    phases, said = _boards(scope)
    holds = f"{names.stream}_operators"
    found = [*_gate(scope), *_tasks(scope), *_answers(names.stream)]
    for stream in (*names.streams, *map(_bucket, (names.done_bucket, phases, said, holds))):
        found += [*_made(stream), *_read(stream)]
    for stream in (names.stream, names.dead_stream, _bucket(names.done_bucket), _bucket(said)):
        found += _pulled(stream)
    return [
        *found,
        *_stream(names.dead_stream, "MSG.DELETE"),
        names.dead_subject("*"),
        f"$KV.{names.done_bucket}.>",
        f"$KV.{phases}.>",
        f"$KV.{holds}.>",
    ]


def _harness(_scope: Scope) -> Iterable[str]:
    """Any stream of the account: a rehearsal's names end with its number, in the middle of a token.

    Give it an account of its own.
    """
    return [
        f"{_API}.STREAM.*.*",
        f"{_API}.STREAM.MSG.*.*",
        f"{_API}.DIRECT.GET.>",
        f"{_API}.CONSUMER.>",
        "$JS.ACK.>",
        "$KV.*.>",
        "queue.>",
        "dead.>",
        "epoch.>",
        "worker.>",
    ]


def authorization(scope: Scope, passwords: Iterable[tuple[Role, str | None]]) -> str:
    """The ``authorization`` block of a nats-server.

    Args:
        scope: what the rules are for.
        passwords: of each role the bcrypt hash of its password; ``None`` for a variable that the
            server does not start without.
    """
    users: list[str] = []
    for role, hashed in passwords:
        allowed = permissions_of(role, scope)
        secret = f"$HOOKBENCH_{role.upper()}_BCRYPT" if hashed is None else json.dumps(hashed)
        users += [
            "    {",
            f"      user: {json.dumps(str(role))}",
            f"      password: {secret}",
            "      permissions {",
            f"        publish {{ allow: {_list(allowed.publish)} }}",
            f"        subscribe {{ allow: {_list(allowed.subscribe)} }}",
            "      }",
            "    }",
        ]
    return "\n".join(["authorization {", "  users = [", *users, "  ]", "}", ""])


def _list(subjects: Iterable[str]) -> str:
    lines = ",\n".join(f"          {json.dumps(item)}" for item in subjects)
    return f"[\n{lines}\n        ]"
