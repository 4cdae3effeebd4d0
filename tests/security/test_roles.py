"""Each role on brokers that know nobody else: it can do its work, and nothing else."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

import hookbench
from hookbench.acl.redis_rules import grants_of
from hookbench.acl.roles import Role, Scope
from hookbench.brokers.probe import probe_redis
from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution
from hookbench.errors import BrokerUnreachableError
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.measures import HARDENED, NO_MEASURES
from hookbench.migration.phases import Phase
from hookbench.queues.access import nats_access
from hookbench.queues.reconnecting import connect_client
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.transport import AppTransport
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.security.actions import ACTIONS, documented, refused_subject

TASKS = 20
COMMAND = [sys.executable, "-m", "hookbench"]


def test_the_table_of_the_document_is_what_is_tried():
    assert documented() == {action.what: action.allowed for action in ACTIONS}


@pytest.mark.parametrize("role", list(Role))
def test_redis_lets_each_role_do_its_work_and_nothing_else(scope_of, role):
    guarded = scope_of()
    wrong = []
    for action in ACTIONS:
        for words in action.redis:
            answer = guarded.admin.execute_command("ACL", "DRYRUN", role, *words)
            if (answer == "OK") != (role in action.allowed):
                wrong.append(f"{' '.join(words)}: {answer}")
    assert wrong == []


@pytest.mark.parametrize("role", list(Role))
async def test_nats_lets_each_role_do_its_work_and_nothing_else(guarded, role):
    refused = set()

    async def hear(error):
        refused.add(refused_subject(error))

    servers, access = nats_access(guarded.nats_url(role))
    client = await connect_client(servers, error_cb=hear, allow_reconnect=False, **access)
    try:
        expected = set()
        for action in ACTIONS:
            for subject in action.publish:
                await client.publish(subject, b"no request")  # which JetStream carries out
            for subject in action.subscribe:
                await client.subscribe(subject)
            if role not in action.allowed:
                expected |= {item.lower() for item in (*action.publish, *action.subscribe)}
        await client.flush()
        await eventually(lambda: expected <= refused, what="the refusals")
        assert refused == expected
    finally:
        await client.close()


async def test_an_inbox_is_heard_by_its_own_role_alone(guarded):
    refused = set()

    async def hear(error):
        refused.add(refused_subject(error))

    servers, access = nats_access(guarded.nats_url(Role.WORKER))
    client = await connect_client(servers, error_cb=hear, **access)
    try:
        await client.subscribe("_INBOX_worker.mine")
        await client.subscribe("_INBOX_gate.>")
        await client.flush()
        await eventually(lambda: refused, what="the refusal")
        assert refused == {"_inbox_gate.>"}
    finally:
        await client.close()


def test_a_script_can_do_nothing_that_its_user_may_not(scope_of):
    guarded = scope_of()
    guarded.admin.lpush("{hook}:sync", "task")
    client = redis.Redis(
        port=guarded.redis.port,
        username=str(Role.PRODUCER),
        password=guarded.file("redis", Role.PRODUCER).read_text().strip(),
    )
    try:
        for body in ("'LRANGE', KEYS[1], 0, -1", "'LREM', KEYS[1], 0, 'task'", "'DEL', KEYS[1]"):
            with pytest.raises(ResponseError, match=r"(?i)no permissions"):
                client.eval(f"return redis.call({body})", 1, "{hook}:sync")
        with pytest.raises(NoPermissionError):
            client.eval("return redis.call('GET', KEYS[1])", 1, "other")
        with pytest.raises(NoPermissionError):
            client.flushall()
    finally:
        client.close()
    assert guarded.admin.lrange("{hook}:sync", 0, -1) == ["task"]


async def handle(_task, _execution: Execution):
    """Nothing."""


async def clear(guarded):
    async with await AppTransport.connect(guarded.admin_nats_url) as admin:
        for name in await names_of(admin):
            await admin.jetstream.delete_stream(name)


async def names_of(admin):
    return [info.config.name for info in await admin.jetstream.streams_info()]


@pytest.mark.parametrize(
    ("phase", "measures", "kind"),
    [
        (Phase.REDIS_ONLY, NO_MEASURES, RedisKind.LIST),
        (Phase.REDIS_ONLY, HARDENED, RedisKind.LIST),
        (Phase.REDIS_ONLY, NO_MEASURES, RedisKind.STREAM),
        (Phase.DUAL_WRITE, HARDENED, RedisKind.LIST),
        (Phase.DUAL_READ, NO_MEASURES, RedisKind.LIST),
        (Phase.DUAL_READ, HARDENED, RedisKind.LIST),
        (Phase.NATS_ONLY, NO_MEASURES, RedisKind.LIST),
        (Phase.NATS_ONLY, HARDENED, RedisKind.LIST),
    ],
)
async def test_producer_and_worker_need_no_more_than_their_roles(
    scope_of, phase, measures, kind, tmp_path
):
    guarded = scope_of(kind)
    await clear(guarded)
    common = {
        "phase": phase,
        "measures": measures,
        "redis_kind": kind,
        "nats_monitor_url": guarded.nats.monitor_url,
    }
    said = []
    worker = WorkerService(
        WorkerSettings(
            redis_url=guarded.redis_url(Role.WORKER),
            nats_url=guarded.nats_url(Role.WORKER),
            block_timeout_secs=0.3,
            **common,
        ),
        handle,
        clock=SystemClock(),
        announce=said.append,
    )
    producer = LoadGenerator(
        GeneratorSettings(
            redis_url=guarded.redis_url(Role.PRODUCER),
            nats_url=guarded.nats_url(Role.PRODUCER),
            count=TASKS,
            rate_per_s=200.0,
            spool=tmp_path / "outbox.sqlite" if measures.outbox else None,
            **common,
        ),
        clock=SystemClock(),
    )
    await work_until(worker, said, TASKS, beside=producer.run())
    assert guarded.refusals() == []


async def work_until(worker, said, tasks, *, beside=None):
    """Run a worker service until it says that so many are done, and something beside it first."""
    working = asyncio.ensure_future(worker.run())
    try:
        if beside is not None:
            await beside

        def done():
            assert not working.done(), working.exception()
            return max((event.get("done", 0) for event in said), default=0) >= tasks

        await eventually(done, what=f"{tasks} tasks", timeout_s=20)
    finally:
        worker.request_stop()
        await asyncio.wait({working})
    working.result()


def run(guarded, role, *arguments, cwd):
    return subprocess.run(
        [*COMMAND, *arguments],
        env=guarded.environment(role),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def test_gate_and_watch_look_and_write_nothing(scope_of, tmp_path):
    guarded = scope_of()
    await clear(guarded)
    guarded.admin.lpush("{hook}:sync", "no task")
    looked = run(guarded, Role.GATE, "watch", "--count", "1", "--json", cwd=tmp_path)
    assert json.loads(looked.stdout)["redis"]["pending"] == 1, looked.stderr
    asked = run(guarded, Role.GATE, "gate", "dual_write", "dual_read", "--json", cwd=tmp_path)
    assert asked.returncode in (1, 3), asked.stderr
    assert guarded.refusals() == []
    with_worker = run(guarded, Role.GATE, "worker", "--phase", "nats_only", cwd=tmp_path)
    assert with_worker.returncode == 2
    assert guarded.refusals()
    for secret in guarded.secrets():
        assert secret not in looked.stdout + looked.stderr + asked.stdout + with_worker.stderr


def test_the_commands_of_a_role_are_those_of_the_code():
    """No grant is left over from code that is gone."""

    folder = Path(hookbench.__file__).parent
    text = "\n".join(
        path.read_text().lower()
        for path in folder.rglob("*.py")
        if not {"acl", "sim", "hazards"} & set(path.relative_to(folder).parts)
    )
    # redis-py sends these by itself.
    by_redis_py = {
        "ping", "select", "client|setinfo", "client|setname", "command", "cluster|slots", "asking",
        "multi", "exec", "discard", "blmove",
    }  # fmt: skip
    granted = {
        command
        for kind in RedisKind
        for role in Role
        for grant in grants_of(role, Scope(redis_kind=kind, replicated=True))
        for command in grant.commands
    }
    assert len(granted) > 40
    for command in granted - by_redis_py:
        word = command.replace("|", "_")
        first, _, second = command.partition("|")
        known = (
            (f"'{first}'" in text and (not second or f"'{second}'" in text))
            or f".{word}(" in text
            or f'"{first}"' in text
        )
        assert known, command


async def test_a_wrong_password_is_told_from_a_server_that_is_away(guarded):
    for user in ("worker:wrong@", ""):
        url = f"redis://{user}127.0.0.1:{guarded.redis.port}/0"
        with pytest.raises(BrokerUnreachableError, match="refuses the credentials") as raised:
            await probe_redis(url)
        assert "wrong@" not in str(raised.value)
    with pytest.raises(BrokerUnreachableError, match="refuses the credentials") as raised:
        await AppTransport.connect(f"nats://worker:wrong@127.0.0.1:{guarded.nats.port}")
    assert "wrong" not in str(raised.value)
    guarded.refusals()
