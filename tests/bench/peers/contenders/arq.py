"""arq on Redis."""

import asyncio
from typing import ClassVar

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.logs import default_log_config
from arq.worker import func

from tests.bench.peers.contenders.child import GIVEN, Description, Setting, at_once, do_task, main

PAGE = "https://arq-docs.helpmanual.io/"
JOB_TIMEOUT_S = 5
IN_PROGRESS_S = JOB_TIMEOUT_S + 10
"""So long arq itself keeps the key that says that a job is worked on."""
POLL_S = 0.001

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


async def peer_task(_context, payload):
    await do_task(payload)


class WorkerSettings:
    functions: ClassVar = [func(peer_task, name="peer_task", keep_result=0)]
    redis_settings = RedisSettings.from_dsn(GIVEN.url)
    max_jobs = GIVEN.concurrency
    job_timeout = JOB_TIMEOUT_S
    poll_delay = POLL_S
    log_results = False


QUIET = default_log_config(verbose=False)
QUIET["loggers"]["arq"]["level"] = "WARNING"

WORKER = ["arq", f"{__spec__.name}.WorkerSettings", f"--custom-log-dict={__spec__.name}.QUIET"]

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        Setting(f"max_jobs={GIVEN.concurrency}", "10 by default", f"{PAGE}#arq.worker.Worker"),
        Setting(
            f"poll_delay={POLL_S}",
            "0.5 s by default, and at most max_jobs of each poll: 200 a second",
            f"{PAGE}#arq.worker.Worker",
        ),
        Setting(
            "queue_read_limit=500 (its default)",
            "five times max_jobs; less and more were no faster",
            f"{PAGE}#arq.worker.Worker",
        ),
        Setting("keep_result=0 log_results=False", "no result is stored", f"{PAGE}#job-results"),
        Setting(
            f"job_timeout={JOB_TIMEOUT_S}",
            "redelivery, 10 s after it; 300 s by default",
            f"{PAGE}#arq.worker.Worker",
        ),
        Setting(
            "--custom-log-dict, level WARNING; uvloop as the policy; hiredis installed",
            "no two lines per job",
            f"{PAGE}#usage",
        ),
    ],
    promise="none lost",
    promised="a job leaves the queue when it is done: what was in work is run again",
    promise_page=f"{PAGE}#retrying-jobs-and-cancellation",
    redelivery_s=IN_PROGRESS_S,
)


async def enqueue(first, count):
    pool = await create_pool(RedisSettings.from_dsn(GIVEN.url))

    async def send(payload):
        await pool.enqueue_job("peer_task", payload)

    await at_once(send, first, count)
    await pool.aclose()


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
