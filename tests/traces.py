"""Runs the tests of traces in ``.venv-traces``, where OpenTelemetry is: ``make traces``.

Not in the environment of the other tests, for redis-py imports OpenTelemetry wherever it finds it,
at the start of each process. What both need is that environment's own.
"""

import shutil
import subprocess
import sys
import tomllib

from tests.wheel import ROOT, install, make_environment_before

FOLDER = ROOT / ".venv-traces"
TESTS = ("tests/integration/test_tracing.py",)


def wanted():
    """The packages of the extra, as pyproject.toml has them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["optional-dependencies"]["otel"]


def environment():
    """Its Python; made anew when the packages that are wanted have changed."""
    stamp, python = FOLDER / "installed", FOLDER / "bin" / "python"
    text = "\n".join([sys.version, *wanted()])
    if not stamp.exists() or stamp.read_text() != text:
        shutil.rmtree(FOLDER, ignore_errors=True)
        install(make_environment_before(FOLDER), *wanted(), timeout_s=600)
        stamp.write_text(text)
    return python


def main():
    python = environment()
    # Without it every test would be skipped, and nothing would be said.
    subprocess.run([python, "-c", "import opentelemetry.sdk"], check=True)
    return subprocess.run(
        [python, "-m", "pytest", *TESTS, *sys.argv[1:]], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
