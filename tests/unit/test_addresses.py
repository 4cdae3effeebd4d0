"""URLs that name several nodes."""

import pytest

from hookbench.brokers.redis_join import node_at
from hookbench.errors import SettingError
from hookbench.queues.addresses import host_and_port, nats_nodes, redis_nodes
from hookbench.secrets import redact


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("redis://me:secret@host:1/2", ["redis://me:secret@host:1/2"]),
        ("redis+cluster://a:1,b:2", ["redis://a:1", "redis://b:2"]),
        ("redis+replica://[::1]:1,b:2", ["redis://[::1]:1", "redis://b:2"]),
    ],
)
def test_the_nodes_of_a_redis_url(url, nodes):
    assert redis_nodes(url) == nodes


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis+replica"])
@pytest.mark.parametrize("rest", ["", "a", "a:1,", "a:1,b", "a:1/0", "me:secret@a:1"])
def test_a_url_of_several_nodes_that_is_none(scheme, rest):
    with pytest.raises(SettingError, match="without a user") as raised:
        redis_nodes(f"{scheme}://{rest}")
    assert "secret" not in str(raised.value)


def test_the_nodes_of_a_nats_url():
    assert nats_nodes("nats://a:1, nats://b:2") == ["nats://a:1", "nats://b:2"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:se,cret@a:1", "redis://***@a:1"),
        ("nats://me:secret@a:1,nats://me:secret@b:2", "nats://***@a:1,nats://***@b:2"),
        ("nats://me:secret@a:1,me:secret@b:2", "nats://***@a:1,***@b:2"),
        ("redis+replica://a:1,b:2", "redis+replica://a:1,b:2"),
    ],
)
def test_no_password_is_shown(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://a.example", ("a.example", 8222)),
        ("http://user:word@a.example:1", ("a.example", 1)),
        ("https://a.example", None),
        ("redis://a.example:1", None),
        ("http://", None),
        ("a.example:1", None),
    ],
)
def test_host_and_port_are_of_one_scheme(url, found):
    assert host_and_port(url, "NATS monitoring", "http", 8222) == found


def test_a_port_that_is_none_shows_no_password():
    with pytest.raises(SettingError, match="Redis URL 'redis://") as raised:
        host_and_port("redis://user:hidden@a.example:port", "Redis", "redis", 6379)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("url", ["nats://a.example:1", "redis://", "http://a.example"])
def test_a_node_that_is_no_redis_is_refused(url):
    with pytest.raises(SettingError, match="use redis://host:port of each node"):
        node_at(url)
