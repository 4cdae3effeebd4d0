"""What an account is told of the faults of a stored run."""

import pytest

from hookbench.faults.base import FaultRecord
from hookbench.results.check import fault_windows
from tests.unit.test_store import make_manifest

DUPLICATE = {"action": "duplicate", "direction": "request", "command": "PUB"}


def window(planned, *, target="producers-nats", begin_ns=5):
    manifest = make_manifest()
    manifest.settings = {} if planned is None else {"faults": [{}, planned]}
    manifest.faults = [
        FaultRecord(
            index=1,
            kind="wire",
            target=target,
            name="duplicate request PUB",
            planned_ns=4,
            begin_ns=begin_ns,
            end_ns=9,
        )
    ]
    return fault_windows(manifest)


@pytest.mark.parametrize(
    ("planned", "target", "doubles"),
    [
        (DUPLICATE | {"count": 3}, "producers-nats", 3),
        (DUPLICATE, "producers-redis", 1),
        (DUPLICATE | {"count": 0}, "producers-nats", 2**31),  # every one from there on
        (DUPLICATE | {"count": 3}, "workers-nats", 0),
        (DUPLICATE | {"count": 3, "direction": "reply"}, "producers-nats", 0),
        (DUPLICATE | {"count": 3, "action": "delay"}, "producers-nats", 0),
        (None, "producers-nats", 0),
    ],
)
def test_how_many_requests_of_producers_a_fault_sends_twice(planned, target, doubles):
    (found,) = window(planned, target=target)
    assert (found.doubles, found.begin_ns, found.end_ns) == (doubles, 5, 9)


@pytest.mark.parametrize(
    ("planned", "rollback_ns"), [({"rollback_s": 0.25}, 250_000_000), ({}, 0), (None, 0)]
)
def test_for_how_long_before_it_a_fault_takes_back_what_was_recorded(planned, rollback_ns):
    (found,) = window(planned, target="redis")
    assert found.rollback_ns == rollback_ns


def test_a_fault_that_did_not_fire_has_no_window():
    assert window(DUPLICATE, begin_ns=None) == []
