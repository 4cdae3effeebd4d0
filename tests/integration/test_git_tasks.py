"""Tasks of each type on a real worker with the git handler, through Redis."""

import subprocess

import pytest

from hookbench.migration.phases import Phase
from hookbench.worker.handlers.git_command import read_refs
from tests.conftest import eventually
from tests.integration.test_worker_process import done_of, send

REPO = "team/app.git"


def git(*arguments):
    subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def roots(tmp_path):
    origins, mirrors = tmp_path / "origins", tmp_path / "mirrors"
    mirrors.mkdir()
    git("init", "--bare", "-b", "main", origins / REPO)
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.com")
    git("init", "-b", "main", tmp_path / "clone")
    git("-C", tmp_path / "clone", *identity, "commit", "--allow-empty", "-m", "change")
    git("-C", tmp_path / "clone", "push", origins / REPO, "main")
    return origins, mirrors


async def test_sync_then_fsck_then_gc(fleet, make_task, clock, roots, redis_client):
    origins, mirrors = roots
    for number, kind in enumerate(("sync", "fsck", "gc"), start=1):
        await send(fleet, Phase.REDIS_ONLY, clock, [make_task(repo_id=REPO, task_type=kind)])
        worker = fleet.worker(
            "--phase=0",
            "--handler=git",
            f"--origins={origins}",
            f"--mirrors={mirrors}",
            f"--task-type={kind}",
            writer=number,
        )
        await eventually(lambda n=number: len(done_of(fleet)) == n, timeout_s=30, what=kind)
        assert worker.stop() == 0
        assert await redis_client.llen(fleet.names.dead_key(kind)) == 0
    assert list((mirrors / REPO / "objects" / "pack").glob("*.pack"))
    assert await read_refs(mirrors / REPO) == await read_refs(origins / REPO)
