"""What is raised for a connection that went away, and that nothing else is hidden by it."""

import pytest

from hookbench.errors import BrokerUnreachableError, PublishUnknownError
from hookbench.queues.redis_client import broker_errors, put_errors

# uvloop, of a write to a connection that it has closed; redis-py lets it pass.
CLOSED = "unable to perform operation on <TCPTransport closed=True>; the handler is closed"


def test_a_connection_closed_before_the_write_is_an_outage():
    with pytest.raises(BrokerUnreachableError, match="handler is closed"), broker_errors("LREM"):
        raise RuntimeError(CLOSED)
    with pytest.raises(PublishUnknownError, match="handler is closed"), put_errors("LPUSH", b""):
        raise RuntimeError(CLOSED)


@pytest.mark.parametrize("wrapped", [broker_errors("LREM"), put_errors("LPUSH", b"")])
def test_a_defect_of_ours_stays_one(wrapped):
    with pytest.raises(RuntimeError, match="no running event loop"), wrapped:
        raise RuntimeError("no running event loop")
