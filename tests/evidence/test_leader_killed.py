"""The leader of a stream with three replicas dies under load, three times: hazard N1."""

import json
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "hookbench"]
MS = 1e6


def kill_figures(record, fault):
    """What one kill did.

    A stall is the longest time without a success that reaches into it, the answer after the
    restart the time from the node's start to the next success of any node.
    """
    without = fault["longest_without_ns"]
    return {
        "node": record["node"],
        "down_ms": round(fault["length_ns"] / MS),
        "publish_stall_ms": round(without["nats put"] / MS),
        "receive_stall_ms": round(without["nats receive"] / MS),
        "answered_after_restart_ms": round(fault["recovery_ns"] / MS),
        "in_flight": fault["exposed"],
        "lost": fault["lost"],
        "stuck": fault["stuck"],
        "done_again": fault["duplicated"],
    }


@pytest.mark.evidence(
    claim="A stream of three replicas whose leader is killed three times under load takes no tasks"
    " for seconds each time, and loses none that it acknowledged; what is done again was in"
    " flight.",
    seed=7,
)
@pytest.mark.timeout(300)
def test_leader_killed(proof, tmp_path):
    done = subprocess.run(
        [
            *COMMAND,
            *("run", "leader_killed", "--json", f"--out={tmp_path}"),
            *("--set", f"seed={proof.seed}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    manifest = json.loads(done.stdout)
    account, records = manifest["account"], manifest["faults"]
    proof.record_versions(
        **{report["name"]: report["version"] for report in manifest["broker_reports"]}
    )
    # One that did not fire has no account, and makes the run unknown.
    kills = [kill_figures(records[fault["index"]], fault) for fault in account["faults"]]
    proof.record(
        run=manifest["run"],
        durability=manifest["durability"],
        **{f"kill_{number}": kill for number, kill in enumerate(kills, 1)},
        **{
            name: account[name]
            for name in ("tasks", "accepted", "refused", "doubtful", "done", "lost", "stuck")
        },
        duplicated=account["duplicated"],
        verdict=manifest["verdict"],
    )
    contradictions = [
        f"{name} is {account[name]}" for name in ("lost", "stuck", "unexpected") if account[name]
    ]
    # An acknowledgement that meets the leader's death is lost: its task is delivered again.
    if account["duplicated"] > sum(kill["done_again"] for kill in kills):
        contradictions.append(f"{account['duplicated']} tasks were done again, not all in a kill")
    if manifest["durability"] != "replicated":
        contradictions.append(f"the brokers were of class {manifest['durability']}")
    contradictions += [
        f"kill {number} stopped no publish for a second"
        for number, kill in enumerate(kills, 1)
        if kill["publish_stall_ms"] < 1000
    ]
    if account["refused"] + account["doubtful"] == 0:
        contradictions.append("every put was acknowledged, so the load met no outage")
    proof.conclude(contradictions, unknown=manifest["unknown_because"])
