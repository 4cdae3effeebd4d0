"""Real pushes into real bare repositories, with the real hook installed."""

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import msgspec
import psutil

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import RepositoryError
from hookbench.githook.config import HookConfig
from hookbench.githook.install import install_hook
from hookbench.githook.receive import flush_is_running
from hookbench.migration.spool import Spool
from hookbench.results.store import GitCheck
from hookbench.task import decode_task
from hookbench.worker.handlers.git_command import git_environment, read_refs, resolve_repository

__all__ = ["PushSettings", "Pusher", "check_mirrors"]

_PUSH_TIMEOUT_S = 60.0
_POLL_S = 0.05
_SECOND_LOOK_S = 0.1
_END_S = 2.0
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Rehearsal",
    "GIT_AUTHOR_EMAIL": "rehearsal@example.com",
    "GIT_COMMITTER_NAME": "Rehearsal",
    "GIT_COMMITTER_EMAIL": "rehearsal@example.com",
}


class PushSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the repositories lie, how many there are, and how often they are pushed to.

    Attributes:
        count: pushes in all; the same seed pushes the same changes at the same offsets.
        interval_s: between the times at which two pushes are due.
    """

    origins: Path
    clones: Path
    spool: Path
    repositories: int
    interval_s: float
    count: int
    seed: int


class Pusher:
    """Pushes commits, tags, and new, moved and deleted branches, one repository after another."""

    def __init__(self, settings: PushSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = random.Random(settings.seed)
        self._environment = {**git_environment(), **_IDENTITY}
        self.repo_ids = [f"team/project-{number}.git" for number in range(settings.repositories)]
        self.pushes = 0
        self.failures: list[str] = []
        self._stopping = False

    def request_stop(self) -> None:
        """Make no further push."""
        self._stopping = True

    async def prepare(self, hook: HookConfig) -> None:
        """Create the bare repositories with their hooks, and a clone of each.

        Args:
            hook: the settings of every hook but for the repository's id.
        """
        for repo_id in self.repo_ids:
            origin = resolve_repository(self._settings.origins, repo_id)
            origin.parent.mkdir(parents=True, exist_ok=True)
            await self._git("init", "--quiet", "--bare", "-b", "main", "--", str(origin))
            values = {name: getattr(hook, name) for name in HookConfig.__slots__}
            install_hook(origin, HookConfig(**{**values, "repo_id": repo_id}))
            clone = self._clone(repo_id)
            await self._git("clone", "--quiet", "--", str(origin), str(clone))

    def _clone(self, repo_id: str) -> Path:
        return self._settings.clones / repo_id.replace("/", "-")

    async def run(self, start_ns: int) -> None:
        """All pushes, one after another, each when it is due or as soon as it can be."""
        for number in range(self._settings.count):
            if self._stopping:
                return
            due_ns = start_ns + int(number * self._settings.interval_s * NS_PER_S)
            if (left_ns := due_ns - self._clock.monotonic_ns()) > 0:
                await self._clock.sleep(left_ns / NS_PER_S)
            await self.push(self.repo_ids[number % len(self.repo_ids)], number)

    async def push(self, repo_id: str, number: int) -> None:
        """One push; a failed one is noted, and is no task."""
        clone = self._clone(repo_id)
        try:
            await self._change(clone, number)
            await self._git(
                "-C",
                str(clone),
                "push",
                "--quiet",
                "--prune",
                "--force",
                "origin",
                "refs/heads/*:refs/heads/*",
                "refs/tags/*:refs/tags/*",
            )
        except RepositoryError as error:
            self.failures.append(str(error))
        else:
            self.pushes += 1

    async def _change(self, clone: Path, number: int) -> None:
        """A commit in any case, so that every push changes a ref; at times more."""
        (clone / "file.txt").write_text(f"push {number}\n")
        await self._git("-C", str(clone), "add", "file.txt")
        await self._git("-C", str(clone), "commit", "--quiet", "-m", f"push {number}")
        kind = self._rng.choice(("commit", "commit", "tag", "branch", "delete"))
        if kind == "tag":
            await self._git("-C", str(clone), "tag", f"v{number}")
        elif kind == "branch":
            await self._git("-C", str(clone), "branch", f"topic-{number}")
        elif kind == "delete":
            listed = await self._git(
                "-C", str(clone), "for-each-ref", "--format=%(refname:short)", "refs/heads/topic-*"
            )
            if branches := listed.split():
                await self._git("-C", str(clone), "branch", "-D", "--", self._rng.choice(branches))

    async def _git(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_PUSH_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise RepositoryError(f"git {arguments[0]}: more than {_PUSH_TIMEOUT_S} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            text = err.decode(errors="replace").strip()[-400:]
            raise RepositoryError(f"git {' '.join(arguments)}: {text}")
        return out.decode()

    async def wait_until_flushed(self, timeout_s: float) -> int:
        """Wait until the spool is empty and no flush runs; the tasks left in the spool."""
        spool_path = self._settings.spool
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        with Spool(spool_path) as spool:
            while len(spool) or flush_is_running(spool_path):
                if self._clock.monotonic_ns() > deadline_ns:
                    break
                await self._clock.sleep(_POLL_S)
            return len(spool)

    def spooled_ids(self) -> list[str]:
        """Ids of the tasks that are still in the spool."""
        if not self._settings.spool.exists():
            return []
        with Spool(self._settings.spool) as spool:
            return [str(decode_task(row.task).id) for row in spool.oldest(1_000_000)]

    async def stop_flushes(self) -> None:
        """End the flushes of these repositories' hooks that still run; no push may be under way.

        Each is found by the settings file on its command line. One that a hook had just begun when
        it was killed with its push has neither that yet nor the lock, so there is a second look.
        """
        self._kill_flushes()
        await self._clock.sleep(_SECOND_LOOK_S)
        self._kill_flushes()

    def _kill_flushes(self) -> None:
        origins = f"{self._settings.origins.resolve()}{os.sep}"
        killed = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "flush" in words and any(word.startswith(origins) for word in words):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed.append(process)
        psutil.wait_procs(killed, timeout=_END_S)


async def check_mirrors(
    origins: Path, mirrors: Path, repo_ids: list[str], *, pushes: int, tasks: int
) -> GitCheck:
    """Compare every mirror with its origin, ref for ref.

    Raises:
        RepositoryError: git failed on one of them.
    """
    equal = 0
    refs = 0
    differences: list[str] = []
    for repo_id in repo_ids:
        wanted = await read_refs(resolve_repository(origins, repo_id))
        mirror = resolve_repository(mirrors, repo_id)
        found = await read_refs(mirror) if (mirror / "HEAD").is_file() else {}
        refs += len(wanted)
        wrong = sorted(
            name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
        )
        if wrong:
            differences.append(f"{repo_id}: {len(wrong)} refs differ, e.g. {wrong[0]}")
        else:
            equal += 1
    return GitCheck(
        pushes=pushes,
        tasks=tasks,
        repositories=len(repo_ids),
        equal=equal,
        refs=refs,
        differences=differences,
    )
