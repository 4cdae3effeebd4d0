"""A rehearsal as the role ``harness``, with passwords in its URLs: nobody else gets to see them."""

import json
import subprocess
import sys

import psutil
import pytest

from hookbench.acl.roles import Role, inbox_prefix
from hookbench.rehearsal.fleet import without_urls
from hookbench.results.store import MANIFEST_NAME

ARGUMENTS = (
    "rehearse", "--phases=0,3", "--phase-seconds=1", "--rate=40", "--producers=1", "--workers=1",
    "--repositories=1", "--design=hardened", "--json",
)  # fmt: skip


def command_lines(process):
    found = set()
    for child in [process, *process.children(recursive=True)]:
        try:
            found.add(" ".join(child.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.timeout(150)
def test_a_rehearsal_shows_no_password_and_needs_no_more_than_its_role(scope_of, tmp_path):
    guarded = scope_of()
    redis, nats = (
        guarded.file(broker, Role.HARNESS).read_text().strip() for broker in ("redis", "nats")
    )
    environment = guarded.environment(Role.HARNESS) | {
        "HOOKBENCH_REDIS_URL": f"redis://harness:{redis}@127.0.0.1:{guarded.redis.port}/0",
        "HOOKBENCH_NATS_URL": f"nats://harness:{nats}@127.0.0.1:{guarded.nats.port}"
        f"?inbox_prefix={inbox_prefix(Role.HARNESS)}",
    }
    output = tmp_path / "output"
    seen = set()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "hookbench", *ARGUMENTS, f"--out={tmp_path / 'results'}"],
            env=environment,
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                seen |= command_lines(watched)
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
    # A busy machine makes the load late and the verdict unknown; a refusal would say so.
    (manifest,) = (tmp_path / "results").glob(f"0*/{MANIFEST_NAME}")
    unknown = json.loads(manifest.read_bytes()).get("unknown_because", [])
    assert process.returncode in (0, 1, 3), output.read_text()[-2000:]
    assert [text for text in unknown if "ermission" in text or "not answer" in text] == []
    assert any(" hookbench worker " in line for line in seen)
    assert any(" hookbench produce " in line for line in seen)
    for secret in (redis, nats):
        assert not [line for line in seen if secret in line]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 5
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert guarded.refusals() == []


def test_urls_are_taken_from_a_command_line():
    shown, urls = without_urls(
        ["--measures=none", "--redis-url", "redis://a", "--nats-url=nats://b?c=d", "--json"]
    )
    assert shown == ["--measures=none", "--json"]
    assert urls == {"HOOKBENCH_REDIS_URL": "redis://a", "HOOKBENCH_NATS_URL": "nats://b?c=d"}
