"""What every queue promises: ``tests/contract/test_queue_contract.py`` over a simulated Redis."""

from tests.contract.test_queue_contract import *  # noqa: F403 - the suite is the same
