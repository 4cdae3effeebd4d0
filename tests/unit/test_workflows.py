"""The workflows of the project's own CI: what they may do, and that they do what is documented."""

import re

import pytest
import yaml

from tests.bench.compare import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
OFFICIAL = re.compile(r"actions/[a-z-]+@v\d+")


def load(path):
    """``on`` is a truth value in YAML 1.1."""
    found = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_both_workflows_are_there():
    assert [path.name for path in WORKFLOWS] == ["bench.yml", "ci.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_only_reads_and_uses_official_actions(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    assert "secrets." not in path.read_text()
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(OFFICIAL.fullmatch(name) for name in used)
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 90
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_expression_stands_in_a_command(path):
    """What comes from a pull request reaches a shell through the environment only."""
    commands = [step["run"] for step in steps(load(path)) if "run" in step]
    assert commands
    assert not any("${{" in command for command in commands)


def test_the_benchmarks_of_a_pull_request_are_those_of_the_command_line():
    workflow = load(ROOT / ".github/workflows/bench.yml")
    (command,) = [step["run"] for step in steps(workflow) if "run" in step]
    assert command == 'make bench ARGS="--base $BASE"'
    assert "pull_request" in workflow["on"]
    (base,) = [job["env"]["BASE"] for job in workflow["jobs"].values()]
    assert "format('origin/{0}', github.base_ref)" in base
    assert "python -m tests.bench.compare $(ARGS)" in (ROOT / "Makefile").read_text()


def test_the_other_runs_the_whole_check():
    commands = [step.get("run") for step in steps(load(ROOT / ".github/workflows/ci.yml"))]
    assert ".ci/run" in commands
