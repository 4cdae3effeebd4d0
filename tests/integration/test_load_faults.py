"""Faults of the load in real rehearsals: processes obey, and the account is not misled."""

from tests.integration.conftest import stored

WORKERS, PRODUCERS = {"target": "workers"}, {"target": "producers"}
FAULTS = [
    {"kind": "poison", "target": "queue", "at_s": 0.4, "count": 12, "seed": 3},
    {"kind": "equal_payloads", "target": "queue", "at_s": 0.6, "count": 4},
    {"kind": "slow_handler", **WORKERS, "at_s": 0.8, "for_s": 0.6, "service_ms": 40.0},
    {"kind": "oversize", **PRODUCERS, "at_s": 1.0, "for_s": 0.3, "count": 2},
    {"kind": "hot_repository", **PRODUCERS, "at_s": 1.4, "for_s": 0.8, "share": 0.7},
    {"kind": "failing_handler", **WORKERS, "at_s": 2.4, "for_s": 0.5, "probability": 0.3},
    {"kind": "poison", "target": "queue", "at_s": 4.0, "count": 5},
    {"kind": "equal_payloads", "target": "nats", "at_s": 4.1, "count": 3},
]


def test_a_misbehaving_load_is_obeyed_and_accounted_for(rehearse, tmp_path):
    done = rehearse(FAULTS, seconds=3.0)
    manifest = stored(tmp_path)
    assert [record.problem for record in manifest.faults] == [None] * len(FAULTS), done.stderr
    assert manifest.unknown_because == []
    account = manifest.account
    # Everything that is no task became a letter of its own, on both brokers, equal ones too.
    assert account.junk == 12 + 4 + 5 + 3
    assert account.refused == 4
    assert account.handler_failures > 0
    # None of these faults breaks an invariant by itself. On a busy machine the change of the phase
    # may strand what lies in the list at that moment, as the guide does.
    assert (account.lost, account.duplicated, account.unexpected) == (0, 0, 0)
    assert account.done + account.dead + account.stuck == account.accepted
    assert {item.hazard for item in account.findings} <= {"P6"}
    obeyed = {record.kind: record.noted.get("obeyed") for record in manifest.faults}
    assert obeyed["oversize"] == "4"
    assert int(obeyed["hot_repository"]) > 0
