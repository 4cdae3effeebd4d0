"""The wheel does without the repository: what is in it, and that it works where nothing else is.

It is installed into an environment of its own. The packages that it depends on are those of the
environment that runs the tests: tests/evidence/test_wheel.py fetches them too.
"""

import json
import subprocess
import zipfile

import pytest

from tests.wheel import ROOT, build_wheel, install, make_environment_before, plain_environment

pytest.importorskip("hatchling", reason="the build backend is not installed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with the wheel; other packages are found behind it."""
    made = make_environment_before(tmp_path_factory.mktemp("environment") / "venv")
    install(made, "--no-deps", "--no-index", str(wheel))
    return made


def run(python, folder, *words):
    return subprocess.run(
        words, cwd=folder, env=plain_environment(PATH=f"{python.parent}:/usr/bin:/bin"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "hookbench"], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=30,
    ).stdout.split()  # fmt: skip
    assert len(tracked) > 300
    assert [name for name in tracked if name not in names and (ROOT / name).is_file()] == []
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert f"hookbench/report/notebooks/{notebook.name}" in names, "add it to force-include"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"hookbench"}


def test_it_runs_where_there_is_nothing_else(python, tmp_path):
    where = "import hookbench, sys; print(hookbench.__file__); print(hookbench.__version__)"
    done = run(python, tmp_path, str(python), "-c", where)
    path, version = done.stdout.split()
    assert path.startswith(str(python.parents[1])), done.stderr
    said = run(python, tmp_path, "hookbench", "version").stdout
    assert said == f"hookbench {version}\n"
    listed = json.loads(run(python, tmp_path, "hookbench", "list", "scenarios", "--json").stdout)
    shipped = {item["name"] for item in listed["scenarios"]}
    assert shipped == {path.stem for path in ROOT.glob("hookbench/scenarios/*.toml")}
    assert list(tmp_path.iterdir()) == []


def test_it_finds_its_brokers_and_notebooks(python, tmp_path):
    done = run(python, tmp_path, "hookbench", "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["redis"]["ok"], checks
    assert checks["nats"]["ok"], checks
    find = "from hookbench.report.execute import find_notebook; print(find_notebook('05_verdict'))"
    done = run(python, tmp_path, str(python), "-c", find)
    assert done.stdout.strip().startswith(str(python.parents[1])), done.stderr
