"""``tests/contract/test_done_store.py`` over a simulated Redis."""

import pytest

from tests.contract.test_done_store import *  # noqa: F403 - the suite is the same


@pytest.fixture(params=["redis", "kv", "joint"])
def kind(request):
    return request.param
