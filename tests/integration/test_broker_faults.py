"""Faults of brokers' settings in a real rehearsal, as the brokers and the account tell them."""

import shutil

from tests.integration.conftest import stored


def noted(record, name):
    return int(record.noted[name])


def test_settings_of_brokers_bite_and_are_put_back(rehearse, tmp_path):
    nats = {"target": "nats"}
    faults = [
        {
            "kind": "maxmemory",
            "target": "redis",
            "at_s": 0.5,
            "for_s": 0.8,
            "headroom_bytes": -99_999,
        },
        {"kind": "stream_limits", **nats, "at_s": 3.6, "for_s": 0.5, "max_msgs": 20},
        {"kind": "consumer_limits", **nats, "at_s": 3.7, "for_s": 0.3, "max_ack_pending": 1},
        {"kind": "delete_consumer", **nats, "at_s": 4.4, "for_s": 0.3},
        {"kind": "recreate_consumer", **nats, "at_s": 5.2},
    ]
    done = rehearse(faults, seconds=3.0)
    assert done.returncode == 1, done.stderr
    manifest = stored(tmp_path)
    assert [record.problem for record in manifest.faults] == [None] * 5
    # Also what compares the settings of Redis before and after the run has nothing to say.
    assert manifest.unknown_because == []
    full, stream, _consumer, deleted, recreated = manifest.faults
    redis, server = manifest.broker_reports
    assert redis.configuration["maxmemory"] == "0"
    below = noted(full, "redis used_bytes before") - noted(full, "redis maxmemory_bytes")
    assert below == 99_999
    assert noted(full, "redis evicted at its end") == 0
    account = manifest.account
    assert account.refused > 0  # a full Redis says no
    assert noted(stream, "messages before") > noted(stream, "messages at its end") == 20
    assert server.configuration["stream.max_age_ns"] == str(7 * 24 * 3600 * 10**9)
    assert server.configuration["consumer.max_ack_pending"] == "100"
    # Both new consumers deliver what is in the stream again: hazard N7.
    assert noted(recreated, "delivered before") > noted(deleted, "delivered before") > 0
    assert account.duplicated_deliveries > 0
    assert account.duplicated > 0


def test_a_power_cut_takes_back_what_was_acknowledged(rehearse, tmp_path):
    """Hazard N10, and its like on Redis: nobody but the disk forgot anything."""
    cut = {"kind": "power_cut", "rollback_s": 0.8, "for_s": 0.3}
    faults = [
        {**cut, "target": "redis", "at_s": 1.6},
        {**cut, "target": "nats", "at_s": 4.2, "count_syncs": False},
    ]
    done = rehearse(faults, seconds=2.5)
    assert done.returncode == 1, done.stderr
    manifest = stored(tmp_path)
    assert [record.problem for record in manifest.faults] == [None] * 2
    assert manifest.unknown_because == []
    redis, nats = manifest.faults
    for record in (redis, nats):
        assert float(record.noted["rolled back s"]) >= 0.8
    counted = redis.noted["fsync calls in between"]
    assert counted.isdigit() == (shutil.which("strace") is not None), counted
    assert nats.noted["fsync calls in between"] == "not counted (count_syncs is off)"
    account = manifest.account
    assert account.lost + account.duplicated > 0
