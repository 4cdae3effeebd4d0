"""FastStream: a pull subscriber on JetStream."""

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    at_once,
    do_task,
    main,
)

PAGES = "https://faststream.ag2.ai/latest"

broker = NatsBroker(GIVEN.url, apply_types=False)
app = FastStream(broker)
stream = JStream(name="peers", subjects=["peers"])


@broker.subscriber(
    "peers",
    stream=stream,
    durable="peers",
    config=ConsumerConfig(ack_wait=REDELIVERY_S),
    pull_sub=PullSub(batch_size=GIVEN.concurrency),
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def handle(payload: str):
    await do_task(payload)


WORKER = ["faststream", "run", f"{__spec__.name}:app", "--workers=1", "--log-level=warning"]

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        Setting(
            f"PullSub(batch_size={GIVEN.concurrency})",
            "one request for many tasks, all of them in work at once; max_workers was slower",
            f"{PAGES}/nats/jetstream/pull/",
        ),
        Setting(
            f"ConsumerConfig(ack_wait={REDELIVERY_S})",
            "redelivery, 30 s by default",
            "https://docs.nats.io/nats-concepts/jetstream/consumers",
        ),
        Setting(
            "AckPolicy.NACK_ON_ERROR",
            "acknowledged after the handler, given back on an error",
            f"{PAGES}/nats/jetstream/ack/",
        ),
        Setting(
            "apply_types=False",
            "no validation of what the handler is called with",
            f"{PAGES}/getting-started/subscription/",
        ),
        Setting(
            "--workers=1 --log-level=warning, uvloop installed",
            "one process, no line per task; uvloop is used when it is there",
            f"{PAGES}/getting-started/cli/",
        ),
    ],
    promise="none lost",
    promised="acknowledged after the handler, delivered again after its AckWait",
    promise_page=f"{PAGES}/nats/jetstream/ack/",
    redelivery_s=REDELIVERY_S,
)


async def enqueue(first, count):
    producer = NatsBroker(GIVEN.url)
    publisher = producer.publisher("peers", stream=stream)
    async with producer:
        await producer.start()
        await at_once(publisher.publish, first, count)


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
