"""The two trees that are compared, each in a folder of its own, with the same benchmarks."""

import dataclasses
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from hookbench.errors import SettingError

__all__ = ["Tree", "base_commit", "copy_working_tree", "share_benchmarks", "unpack_commit"]

_GIT_TIMEOUT_S = 60.0
_MAIN = ("origin/main", "main")
PARTS = ("hookbench", "loadtests", "tests", "notebooks", "pyproject.toml", "README.md", "LICENSE")
"""What a run needs of a tree."""
BENCHMARKS = ("tests", "pyproject.toml")
"""What both sides have of the head: benchmarks, and how they are run."""


@dataclasses.dataclass(frozen=True)
class Tree:
    """Code in a folder, and what it is called."""

    label: str
    folder: Path


def git(root, *arguments, binary=False):
    """What git prints.

    Raises:
        SettingError: it fails; the text is git's own.
    """
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingError(f"git {' '.join(arguments)}: {error}") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise SettingError(f"git {' '.join(arguments)}: {told}")
    return done.stdout if binary else done.stdout.decode().strip()


def base_commit(root, ref=None, head="HEAD"):
    """The commit to compare ``head`` with: where it and ``ref`` parted.

    Without a ``ref`` that is the main branch. On it, where nothing has parted, it is what was last
    committed if the tree is changed, and else the commit before.

    Raises:
        SettingError: there is no such ref, or no commit that both have.
    """
    if ref is not None:
        return git(root, "merge-base", ref, head)
    newest = git(root, "rev-parse", head)
    for main in _MAIN:
        try:
            git(root, "rev-parse", "--verify", "--quiet", f"{main}^{{commit}}")
        except SettingError:
            continue
        base = git(root, "merge-base", main, head)
        if base != newest or is_changed(root):
            return base
        break
    if is_changed(root):
        return newest
    try:
        return git(root, "rev-parse", "--verify", f"{head}~1")
    except SettingError as error:
        raise SettingError(
            f"{head} has no commit before it here: fetch the history"
            " (git fetch --unshallow), or name a commit with --base"
        ) from error


def is_changed(root):
    """Whether the working tree is not what was committed."""
    return bool(git(root, "status", "--porcelain", "--", *_there(root)))


def _there(root):
    return [part for part in PARTS if (root / part).exists()]


def unpack_commit(root, commit, folder):
    """The tree of a commit in a new folder; nothing is noted in the repository."""
    found = git(root, "ls-tree", "--name-only", commit).splitlines()
    data = git(
        root, "archive", "--format=tar", commit, *[part for part in PARTS if part in found],
        binary=True,
    )  # fmt: skip
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
    return Tree(git(root, "rev-parse", "--short", commit), folder)


def copy_working_tree(root, folder):
    """The working tree as it is now, new files included: a change during the runs is not in it."""
    listed = git(root, "ls-files", "-co", "--exclude-standard", "-z", "--", *_there(root))
    folder.mkdir(parents=True)
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
    label = git(root, "rev-parse", "--short", "HEAD")
    return Tree(f"{label}+" if is_changed(root) else label, folder)


def share_benchmarks(head, base):
    """Give the base the benchmarks of the head, so that both are measured by the same ones."""
    for part in BENCHMARKS:
        source, target = head.folder / part, base.folder / part
        if target.is_dir():
            shutil.rmtree(target)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
