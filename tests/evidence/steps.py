"""What a long proof has come to so far: one line per step, so that a proof goes on where it ended.

Steps count for the commit that they were made with, and where a proof says on which paths they
depend, for any that has the same ones; those of a changed tree are not kept.
"""

import functools
import subprocess

import msgspec

from hookbench.results.store import write_aside
from tests.evidence.record import ROOT, tree_commit

__all__ = ["Steps"]

FOLDER = ROOT / "results" / "evidence"


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    commit: str
    step: str
    made: msgspec.Raw


class Steps:
    """The steps of one proof.

    Args:
        proof: its name.
        kind: the type of what a step comes to.
        folder: of the file.
        depends_on: pathspecs of git, from the root on; by default all.
    """

    def __init__(self, proof, kind, folder=FOLDER, *, depends_on=()):
        self._path = folder / f"{proof}.jsonl"
        self._kind, self._commit = kind, tree_commit()
        alike = functools.cache(lambda commit: _alike(commit, self._commit, tuple(depends_on)))
        self._lines = {}
        whole = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for text in whole:
            if not text.endswith(b"\n"):  # it was cut off in the middle: that step is done again
                continue
            line = msgspec.json.decode(text, type=_Line)
            if alike(line.commit):
                self._lines[line.step] = line

    def of(self, step):
        """What a step came to; ``None`` if neither this commit nor one like it has made it."""
        line = self._lines.get(step)
        return None if line is None else msgspec.json.decode(line.made, type=self._kind)

    @property
    def commits(self):
        """Those that the steps were made with."""
        return sorted({line.commit for line in self._lines.values()})

    def keep(self, step, made):
        """Keep what a step came to; what other commits made is forgotten."""
        self._lines[step] = _Line(self._commit, step, msgspec.Raw(msgspec.json.encode(made)))
        if self._commit.endswith("+"):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [msgspec.json.encode(line) + b"\n" for line in self._lines.values()]
        write_aside(self._path, b"".join(lines))


def _alike(commit, now, paths):
    """Whether a step of a commit is one of this commit as well.

    Raises:
        subprocess.CalledProcessError: git has no such commit, or cannot compare.
    """
    if commit == now or not paths or now.endswith("+"):
        return commit == now
    done = subprocess.run(
        ["git", "-C", str(ROOT), "diff", "--quiet", commit, now, "--", *paths], check=False
    )
    if done.returncode > 1:
        done.check_returncode()
    return done.returncode == 0
