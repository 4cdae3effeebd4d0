"""A simulated broker is killed and comes back: ``tests/contract/test_reconnect.py``."""

from tests.contract.test_reconnect import *  # noqa: F403 - the suite is the same
