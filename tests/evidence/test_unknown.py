"""What could not be found out is unknown, with the reason, on the command line of a user."""

import json
import subprocess
import sys

import pytest

SCENARIO = """
name = "unknown"
description = "one phase, and a fault"
[timeline]
phases = ["redis_only"]
phase_seconds = 4.0
[producers]
rate_per_s = 200.0
"""
CANNOT_FIRE = """
[[faults]]
kind = "wire"
target = "workers-redis"
action = "drop"
direction = "reply"
command = "XADD"
at_s = 0.5
for_s = 0.5
within_s = 2.0
"""
CRASH = """
from hookbench.ledger import invariants

def crash(_history):
    raise ZeroDivisionError("planted")

invariants._CHECKERS[5] = crash
"""
MAIN = "import sys; from hookbench.cli.main import main; sys.argv[1:] = {arguments!r}; main()"


def run(folder, faults="", planted=""):
    folder.mkdir()
    path = folder / "unknown.toml"
    path.write_text(SCENARIO + faults)
    arguments = ["run", str(path), "--json", f"--out={folder}"]
    done = subprocess.run(
        [sys.executable, "-c", planted + MAIN.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.evidence(
    claim="A fault that cannot fire and a checker that crashes each make the verdict unknown, with"
    " the reason and exit code 3; the same run without them is valid.",
    seed=7,
)
@pytest.mark.timeout(300)
def test_unknown(proof, tmp_path):
    refuted = []
    for name, (faults, planted, reason, expected) in {
        "plain": ("", "", "", ("valid", 0)),
        "cannot_fire": (CANNOT_FIRE, "", "it did not fire: no frame met the rule", ("unknown", 3)),
        "crashed": ("", CRASH, "its checker crashed: ZeroDivisionError: planted", ("unknown", 3)),
    }.items():
        code, manifest = run(tmp_path / name, faults, planted)
        told = "; ".join(manifest["unknown_because"])
        proof.record(**{name: {"verdict": manifest["verdict"], "exit_code": code, "reason": told}})
        if (manifest["verdict"], code) != expected or reason not in told:
            refuted.append(f"{name}: {manifest['verdict']}, exit code {code}, {told!r}")
    proof.conclude(refuted)
