"""streaQ on Redis."""

from streaq import Worker

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    batches,
    do_task,
    main,
    payload_of,
)

PAGES = "https://streaq.readthedocs.io/en/latest"
BATCH = 500

worker = Worker(
    redis_url=GIVEN.url,
    queue_name="peers",
    concurrency=GIVEN.concurrency,
    idle_timeout=REDELIVERY_S,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(name="peer_task", ttl=0, silent=True)
async def peer_task(payload: str) -> None:
    await do_task(payload)


WORKER = ["streaq", "run", f"{__spec__.name}:worker", "--workers=1"]

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        Setting(
            f"concurrency={GIVEN.concurrency}",
            "16 by default; it fetches as many again ahead, more were no faster",
            f"{PAGES}/worker.html",
        ),
        Setting(
            f"idle_timeout={REDELIVERY_S}", "redelivery, 60 s by default", f"{PAGES}/worker.html"
        ),
        Setting("ttl=0 silent=True", "no result is stored, no line per task", f"{PAGES}/task.html"),
        Setting(
            'anyio_kwargs={"use_uvloop": True}',
            "the faster loop",
            f"{PAGES}/worker.html",
        ),
    ],
    promise="none lost",
    promised="what is idle for longer than idle_timeout is handed out again",
    promise_page=f"{PAGES}/worker.html",
    redelivery_s=REDELIVERY_S,
)


async def enqueue(first, count):
    async with worker:
        for indices in batches(first, count, BATCH):
            await worker.enqueue_many([peer_task.enqueue(payload_of(index)) for index in indices])


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
