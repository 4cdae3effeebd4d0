"""One more seed, which follows from the commit: every change searches where none has."""

import subprocess
from pathlib import Path

__all__ = ["FIXED_SEED", "commit_seed", "seed_line"]

FIXED_SEED = 7
"""Where there is no commit."""
_DIGITS = 8
_GIT_TIMEOUT_S = 10.0


def commit_seed(folder=Path(__file__).parent):
    """The seed of the commit that is checked out, and the commit; a fixed one without git."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return FIXED_SEED, None
    commit = answer.stdout.strip()
    return int(commit[:_DIGITS], 16), commit


def seed_line():
    """For people, with the command that repeats it."""
    seed, commit = commit_seed()
    why = f"of commit {commit[:_DIGITS]}" if commit else "fixed, for there is no commit here"
    return f"simulated seed: {seed} ({why}); hookbench sim --design hardened --seed {seed}"
