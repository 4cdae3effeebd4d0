"""What it says of its own version, asked in either way."""

import pytest
from typer.testing import CliRunner

import hookbench
from hookbench.cli.main import app


@pytest.mark.parametrize("asked", [["version"], ["--version"], ["--version", "no-such-verb"]])
def test_the_version_is_told(asked):
    said = CliRunner().invoke(app, asked)
    assert (said.exit_code, said.output) == (0, f"hookbench {hookbench.__version__}\n")
