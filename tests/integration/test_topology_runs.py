"""Rehearsals on brokers of several nodes, with faults on nodes, roles and links."""

import json
import subprocess

import pytest

from hookbench.results.store import load_manifest, resolve_run
from hookbench.secrets import redact
from tests.integration.conftest import COMMAND
from tests.integration.test_rehearsal import processes_of

pytestmark = pytest.mark.timeout(120)


def run(folder, topology, phases, faults):
    """One short rehearsal; its manifest and its table."""
    path = folder / "nodes.toml"
    tables = "".join(
        "[[faults]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in item.items())
        for item in faults
    )
    path.write_text(
        'name = "nodes"\ndescription = "a test"\n[brokers]\n'
        f'topology = "{topology}"\ndurability = "replicated"\n'
        f"[timeline]\nphases = {json.dumps(phases)}\nphase_seconds = 3.0\n"
        "[producers]\nrate_per_s = 200.0\n[pushes]\ninterval_s = 3.0\n" + tables
    )
    done = subprocess.run(
        [*COMMAND, "run", str(path), f"--out={folder}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert processes_of(folder) == []
    assert done.returncode in (0, 1), done.stderr
    return load_manifest(resolve_run("latest", folder)), done.stdout


def test_faults_on_nodes_roles_and_links_of_replicated_brokers(tmp_path):
    faults = [
        {"kind": "pause", "target": "redis_replica", "at_s": 0.5, "for_s": 0.5},
        {"kind": "kill", "target": "redis_master", "at_s": 1.5, "for_s": 0.3},
        {"kind": "pause", "target": "meta_leader", "at_s": 3.5, "for_s": 0.3},
        {
            "kind": "wire",
            "target": "workers-nats",
            "action": "delay",
            "direction": "request",
            "command": "Ack",
            "delay_ms": 20.0,
            "count": 0,
            "at_s": 4.0,
            "for_s": 0.5,
        },
    ]
    manifest, table = run(tmp_path, "replicated", ["redis_only", "nats_primary"], faults)
    assert manifest.unknown_because == []
    nodes = [record.node for record in manifest.faults]
    assert nodes[:2] == ["redis-2", "redis-1"]
    assert nodes[2] in ("nats-1", "nats-2", "nats-3")
    assert nodes[3] == "workers-nats"
    assert f"pause meta_leader ({nodes[2]})" in table
    assert manifest.durability == "replicated"
    of_nodes = {report.name: report.durability for report in manifest.broker_reports}
    assert of_nodes == dict.fromkeys(
        ("redis-1", "redis-2", "nats-1", "nats-2", "nats-3"), "replicated"
    )
    uses = {use.name: use for use in manifest.resources}
    assert set(of_nodes) < set(uses)
    assert uses["redis-1"].processes == 2  # killed, and started again
    account = manifest.account
    assert account.rows[2].tasks >= 300  # of 600, less what was due while they changed
    more = account.done + account.lost + account.stuck - account.accepted
    assert 0 <= more <= account.doubtful
    assert account.faults[1].recovery_ns is not None
    # The workers' connections go through proxies and nobody is told a way around them.
    assert uses["proxy"].received_bytes > 0


def test_a_topology_beside_a_url_is_refused(tmp_path, redis_broker):
    done = subprocess.run(
        [
            *COMMAND,
            *("rehearse", "--quick", "--topology=nats_cluster", f"--out={tmp_path}"),
            f"--redis-url={redis_broker.url}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"topology nats_cluster: redis at {redact(redis_broker.url)} is somebody" in done.stderr
