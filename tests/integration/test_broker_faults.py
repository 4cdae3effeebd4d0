"""Faults of brokers in a real rehearsal, as the brokers and the account tell them.

A power cut of NATS is in ``test_node_faults``: its consumer comes back with deliveries that nobody
will acknowledge, and a rehearsal waits for their AckWait.
"""

import shutil

from tests.integration.conftest import stored

NATS = {"target": "nats"}
# Those of NATS begin well behind the change to it, when every process has come to it.
FAULTS = [
    {"kind": "power_cut", "target": "redis", "at_s": 0.8, "rollback_s": 0.6, "for_s": 0.2},
    {"kind": "maxmemory", "target": "redis", "at_s": 1.6, "for_s": 0.7, "headroom_bytes": -99_999},
    {"kind": "stream_limits", **NATS, "at_s": 6.5, "for_s": 0.5, "max_msgs": 20},
    {"kind": "consumer_limits", **NATS, "at_s": 6.6, "for_s": 0.3, "max_ack_pending": 1},
    {"kind": "delete_consumer", **NATS, "at_s": 7.5, "for_s": 0.3},
    {"kind": "recreate_consumer", **NATS, "at_s": 8.8},
]


def noted(record, name):
    return int(record.noted[name])


def test_brokers_are_meddled_with_and_all_is_put_back(rehearse, tmp_path):
    done = rehearse(FAULTS, seconds=5.0)
    assert done.returncode == 1, done.stderr
    manifest = stored(tmp_path)
    assert [record.problem for record in manifest.faults] == [None] * len(FAULTS)
    # Also what compares the settings of Redis before and after the run has nothing to say.
    assert manifest.unknown_because == []
    cut, full, stream, _consumer, deleted, recreated = manifest.faults
    redis, nats = manifest.broker_reports
    account = manifest.account

    below = noted(full, "redis used_bytes before") - noted(full, "redis maxmemory_bytes")
    assert below == 99_999
    assert redis.configuration["maxmemory"] == "0"
    assert noted(full, "redis evicted at its end") == 0
    assert account.refused > 0  # a full Redis says no

    assert noted(stream, "messages before") > noted(stream, "messages at its end") == 20
    assert nats.configuration["stream.max_age_ns"] == str(7 * 24 * 3600 * 10**9)
    assert nats.configuration["consumer.max_ack_pending"] == "100"
    # Both new consumers deliver what is in the stream again: hazard N7.
    assert noted(recreated, "delivered before") > noted(deleted, "delivered before") > 0
    assert account.duplicated_deliveries > 0
    assert account.duplicated > 0

    assert float(cut.noted["rolled back s"]) >= 0.6
    counted = cut.noted["fsync calls in between"]
    assert counted.isdigit() == (shutil.which("strace") is not None), counted
