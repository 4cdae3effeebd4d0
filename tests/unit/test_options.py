"""Defaults that stand twice: on a command line, which must not import a client for them."""

import inspect
import random

import pytest

from hookbench.cli.produce import produce
from hookbench.cli.worker import worker
from hookbench.effects.classes import Execution
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.task import new_task
from hookbench.worker.handlers.fail import FailHandler, HandlerFailedError
from tests.virtual import FixedClock


@pytest.mark.parametrize("verb", [worker, produce])
def test_the_stream_of_a_process_is_the_guides(verb):
    default = {name: item.default for name, item in inspect.signature(verb).parameters.items()}
    assert StreamSettings() == StreamSettings(
        storage=default["storage"],
        replicas=default["replicas"],
        max_age_s=default["max_age"],
        duplicate_window_s=default["duplicate_window"],
    )


def test_the_consumer_of_a_worker_is_the_guides():
    default = {name: item.default for name, item in inspect.signature(worker).parameters.items()}
    assert ConsumerSettings() == ConsumerSettings(
        ack_wait_s=default["ack_wait"],
        max_deliver=default["max_deliver"],
        max_ack_pending=default["max_ack_pending"],
    )


async def test_a_handler_that_fails_says_which_task_and_attempt():
    task = new_task(
        repo_id="synthetic/plain/repo-0",
        task_type="sync",
        payload={},
        clock=FixedClock(),
        entropy=random.Random(1),
    )
    with pytest.raises(HandlerFailedError, match=f"{task.id}, attempt 3"):
        await FailHandler()(task, Execution(attempt=3))
