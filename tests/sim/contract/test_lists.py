"""``tests/contract/test_redis_list.py`` over a simulated Redis."""

from tests.contract.test_redis_list import *  # noqa: F403 - the suite is the same
