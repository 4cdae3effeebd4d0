import asyncio
import os
import random
import shutil
import subprocess

import pytest
import uvloop

from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution
from hookbench.errors import RepositoryError
from hookbench.worker.handlers import git_command
from hookbench.worker.handlers.git import GitMirrorHandler
from hookbench.worker.handlers.git_command import hold_mirror, read_refs, run_git
from hookbench.worker.handlers.git_maintenance import GitFsckHandler, GitGcHandler
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.handlers.routed import TypeHandler
from tests.conftest import eventually
from tests.unit.test_git_handler import HOSTILE, git
from tests.virtual import VirtualClock

REPO = "team/app.git"
LONGEST_ERROR = 1500
COMMITS = 12


def output(*arguments, data=None):
    done = subprocess.run(["git", *arguments], input=data, check=True, capture_output=True)
    return done.stdout.decode().strip()


class Rig:
    """An origin with a history, and the three handlers."""

    def __init__(self, folder):
        clock = SystemClock()
        self.origins, self.mirrors = folder / "origins", folder / "mirrors"
        self.origin, self.mirror = self.origins / REPO, self.mirrors / REPO
        self.clone = folder / "clone"
        self.mirrors.mkdir()
        self.sync = GitMirrorHandler(self.origins, self.mirrors, clock)
        self.fsck = GitFsckHandler(self.mirrors, clock)
        self.gc = GitGcHandler(self.mirrors, clock)
        git("init", "--bare", "-b", "main", str(self.origin))
        git("clone", str(self.origin), str(self.clone))
        for number in range(COMMITS):
            self.commit(number)
        for name in ("refs/tags/v1", "refs/notes/x", "refs/heads/a/b", "refs/changes/01/1/1"):
            git("update-ref", name, "HEAD~3", cwd=self.clone)
        git("tag", "-a", "-m", "annotated", "v2", cwd=self.clone)
        self.push()

    def commit(self, number):
        (self.clone / "file.txt").write_text(f"content {number} " * 50)
        git("add", "file.txt", cwd=self.clone)
        git("commit", "-m", f"change {number}", cwd=self.clone)

    def push(self):
        git("push", "--force", "--prune", "origin", "refs/*:refs/*", cwd=self.clone)

    def counts(self):
        lines = output("--git-dir", str(self.mirror), "count-objects", "-v").splitlines()
        return {name: int(value) for name, value in (line.split(": ") for line in lines)}

    def loose(self, name):
        """The file of an object in the mirror."""
        found = output("--git-dir", str(self.mirror), "rev-parse", name)
        path = self.mirror / "objects" / found[:2] / found[2:]
        path.chmod(0o644)
        return found, path


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def task(make_task):
    return make_task(repo_id=REPO, payload={"refs": [{"ref": "--upload-pack=x"}]})


async def test_fsck_of_a_sound_mirror_is_quiet_and_changes_nothing(rig, task):
    await rig.sync(task, Execution())
    before, refs = rig.counts(), await read_refs(rig.mirror)
    await rig.fsck(task, Execution())
    await rig.fsck(task, Execution())
    assert rig.counts() == before
    assert await read_refs(rig.mirror) == refs


def overwritten(path, other):
    path.write_bytes(other.read_bytes())


def garbled(path, _other):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def truncated(path, _other):
    path.write_bytes(path.read_bytes()[:10])


def emptied(path, _other):
    path.write_bytes(b"")


def removed(path, _other):
    path.unlink()


@pytest.mark.parametrize("damage", [overwritten, garbled, truncated, emptied, removed])
@pytest.mark.parametrize("name", ["main~2:file.txt", "main~2^{tree}", "main~2"])
async def test_fsck_names_a_damaged_object(rig, task, damage, name):
    await rig.sync(task, Execution())
    found, path = rig.loose(name)
    _, other = rig.loose("main~5:file.txt")
    damage(path, other)
    with pytest.raises(RepositoryError) as caught:
        await rig.fsck(task, Execution())
    text = str(caught.value)
    assert found in text or f"{found[:2]}/{found[2:]}" in text
    assert "fsck" in text
    assert len(text) < LONGEST_ERROR


async def test_fsck_finds_a_flipped_byte_in_a_pack(rig, task):
    await rig.sync(task, Execution())
    await rig.gc(task, Execution())
    (pack,) = (rig.mirror / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pack.write_bytes(data)
    with pytest.raises(RepositoryError, match="pack"):
        await rig.fsck(task, Execution())


async def test_fsck_of_very_much_damage_has_a_bounded_error(rig, task):
    await rig.sync(task, Execution())
    objects = [path for path in (rig.mirror / "objects").glob("??/*") if path.is_file()]
    assert len(objects) > COMMITS
    for path in objects:
        path.chmod(0o644)
        path.write_bytes(b"")
    with pytest.raises(RepositoryError) as caught:
        await rig.fsck(task, Execution())
    assert len(str(caught.value)) < LONGEST_ERROR


async def test_fsck_is_strict(rig, task):
    """A zero before a file mode is a warning of git's, and an error of ``--strict``."""
    blob = bytes.fromhex(output("-C", str(rig.clone), "rev-parse", "HEAD:file.txt"))
    writing = ("hash-object", "-w", "-t", "tree", "--literally", "--stdin")
    tree = output("-C", str(rig.origin), *writing, data=b"0100644 file.txt\0" + blob)
    git("update-ref", "refs/tags/odd", tree, cwd=rig.origin)
    await rig.sync(task, Execution())
    git("--git-dir", str(rig.mirror), "fsck")
    with pytest.raises(RepositoryError, match="zeroPaddedFilemode"):
        await rig.fsck(task, Execution())


async def test_a_damaged_mirror_that_is_removed_is_made_anew(rig, task):
    await rig.sync(task, Execution())
    rig.loose("main")[1].unlink()
    with pytest.raises(RepositoryError):
        await rig.fsck(task, Execution())
    shutil.rmtree(rig.mirror)
    await rig.sync(task, Execution())
    await rig.fsck(task, Execution())


async def test_gc_packs_and_leaves_every_ref_as_it_was(rig, task):
    await rig.sync(task, Execution())
    refs = await read_refs(rig.mirror)
    assert len(refs) == 6
    assert rig.counts()["count"] > 0
    head = (rig.mirror / "HEAD").read_text()
    for _ in range(2):
        await rig.gc(task, Execution())
        assert await read_refs(rig.mirror) == refs == await read_refs(rig.origin)
        assert (rig.counts()["count"], rig.counts()["packs"]) == (0, 1)
    assert (rig.mirror / "HEAD").read_text() == head
    await rig.fsck(task, Execution())


async def test_a_sync_after_a_gc_still_follows(rig, task):
    await rig.sync(task, Execution())
    await rig.gc(task, Execution())
    git("update-ref", "-d", "refs/heads/a/b", cwd=rig.clone)
    rig.commit("more")
    rig.push()
    await rig.sync(task, Execution())
    assert await read_refs(rig.mirror) == await read_refs(rig.origin)
    await rig.gc(task, Execution())
    assert await read_refs(rig.mirror) == await read_refs(rig.origin)


async def test_the_mark_of_a_gc_that_was_killed_does_not_stop_the_next(rig, task):
    await rig.sync(task, Execution())
    (rig.mirror / "gc.pid").write_text(f"{os.getpid()} {os.uname().nodename}")
    await rig.gc(task, Execution())
    assert rig.counts()["count"] == 0


async def test_a_gc_that_changes_a_ref_fails(rig, task, monkeypatch):
    await rig.sync(task, Execution())
    answers = iter([{"refs/heads/a": "1"}, {"refs/heads/a": "2"}])

    async def refs(_repository):
        return next(answers)

    monkeypatch.setattr("hookbench.worker.handlers.git_maintenance.read_refs", refs)
    with pytest.raises(RepositoryError, match=r"gc changed 1 refs, e\.g\. refs/heads/a"):
        await rig.gc(task, Execution())


@pytest.mark.parametrize("kind", [GitFsckHandler, GitGcHandler])
@pytest.mark.parametrize("repo_id", HOSTILE)
async def test_hostile_names_are_refused(tmp_path, make_task, kind, repo_id):
    with pytest.raises(RepositoryError, match=r"use a relative path|leads out"):
        await kind(tmp_path, SystemClock())(make_task(repo_id=repo_id), Execution())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["fsck", "gc"])
async def test_a_mirror_that_is_not_there_is_an_error_and_is_not_made(rig, task, kind):
    with pytest.raises(RepositoryError, match="no mirror yet"):
        await getattr(rig, kind)(task, Execution())
    assert list(rig.mirrors.iterdir()) == []


async def test_damage_of_the_origin_is_not_what_fsck_looks_at(rig, task):
    await rig.sync(task, Execution())
    before = await read_refs(rig.mirror)
    shutil.rmtree(rig.origin)
    await rig.fsck(task, Execution())
    await rig.gc(task, Execution())
    assert await read_refs(rig.mirror) == before != {}


WATCHED = """#!/bin/sh
# git, but for a note of each command that meets another one on a mirror
case " $* " in
  *" fetch "* | *" gc "* | *" fsck "*) ;;
  *) exec {git} "$@" ;;
esac
echo "$*" >> {folder}/commands
mkdir {folder}/busy || echo "$*" >> {folder}/met
sleep 0.02
{git} "$@"
status=$?
rmdir {folder}/busy
exit $status
"""


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """The folder in which a git of the test's own notes its commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "git"
    script.write_text(WATCHED.format(git=shutil.which("git"), folder=folder))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_sync_gc_and_fsck_of_one_mirror_never_meet(rig, task, watched):
    """On uvloop, as the worker runs."""

    async def main():
        await rig.sync(task, Execution())
        work = [rig.sync, rig.gc, rig.fsck] * 5
        random.Random(7).shuffle(work)
        for number, batch in enumerate((work[:8], work[8:])):
            rig.commit(COMMITS + number)
            rig.push()
            await asyncio.gather(*[handler(task, Execution()) for handler in batch])
        await rig.sync(task, Execution())
        return await read_refs(rig.mirror), await read_refs(rig.origin)

    found, wanted = uvloop.run(main())
    assert found == wanted
    commands = (watched / "commands").read_text().split("\n")
    assert sum(" gc " in command for command in commands) == 5
    assert not (watched / "met").exists()


async def test_a_lock_is_waited_for_within_a_bound(rig, task, monkeypatch):
    monkeypatch.setattr(git_command, "LOCK_TIMEOUT_S", 5.0)
    await rig.sync(task, Execution())
    clock = VirtualClock()
    async with hold_mirror(rig.mirror, SystemClock()):
        with pytest.raises(RepositoryError, match="locked for more than 5 s"):
            await GitGcHandler(rig.mirrors, clock)(task, Execution())


SLEEPING = """#!/bin/sh
trap 'echo ended > {folder}/ended; exit 143' TERM
touch {folder}/started
sleep {seconds} & wait $!
"""


@pytest.fixture
def sleeping(tmp_path, monkeypatch):
    """The folder of a git that sleeps, with a child of its own."""
    folder = tmp_path / "sleeping"
    folder.mkdir()
    script = folder / "git"
    script.write_text(SLEEPING.format(folder=folder, seconds=600))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


async def test_the_lock_lasts_as_long_as_git_runs(tmp_path, sleeping, monkeypatch):
    """As when a worker is killed: its descriptor is closed, git's is not."""
    monkeypatch.setattr(git_command, "LOCK_TIMEOUT_S", 5.0)
    mirror = tmp_path / "app.git"
    async with hold_mirror(mirror, SystemClock()) as lock:
        running = asyncio.ensure_future(run_git("gc", lock=lock))
        await eventually((sleeping / "started").exists)
    with pytest.raises(RepositoryError, match="locked"):
        async with hold_mirror(mirror, VirtualClock()):
            raise AssertionError("two on one mirror")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (sleeping / "ended").exists(), "git was not asked to end"
    async with hold_mirror(mirror, VirtualClock()):
        pass  # its child is gone too, else the lock would be held


async def test_git_that_takes_too_long_is_ended(sleeping):
    with pytest.raises(RepositoryError, match=r"git gc: more than 0\.3 s"):
        await run_git("gc", timeout_s=0.3)
    assert (sleeping / "ended").exists() or not (sleeping / "started").exists()


async def test_a_handler_by_type_of_task(make_task):
    seen = []

    async def gc(task, _execution):
        seen.append(task)

    handler = TypeHandler({"sync": NoopHandler(), "gc": gc})
    wanted = make_task(task_type="gc")
    await handler(make_task(task_type="sync"), Execution())
    await handler(wanted, Execution())
    assert seen == [wanted]
    with pytest.raises(RepositoryError, match=r"'repack' for repository 'a/b': .* gc, sync"):
        await handler(make_task(task_type="repack", repo_id="a/b"), Execution())


def test_the_bound_of_the_lock_lets_maintenance_end():
    assert git_command.LOCK_TIMEOUT_S > git_command.MAINTENANCE_TIMEOUT_S
