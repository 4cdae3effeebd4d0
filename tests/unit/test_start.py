"""What the processes that a rehearsal starts by the dozen do not import."""

import subprocess
import sys

import pytest

SLOW = ("matplotlib", "numpy", "pandas", "psutil", "pyarrow", "rich", "scipy")
CODE = f"""
import sys
from hookbench.cli.main import main
try:
    main()
except SystemExit as error:
    print(error.code, [name for name in {SLOW} if name in sys.modules])
"""


@pytest.mark.parametrize("verb", ["worker", "produce"])
def test_a_worker_and_a_producer_start_without_what_only_the_harness_needs(verb):
    # With a phase that there is not: all is imported by then, and nothing is begun.
    done = subprocess.run(
        [sys.executable, "-c", CODE, verb, "--phase=unheard"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "2 []\n", done.stderr
    assert "phase 'unheard'" in done.stderr
