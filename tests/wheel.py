"""A wheel of this tree, and what a process outside of the repository runs with."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEERING = ("HOOKBENCH_", "PYTHON", "VIRTUAL_ENV", "LOCUST_", "JUPYTER", "IPYTHON")


def plain_environment(**changes):
    """This environment without what would lead a process back to the repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    return {**kept, **changes}


def build_wheel(folder):
    """The wheel of the working tree, by the build backend itself: no network is needed."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = folder.glob("hookbench-*.whl")
    return wheel


def make_environment(folder):
    """An empty virtual environment, without pip; its Python."""
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def make_environment_before(folder):
    """One with what is installed into it, and the packages of this one behind that; its Python."""
    made = make_environment(folder)
    (packages,) = (made.parents[1] / "lib").glob("python*/site-packages")
    # A path, and no more: what lies in it as *.pth, such as the editable install, is not followed.
    (packages / "behind.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    # The wheel of nats-server has a program and no module, so it is looked for beside Python.
    made.with_name("nats-server").symlink_to(Path(sys.executable).with_name("nats-server"))
    return made


def install(python, *arguments, timeout_s=120):
    """Install into the environment of ``python`` by the pip of this one."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install"),
            *("--quiet", "--disable-pip-version-check", *arguments),
        ],
        cwd=python.parent, check=True, capture_output=True, timeout=timeout_s,
        env=plain_environment(),
    )  # fmt: skip
