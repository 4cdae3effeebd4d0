"""What a long proof has come to so far: one line per step, so that a proof goes on where it ended.

Steps count for the commit that they were made with; those of a changed tree are not kept.
"""

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
    """

    def __init__(self, proof, kind, folder=FOLDER):
        self._path = folder / f"{proof}.jsonl"
        self._kind, self._commit = kind, tree_commit()
        self._lines = {}
        whole = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for text in whole:
            if not text.endswith(b"\n"):  # it was cut off in the middle: that step is done again
                continue
            line = msgspec.json.decode(text, type=_Line)
            if line.commit == self._commit:
                self._lines[line.step] = line

    def of(self, step):
        """What a step came to; ``None`` if this commit has not made it."""
        line = self._lines.get(step)
        return None if line is None else msgspec.json.decode(line.made, type=self._kind)

    def keep(self, step, made):
        """Keep what a step came to; what other commits made is forgotten."""
        self._lines[step] = _Line(self._commit, step, msgspec.Raw(msgspec.json.encode(made)))
        if self._commit.endswith("+"):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [msgspec.json.encode(line) + b"\n" for line in self._lines.values()]
        write_aside(self._path, b"".join(lines))
