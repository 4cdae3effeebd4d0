"""taskiq with taskiq-redis: a list or a stream, by the variant."""

from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    at_once,
    do_task,
    main,
)
from tests.bench.peers.contenders.taskiq_cli import CLI_PAGE, PREFETCH, worker_command

BROKER_PAGE = "https://github.com/taskiq-python/taskiq-redis"
STREAM = GIVEN.variant == "stream"

if STREAM:
    plain = RedisStreamBroker(
        GIVEN.url,
        queue_name="peers",
        consumer_id="0",  # of the group: what was put before its first worker started counts too
        idle_timeout=REDELIVERY_S * 1000,
        unacknowledged_lock_timeout=REDELIVERY_S,
    )
else:
    plain = ListQueueBroker(GIVEN.url, queue_name="peers")
broker = plain.with_serializer(ORJSONSerializer())

peer_task = broker.task(task_name="peer_task")(do_task)

WORKER = worker_command(__spec__.name)

_STREAM_SETTINGS = [
    Setting(
        f"idle_timeout={REDELIVERY_S * 1000} unacknowledged_lock_timeout={REDELIVERY_S}",
        "redelivery, 10 minutes by default; and the lock of a dead worker ends",
        BROKER_PAGE,
    ),
    Setting("xread_count=100 (its default)", "tasks of one read", BROKER_PAGE),
]

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        *(_STREAM_SETTINGS if STREAM else []),
        Setting(
            "ORJSONSerializer, hiredis installed",
            "the fastest of its JSON serializers, and the faster parser of redis-py",
            "https://taskiq-python.github.io/guide/message-format.html",
        ),
        Setting(
            f"--workers=1 --max-async-tasks={GIVEN.concurrency} --max-prefetch={PREFETCH}",
            "one process, as many tasks at once as all others, and as many waiting in it",
            CLI_PAGE,
        ),
        Setting(
            "--no-parse --log-level=WARNING, uvloop installed",
            "no parsing of parameters, no line per task; uvloop is used when it is there",
            CLI_PAGE,
        ),
    ],
    promise="none lost" if STREAM else "some lost",
    promised=(
        "acknowledged when_saved, after the handler, and claimed by another after idle_timeout"
        if STREAM
        else "no acknowledgement: BRPOP takes a task out before it is worked on"
    ),
    promise_page=BROKER_PAGE,
    redelivery_s=REDELIVERY_S if STREAM else 0,
)


async def enqueue(first, count):
    await broker.startup()
    await at_once(peer_task.kiq, first, count)
    await broker.shutdown()


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
