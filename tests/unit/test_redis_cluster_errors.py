"""What redis-py's cluster client raises beside ``RedisError``, as errors that callers know."""

import pytest
from redis.exceptions import ClusterDownError, RedisClusterException

from hookbench.errors import PublishUnknownError
from hookbench.queues.redis_client import NeverSentError, put_errors
from hookbench.queues.redis_cluster import _known_errors


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
