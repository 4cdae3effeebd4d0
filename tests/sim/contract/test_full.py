"""``tests/contract/test_redis_full.py`` over a simulated Redis."""

import pytest

from tests.contract.test_redis_full import *  # noqa: F403 - the suite is the same

del test_a_producer_starts_without_an_answer  # noqa: F821 - looks at a real server
del test_nobody_starts_on_a_redis_that_evicts  # noqa: F821 - likewise


@pytest.fixture
def own_redis(world):
    broker = world.start_redis()
    yield broker
    broker.stop()
