"""``hookbench acl``: least rights for each kind of process, as the brokers' own rules."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    ConsumerGroup,
    JsonOutput,
    Prefix,
    RedisQueueOption,
    Stream,
    SubjectRoot,
)

__all__ = ["app"]

app = typer.Typer(
    help="Access rules of the roles producer, worker, gate, operator and harness.",
    no_args_is_help=True,
)

RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--role", help="producer, worker, gate, operator or harness [all]; may be repeated."
    ),
]
TypesOption = Annotated[
    str, typer.Option("--task-type", help="Types of the tasks, separated by commas.")
]
PasswordsOption = Annotated[
    Path | None,
    typer.Option(
        "--passwords",
        help="Folder of hookbench acl passwords; only hashes are printed. Without it the rules have"
        " a placeholder that the broker refuses.",
    ),
]


@app.command()
def passwords(
    folder: Annotated[Path, typer.Argument(help="A folder; a file is made for each role in it.")],
    role: RoleOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace passwords that are there.")
    ] = False,
) -> None:
    """Make passwords, one in a file each, which only their owner may read.

    Example: hookbench acl passwords secrets
    """
    from hookbench.acl.passwords import make_passwords

    for path in make_passwords(folder, _roles(role), force=force):
        print(path)


@app.command()
def redis(
    role: RoleOption = None,
    prefix: Prefix = "{hook}",
    task_type: TypesOption = "sync,fsck,gc",
    redis_queue: RedisQueueOption = "list",
    replicated: Annotated[
        bool,
        typer.Option("--replicated", help="For a URL of a master and replicas, redis+replica://."),
    ] = False,
    passwords: PasswordsOption = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="ACL SETUSER commands instead of an aclfile.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Print the ACL of Redis, from 7.0 on.

    Example: hookbench acl redis --passwords secrets > users.acl
    """
    from hookbench.acl.passwords import password_file, sha256_of
    from hookbench.acl.redis_rules import acl_line, grants_of, setuser_command
    from hookbench.acl.roles import Scope
    from hookbench.queues.redis_kind import parse_redis_kind
    from hookbench.task import Names

    scope = Scope(
        names=Names(prefix=prefix),
        task_types=_types(task_type),
        redis_kind=parse_redis_kind(redis_queue),
        replicated=replicated,
    )
    rows = []
    for item in _roles(role):
        file = None if passwords is None else password_file(passwords, "redis", item)
        secret = "#SHA256-OF-THE-PASSWORD" if file is None else sha256_of(file)
        write = setuser_command if commands else acl_line
        grants = [grant.text for grant in grants_of(item, scope)]
        url = f"rediss://{item}@HOST:6379/0?password_file={file or 'FILE'}"
        rows.append(
            {"role": item, "rules": write(item, scope, secret), "grants": grants, "url": url}
        )
    _print(rows, json=json, text="\n".join(str(row["rules"]) for row in rows) + "\n")


@app.command()
def nats(
    role: RoleOption = None,
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    task_type: TypesOption = "sync,fsck,gc",
    passwords: PasswordsOption = None,
    json: JsonOutput = False,
) -> None:
    """Print the authorization block of a nats-server, for its configuration to include.

    Example: hookbench acl nats --passwords secrets > authorization.conf
    """
    from hookbench.acl.nats_rules import authorization, permissions_of
    from hookbench.acl.passwords import bcrypt_of, password_file
    from hookbench.acl.roles import Scope, inbox_prefix
    from hookbench.task import Names

    names = Names(subject_root=subject_root, stream=stream, consumer=consumer)
    scope = Scope(names=names, task_types=_types(task_type))
    chosen = _roles(role)
    files = {item: passwords and password_file(passwords, "nats", item) for item in chosen}
    hashes = [(item, None if file is None else bcrypt_of(file)) for item, file in files.items()]
    rows = []
    for item, hashed in hashes:
        allowed = permissions_of(item, scope)
        rows.append(
            {
                "role": item,
                "publish": allowed.publish,
                "subscribe": allowed.subscribe,
                "password": hashed,
                "url": f"tls://{item}@HOST:4222?password_file={files[item] or 'FILE'}"
                f"&inbox_prefix={inbox_prefix(item)}",
            }
        )
    _print(rows, json=json, text=authorization(scope, hashes))


def _roles(texts: list[str] | None) -> list[Any]:
    from hookbench.acl.roles import Role
    from hookbench.cli.worker import choice

    return list(Role) if not texts else [choice(Role, text, "--role") for text in texts]


def _types(text: str) -> tuple[str, ...]:
    from hookbench.task import check_task_type

    return tuple(check_task_type(item.strip()) for item in text.split(","))


def _print(rows: list[dict[str, Any]], *, json: bool, text: str) -> None:
    import sys

    import msgspec

    if json:
        text = msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n"
    sys.stdout.write(text)
