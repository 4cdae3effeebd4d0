import os
import subprocess

import pytest

from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution
from hookbench.errors import RepositoryError
from hookbench.worker.handlers.git import GitMirrorHandler
from hookbench.worker.handlers.git_command import read_refs, resolve_repository

HOSTILE = [
    "--upload-pack=x",
    "-c",
    "a/--upload-pack=x",
    "..",
    "../other",
    "a/../../b",
    "/etc",
    "a//b",
    "a/",
    ".",
    "./a",
    ".git",
    "file:///tmp/a",
    "ext::sh -c id",
    "ssh://host/a",
    "host:a",
    "a b",
    "a\nb",
    "a\x00b",
    "a;id",
    "$(id)",
    "a\\b",
    "/".join(["a"] * 9),
    "ä",
]


def git(*arguments, cwd=None):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.devnull,
        "GIT_AUTHOR_NAME": "T",
        "GIT_AUTHOR_EMAIL": "t@example.com",
        "GIT_COMMITTER_NAME": "T",
        "GIT_COMMITTER_EMAIL": "t@example.com",
    }
    subprocess.run(["git", *arguments], cwd=cwd, env=environment, check=True, capture_output=True)


@pytest.fixture
def roots(tmp_path):
    origins, mirrors, clone = tmp_path / "origins", tmp_path / "mirrors", tmp_path / "clone"
    mirrors.mkdir()
    git("init", "--bare", "-b", "main", str(origins / "team/app.git"))
    git("clone", str(origins / "team/app.git"), str(clone))
    return origins, mirrors, clone


def push(clone, *names):
    git("commit", "--allow-empty", "-m", "change", cwd=clone)
    git("push", "--force", "--prune", "origin", *names, cwd=clone)


@pytest.mark.parametrize("repo_id", HOSTILE)
def test_names_that_could_be_anything_else_are_refused(tmp_path, repo_id):
    with pytest.raises(RepositoryError):
        resolve_repository(tmp_path, repo_id)


@pytest.mark.parametrize("repo_id", ["app.git", "team/app.git", "a_b/c+d/e-f.git", "0/1"])
def test_ordinary_names_are_below_the_root(tmp_path, repo_id):
    assert resolve_repository(tmp_path, repo_id) == tmp_path.resolve() / repo_id


def test_a_symlink_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(RepositoryError, match="leads out"):
        resolve_repository(tmp_path / "root", "link")


async def test_the_mirror_follows_the_origin_ref_for_ref(roots, make_task):
    origins, mirrors, clone = roots
    handler = GitMirrorHandler(origins, mirrors, SystemClock())
    task = make_task(repo_id="team/app.git")
    all_refs = ("refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
    push(clone, *all_refs)
    await handler(task, Execution())
    git("branch", "topic", cwd=clone)
    git("tag", "v1", cwd=clone)
    push(clone, *all_refs)
    await handler(task, Execution())
    wanted = await read_refs(origins / "team/app.git")
    assert set(wanted) == {"refs/heads/main", "refs/heads/topic", "refs/tags/v1"}
    assert await read_refs(mirrors / "team/app.git") == wanted
    git("branch", "-D", "topic", cwd=clone)
    git("commit", "--amend", "--allow-empty", "-m", "rewritten", cwd=clone)
    push(clone, *all_refs)
    await handler(task, Execution())
    await handler(task, Execution())
    wanted = await read_refs(origins / "team/app.git")
    assert set(wanted) == {"refs/heads/main", "refs/tags/v1"}
    assert await read_refs(mirrors / "team/app.git") == wanted


async def test_a_repository_that_is_not_there_is_an_error(roots, make_task):
    origins, mirrors, _clone = roots
    handler = GitMirrorHandler(origins, mirrors, SystemClock())
    with pytest.raises(RepositoryError, match="no bare repository"):
        await handler(make_task(repo_id="team/other.git"), Execution())
    assert not (mirrors / "team").exists()


async def test_a_hostile_payload_is_not_used(roots, make_task, tmp_path):
    origins, mirrors, clone = roots
    push(clone, "main")
    handler = GitMirrorHandler(origins, mirrors, SystemClock())
    mark = tmp_path / "mark"
    hostile = f"--upload-pack=touch {mark}"
    await handler(
        make_task(repo_id="team/app.git", payload={"refs": [{"ref": hostile}]}), Execution()
    )
    assert not mark.exists()
    assert await read_refs(mirrors / "team/app.git") == await read_refs(origins / "team/app.git")


async def test_a_mirror_that_is_busy_is_waited_for(roots, make_task):
    import asyncio  # noqa: PLC0415

    origins, mirrors, clone = roots
    push(clone, "main")
    handler = GitMirrorHandler(origins, mirrors, SystemClock())
    await asyncio.gather(
        *[handler(make_task(repo_id="team/app.git"), Execution()) for _ in range(6)]
    )
    assert await read_refs(mirrors / "team/app.git") == await read_refs(origins / "team/app.git")
