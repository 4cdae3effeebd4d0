"""``tests/contract/test_redis_stream.py`` over a simulated Redis."""

from tests.contract.test_redis_stream import *  # noqa: F403 - the suite is the same

del test_a_url_that_asks_for_the_newer_protocol_gets_the_same_answers  # noqa: F821 - of a server
del test_times_that_redis_cannot_count_are_refused  # noqa: F821 - needs no broker
