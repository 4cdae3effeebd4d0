"""``tests/contract/test_redis_leased.py`` over a simulated Redis."""

from tests.contract.test_redis_leased import *  # noqa: F403 - the suite is the same

del test_a_broker_with_any_key_of_the_leases_is_in_use  # noqa: F821 - of the suite
del test_a_lease_that_no_renewal_keeps_up_with_is_refused  # noqa: F821 - needs no broker
