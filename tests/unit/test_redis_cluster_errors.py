"""What redis-py lets pass beside ``RedisError``, as errors that callers know."""

import pytest
from redis.exceptions import ClusterDownError, RedisClusterException

from hookbench.errors import BrokerUnreachableError, PublishRefusedError, PublishUnknownError
from hookbench.queues.redis_cluster import _known_errors
from hookbench.queues.redis_errors import (
    NeverSentError,
    broker_errors,
    put_errors,
)


def test_a_connection_that_another_command_closed_leaves_the_caller_in_doubt():
    writer = None
    with pytest.raises(PublishUnknownError), put_errors("LPUSH queue", b""), _known_errors():
        writer.writelines([])


def test_a_defect_stays_a_defect():
    with pytest.raises(AttributeError), _known_errors():
        object().writelines([])
    with pytest.raises(AttributeError), _known_errors():
        raise AttributeError("of no object")


def test_what_was_never_sent_and_what_a_server_answers():
    with pytest.raises(NeverSentError), _known_errors():
        raise RedisClusterException("no node")
    with pytest.raises(ClusterDownError), _known_errors():
        raise ClusterDownError("CLUSTERDOWN")


def test_a_connection_that_the_other_side_has_closed_is_a_broker_that_is_away():
    """uvloop refuses the write, so that nothing was sent."""
    text = "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
    with pytest.raises(PublishRefusedError), put_errors("LPUSH queue", b""):
        raise RuntimeError(text)
    with pytest.raises(BrokerUnreachableError), broker_errors("LREM queue"):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError), put_errors("LPUSH queue", b""):
        raise RuntimeError("a defect")
