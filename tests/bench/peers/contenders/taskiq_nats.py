"""taskiq with taskiq-nats: a pull consumer on JetStream."""

from nats.js.api import ConsumerConfig, StreamConfig
from taskiq.serializers import ORJSONSerializer
from taskiq_nats import PullBasedJetStreamBroker

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

BATCH = 100

broker = PullBasedJetStreamBroker(
    GIVEN.url,
    subject="peers",
    stream_name="peers",
    durable="peers",
    stream_config=StreamConfig(name="peers", subjects=["peers"]),
    consumer_config=ConsumerConfig(durable_name="peers", ack_wait=REDELIVERY_S),
    pull_consume_batch=BATCH,
    pull_consume_timeout=5,
).with_serializer(ORJSONSerializer())

peer_task = broker.task(task_name="peer_task")(do_task)

WORKER = worker_command(__spec__.name)

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        Setting(
            f"pull_consume_batch={BATCH}",
            "one request for many tasks, 1 by default",
            "https://github.com/taskiq-python/taskiq-nats",
        ),
        Setting(
            f"ConsumerConfig(ack_wait={REDELIVERY_S})",
            "redelivery, 30 s by default",
            "https://docs.nats.io/nats-concepts/jetstream/consumers",
        ),
        Setting(
            "ORJSONSerializer",
            "the fastest of its JSON serializers",
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
    promise="none lost",
    promised="acknowledged when_saved, after the handler, and delivered again after its AckWait",
    promise_page=CLI_PAGE,
    redelivery_s=REDELIVERY_S,
)


async def enqueue(first, count):
    await broker.startup()
    await at_once(peer_task.kiq, first, count)
    await broker.shutdown()


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
