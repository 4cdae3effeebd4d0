"""RQ on Redis."""

from redis import Redis
from rq import Queue, Retry

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    batches,
    do_task_blocking,
    main,
    payload_of,
)

PAGES = "https://python-rq.org/docs"
JOB_TIMEOUT_S = 5
HEARTBEAT_S = JOB_TIMEOUT_S + 60
"""So long RQ itself waits for a sign of life of a job."""
RETRIES = 3
BATCH = 500


def peer_task(payload):
    do_task_blocking(payload)


WORKER = [
    "rq",
    "worker",
    "peers",
    f"--url={GIVEN.url}",
    "--worker-class=rq.SimpleWorker",
    "--quiet",
    "--disable-job-desc-logging",
    f"--maintenance-interval={REDELIVERY_S}",
]

DESCRIPTION = Description(
    concurrency="one task at a time, without a fork",
    settings=[
        Setting(
            "--worker-class=rq.SimpleWorker",
            "no fork per job, for jobs of milliseconds; another concurrency there is not",
            "https://github.com/rq/rq/blob/master/docs/benchmark.md",
        ),
        Setting("--quiet --disable-job-desc-logging", "no lines per job", f"{PAGES}/workers/"),
        Setting("result_ttl=0", "no result is stored", f"{PAGES}/results/"),
        Setting(
            f"timeout={JOB_TIMEOUT_S} retry=Retry(max={RETRIES})"
            f" --maintenance-interval={REDELIVERY_S}",
            "redelivery 60 s after the timeout (180 s by default), where there are tries left",
            f"{PAGES}/exceptions/",
        ),
        Setting(
            "hiredis installed",
            "the faster parser of redis-py",
            "https://github.com/redis/redis-py#installation",
        ),
    ],
    promise="none lost",
    promised="abandoned jobs are found by maintenance, and tried again",
    promise_page=f"{PAGES}/exceptions/",
    redelivery_s=HEARTBEAT_S + 2 * REDELIVERY_S,
)


async def enqueue(first, count):
    queue = Queue("peers", connection=Redis.from_url(GIVEN.url))
    for indices in batches(first, count, BATCH):
        queue.enqueue_many(
            [
                Queue.prepare_data(
                    f"{__spec__.name}.peer_task",
                    (payload_of(index),),
                    timeout=JOB_TIMEOUT_S,
                    result_ttl=0,
                    retry=Retry(max=RETRIES),
                )
                for index in indices
            ]
        )


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
