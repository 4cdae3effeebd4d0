"""The project's own worker: ``hookbench worker`` of a design, on a queue, with its ledger on.

It is the command as it ships, filled by ``hookbench produce`` of the same design. Its handlers are
replaced by ones that do the same and write the effect as those of all contenders do.
"""

import os
import sys
from pathlib import Path

from hookbench.cli.main import main as hookbench
from hookbench.worker.handlers import noop, sleep
from tests.bench.peers.contenders.child import (
    GIVEN,
    PAYLOAD_BYTES,
    REDELIVERY_S,
    Description,
    Setting,
    main,
    record_effect,
)

DESIGN, _, QUEUE = (GIVEN.variant or "guide redis_list").partition(" ")
ON_NATS = QUEUE == "jetstream"
HARDENED = DESIGN == "hardened"
FOLDER = Path(GIVEN.folder)
_KEY_BITS = (1 << 63) - 1

PLACE = ["--phase", "nats_only" if ON_NATS else "redis_only"]
PLACE += ["--nats-url" if ON_NATS else "--redis-url", GIVEN.url]
PLACE += ["--redis-queue", "stream" if QUEUE == "redis_stream" else "list"]
PLACE += ["--measures", "all" if HARDENED else "none"]
if HARDENED and ON_NATS:
    PLACE += ["--nats-sync-interval", "1"]


def _record(task):
    """Its ids are random in their last 62 bits, which tell its tasks apart."""
    record_effect(task.id.int & _KEY_BITS)


class RecordingNoop(noop.NoopHandler):
    async def __call__(self, task, execution):
        await super().__call__(task, execution)
        _record(task)


class RecordingSleep(sleep.SleepHandler):
    async def __call__(self, task, execution):
        await super().__call__(task, execution)
        _record(task)


def work():
    noop.NoopHandler = RecordingNoop
    sleep.SleepHandler = RecordingSleep
    ledger = FOLDER / f"ledger-{os.getpid()}"
    ledger.mkdir()
    handler = ["--handler", "noop"]
    if GIVEN.sleep_s:
        handler = ["--handler", "sleep", "--sleep-ms", str(GIVEN.sleep_s * 1000)]
    ack = [] if HARDENED else ["--ack", "after_processing"]
    sys.argv = ["hookbench", "worker", *PLACE, *handler, *ack, "--ledger", str(ledger)]
    sys.argv += ["--concurrency", str(GIVEN.concurrency), "--ack-wait", str(REDELIVERY_S)]
    hookbench()


def enqueue(first, count):
    spool = ["--spool", str(FOLDER / "spool")] if HARDENED else []
    sys.argv = ["hookbench", "produce", *PLACE, *spool, "--count", str(count)]
    # A repository for each task: a newer task of the same one would supersede it after a crash.
    sys.argv += ["--loop", "windowed", "--payload", str(PAYLOAD_BYTES)]
    sys.argv += ["--repositories", str(count), "--seed", str(first)]
    hookbench()


HELP_PAGE = "hookbench worker --help"
PROMISE, PROMISED = "none lost", "acknowledged after processing, delivered again after its AckWait"
if HARDENED:
    PROMISED = "acknowledged after the record of its end, and handed out again after its lease"
elif QUEUE == "redis_list":
    PROMISE, PROMISED = "some lost", "what was claimed stays in the work list, which nobody reaps"

DESCRIPTION = Description(
    concurrency=f"{GIVEN.concurrency} coroutines",
    settings=[
        Setting(
            f"--measures {'all' if HARDENED else 'none --ack after_processing'}",
            f"the design {DESIGN}",
            "docs/design.md",
        ),
        Setting("--ledger", "every event of every task is recorded", "docs/design.md"),
        Setting(
            f"--concurrency {GIVEN.concurrency}",
            "16 by default",
            HELP_PAGE,
        ),
        Setting(f"--ack-wait {REDELIVERY_S}", "redelivery, 30 s by default", HELP_PAGE),
    ],
    promise=PROMISE,
    promised=PROMISED,
    promise_page="docs/hazards.md",
    redelivery_s=REDELIVERY_S + 5,
)

if __name__ == "__main__":
    main(DESCRIPTION, enqueue, work)
