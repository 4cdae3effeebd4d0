"""Repositories, refs, hooks and settings that mean harm, with the real git."""

import os

import pytest

from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution
from hookbench.errors import RepositoryError, SpoolError
from hookbench.githook.config import CONFIG_NAME, HookConfig, read_config, write_config
from hookbench.githook.receive import task_json
from hookbench.migration.spool import Spool
from hookbench.task import decode_task
from hookbench.worker.handlers.git import GitMirrorHandler
from hookbench.worker.handlers.git_command import read_refs, resolve_repository
from hookbench.worker.handlers.git_maintenance import GitFsckHandler, GitGcHandler
from tests.unit.test_git_handler import git, push

NAMES = [
    "", "-", "--upload-pack=touch x", "-oProxyCommand=x/y", "a/-b", "../a", "a/..", "/", "//a",
    "a/./b", "a\tb", "a\r\nb", "a\x00", "\x00", "a\x1b[31m", "a\u202egit.b", "a\u2028b",
    "\ufeffa", "a\u2215b", "\uff0e\uff0e/a", "%2e%2e/a", "a'b", 'a"b', "a$(id)", "a`id`", "a|b",
    "a>b", "a&b", "a*", "a?", "~root", "C:\\a", "con:", "a" * 201, "/".join(["a"] * 9),
    "file:///etc", "ext::sh", "ssh:a", ".git", ".a.lock",
]  # fmt: skip

REFS = [
    "refs/heads/--upload-pack=x", "refs/heads/-oProxyCommand=x", "refs/heads/$(touch${IFS}mark)",
    "refs/heads/a;touch", "refs/heads/a`id`", "refs/heads/\u202egnp.exe", "refs/heads/a\u2028b",
    "refs/heads/a\u0085b", "refs/tags/'\"", "refs/heads/" + "x" * 200, "refs/notes/|id",
]  # fmt: skip


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


@pytest.fixture
def site(tmp_path, mark):
    """A repository with one commit, where its mirrors are, and a program that leaves a mark."""
    origins, mirrors, clone = tmp_path / "origins", tmp_path / "mirrors", tmp_path / "clone"
    mirrors.mkdir()
    origin = origins / "app.git"
    git("init", "--bare", "-b", "main", str(origin))
    git("clone", str(origin), str(clone))
    push(clone, "main")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    program.chmod(0o755)
    return origins, mirrors, clone, program


async def sync(site, make_task, repo_id="app.git"):
    origins, mirrors, *_rest = site
    await GitMirrorHandler(origins, mirrors, SystemClock())(make_task(repo_id=repo_id), Execution())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(RepositoryError):
        resolve_repository(tmp_path, name)


def test_the_longest_name_can_be_locked(tmp_path):
    name = "a" * 200
    assert resolve_repository(tmp_path, name).name == name
    (tmp_path / f".{name}.lock").touch()


async def test_links_lead_nowhere(site, make_task, tmp_path):
    origins, mirrors, *_rest = site
    (tmp_path / "outside").mkdir()
    (origins / "loop").symlink_to("loop")
    (origins / "out").symlink_to(tmp_path / "outside")
    for name in ("loop", "loop/a", "out", "out/a"):
        with pytest.raises(RepositoryError):
            await sync(site, make_task, name)
    (mirrors / "app.git").symlink_to(tmp_path / "outside")
    with pytest.raises(RepositoryError, match="leads out"):
        await sync(site, make_task)
    assert list((tmp_path / "outside").iterdir()) == []


async def test_hostile_refs_are_names_and_nothing_else(site, make_task, mark, monkeypatch):
    origins, mirrors, _clone, _program = site
    origin, mirror = origins / "app.git", mirrors / "app.git"
    commit = next(iter((await read_refs(origin)).values()))
    for ref in REFS:
        git("update-ref", ref, commit, cwd=origin)
    git("update-ref", os.fsdecode(b"refs/heads/\xff\xfe"), commit, cwd=origin)
    monkeypatch.chdir(mark.parent)
    await sync(site, make_task)
    task = make_task(repo_id="app.git")
    await GitFsckHandler(mirrors, SystemClock())(task, Execution())
    await GitGcHandler(mirrors, SystemClock())(task, Execution())
    wanted = await read_refs(origin)
    assert set(REFS) <= wanted.keys()
    assert len(wanted) == len(REFS) + 2
    assert await read_refs(mirror) == wanted
    assert not mark.exists()


async def test_no_hook_and_no_program_of_a_repository_is_run(site, make_task, mark):
    origins, mirrors, clone, program = site
    await sync(site, make_task)
    push(clone, "main")
    hooks = ("post-update", "reference-transaction", "pre-auto-gc", "post-checkout", "post-merge")
    for repository in (origins / "app.git", mirrors / "app.git"):
        for hook in hooks:
            path = repository / "hooks" / hook
            path.parent.mkdir(exist_ok=True)
            path.write_text(program.read_text())
            path.chmod(0o755)
    for repository in (origins / "app.git", mirrors / "app.git"):
        for key in (
            "core.hooksPath", "uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand",
            "core.gitProxy", "core.pager", "core.editor", "gpg.program", "credential.helper",
        ):  # fmt: skip
            value = program.parent if key == "core.hooksPath" else program
            git("config", key, str(value), cwd=repository)
    await sync(site, make_task)
    task = make_task(repo_id="app.git")
    await GitFsckHandler(mirrors, SystemClock())(task, Execution())
    await GitGcHandler(mirrors, SystemClock())(task, Execution())
    assert not mark.exists()
    assert await read_refs(mirrors / "app.git") == await read_refs(origins / "app.git")


async def test_a_repository_that_lacks_objects_fetches_them_from_nowhere(site, make_task, mark):
    origins, mirrors, _clone, program = site
    origin = origins / "app.git"
    for key, value in (
        ("core.repositoryFormatVersion", "1"), ("extensions.partialClone", "else"),
        ("remote.else.promisor", "true"), ("remote.else.url", str(origin)),
        ("remote.else.uploadpack", str(program)),
    ):  # fmt: skip
        git("config", key, value, cwd=origin)
    for path in sorted((origin / "objects").glob("??/*")):
        path.unlink()
    with pytest.raises(RepositoryError):
        await sync(site, make_task)
    assert not mark.exists()
    del mirrors


async def test_submodules_are_not_looked_at(site, make_task, mark):
    _origins, _mirrors, clone, program = site
    (clone / ".gitmodules").write_text(
        f'[submodule "a"]\n\tpath = a\n\turl = ext::{program}\n\tupdate = !{program}\n'
    )
    git("add", ".gitmodules", cwd=clone)
    push(clone, "main")
    await sync(site, make_task)
    assert not mark.exists()


async def test_the_environment_of_the_worker_is_not_gits(site, make_task, mark, monkeypatch):
    _origins, _mirrors, _clone, program = site
    for name, value in {
        "GIT_DIR": str(mark.parent), "GIT_WORK_TREE": "/", "GIT_SSH_COMMAND": str(program),
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "uploadpack.packObjectsHook",
        "GIT_CONFIG_VALUE_0": str(program), "GIT_TEMPLATE_DIR": str(mark.parent),
        "GIT_TRACE": str(mark), "GIT_PROXY_COMMAND": str(program), "GIT_ASKPASS": str(program),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    await sync(site, make_task)
    assert not mark.exists()


def test_a_spool_that_is_a_link_is_refused(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "spool.sqlite").symlink_to(target)
    with pytest.raises(SpoolError, match="it is a link"):
        Spool(tmp_path / "spool.sqlite")
    assert target.read_text() == "mine"


def test_settings_of_a_hook_do_not_follow_a_link(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / f".{CONFIG_NAME}.{os.getpid()}").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        write_config(tmp_path, HookConfig(repo_id="a", spool="s"))
    assert target.read_text() == "mine"
    (tmp_path / f".{CONFIG_NAME}.{os.getpid()}").unlink()
    (tmp_path / CONFIG_NAME).symlink_to(target)
    path = write_config(tmp_path, HookConfig(repo_id="a", spool="s"))
    assert (target.read_text(), read_config(path).repo_id) == ("mine", "a")


def test_a_push_of_hostile_refs_is_a_task(clock):
    lines = [f"{'0' * 40} {'1' * 40} {ref}" for ref in REFS]
    _id, data = task_json(HookConfig(repo_id="app.git", spool="s"), lines, clock)
    assert [item["ref"] for item in decode_task(data).payload["refs"]] == REFS
