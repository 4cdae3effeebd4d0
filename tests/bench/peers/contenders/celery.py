"""Celery on Redis."""

from celery import Celery

from tests.bench.peers.contenders.child import (
    GIVEN,
    REDELIVERY_S,
    Description,
    Setting,
    do_task_blocking,
    main,
    payload_of,
)

PAGES = "https://docs.celeryq.dev/en/stable"
REDIS_PAGE = f"{PAGES}/getting-started/backends-and-brokers/redis.html"
PREFETCH_MULTIPLIER = 4
RESTORE_S = 1

app = Celery("peers", broker=GIVEN.url)
app.conf.update(
    task_default_queue="peers",
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=PREFETCH_MULTIPLIER,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    broker_transport_options={
        "visibility_timeout": REDELIVERY_S,
        "unacked_restore_interval": RESTORE_S,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": GIVEN.concurrency,
    },
)
peer_task = app.task(name="peer_task")(do_task_blocking)

WORKER = [
    "celery",
    f"--app={__spec__.name}:app",
    "worker",
    "--pool=threads",
    f"--concurrency={GIVEN.concurrency}",
    "--loglevel=WARNING",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
]

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} threads",
    settings=[
        Setting(
            f"--pool=threads --concurrency={GIVEN.concurrency}",
            "one process; solo, prefork with one child and gevent were no faster",
            f"{PAGES}/userguide/concurrency/index.html",
        ),
        Setting(
            f"worker_prefetch_multiplier={PREFETCH_MULTIPLIER} (its default)",
            "tasks fetched ahead, times the threads",
            f"{PAGES}/userguide/optimizing.html#prefetch-limits",
        ),
        Setting(
            "task_acks_late task_reject_on_worker_lost",
            "acknowledged after the task: a task in work is not lost",
            f"{PAGES}/userguide/configuration.html#task-acks-late",
        ),
        Setting(
            f"visibility_timeout={REDELIVERY_S}, unacked_restore_interval={RESTORE_S},"
            " unacked_restore_throttle=1",
            "redelivery, an hour by default",
            f"{REDIS_PAGE}#visibility-timeout",
        ),
        Setting(
            "task_ignore_result worker_disable_rate_limits",
            "no result is stored, no limits are kept",
            f"{PAGES}/userguide/tasks.html#ignore-results-you-don-t-want",
        ),
        Setting(
            "--without-gossip --without-mingle --without-heartbeat"
            " worker_enable_remote_control=False --loglevel=WARNING, hiredis installed",
            "nothing beside the tasks",
            f"{PAGES}/reference/cli.html#celery-worker",
        ),
    ],
    promise="none lost",
    promised="acknowledged late, and put back after the visibility timeout",
    promise_page=f"{REDIS_PAGE}#visibility-timeout",
    redelivery_s=REDELIVERY_S + 5,
)


async def enqueue(first, count):
    with app.producer_pool.acquire() as producer:
        for index in range(first, first + count):
            peer_task.apply_async((payload_of(index),), producer=producer)


if __name__ == "__main__":
    main(DESCRIPTION, enqueue, WORKER)
