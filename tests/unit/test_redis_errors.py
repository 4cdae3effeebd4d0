"""What is raised for a connection that went away hides no defect."""

import pytest

from hookbench.queues.redis_errors import (
    broker_errors,
    put_errors,
)


@pytest.mark.parametrize("wrapped", [broker_errors("LREM"), put_errors("LPUSH", b"")])
def test_a_defect_of_ours_stays_one(wrapped):
    with pytest.raises(RuntimeError, match="no running event loop"), wrapped:
        raise RuntimeError("no running event loop")
