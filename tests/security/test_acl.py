"""``hookbench acl``: what it prints, what it keeps, and what it never shows."""

import hashlib
import json
import stat
import subprocess
import sys

import bcrypt
import pytest

from hookbench.acl.nats_rules import permissions_of
from hookbench.acl.passwords import make_passwords, password_file
from hookbench.acl.redis_rules import grants_of
from hookbench.acl.roles import Role, Scope
from hookbench.errors import SettingError
from hookbench.queues.reading import READ_COMMANDS, is_reading_subject


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", "acl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_passwords_are_for_their_owner_and_not_replaced(tmp_path):
    folder = tmp_path / "secrets"
    files = make_passwords(folder, list(Role))
    before = [path.read_text() for path in files]
    assert len(set(before)) == len(files) == 2 * len(Role)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(SettingError, match="is there already"):
        make_passwords(folder, [Role.GATE])
    assert [path.read_text() for path in files] == before
    make_passwords(folder, [Role.GATE], force=True)
    changed = [
        path.name for path, old in zip(files, before, strict=True) if path.read_text() != old
    ]
    assert changed == ["redis-gate", "nats-gate"]


def test_a_link_in_the_place_of_a_password_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    link = tmp_path / "redis-gate"
    link.symlink_to(target)
    make_passwords(tmp_path, [Role.GATE], force=True)
    assert target.read_text() == "mine"
    assert not link.is_symlink()


def test_rules_have_hashes_and_no_password(tmp_path):
    make_passwords(tmp_path, list(Role))
    passwords = {path.name: path.read_text().strip() for path in tmp_path.iterdir()}
    printed = ""
    for arguments in (("redis",), ("redis", "--commands"), ("nats",)):
        code, out, err = run(*arguments, "--passwords", str(tmp_path), "--role", "worker")
        assert (code, err) == (0, "")
        printed += out
    code, out, err = run("nats", "--passwords", str(tmp_path), "--role", "gate", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    assert bcrypt.checkpw(passwords["nats-gate"].encode(), row["password"].encode())
    assert str(password_file(tmp_path, "nats", Role.GATE)) in row["url"]
    assert not any(secret in printed + out for secret in passwords.values())
    assert hashlib.sha256(passwords["redis-worker"].encode()).hexdigest() in printed


def test_without_passwords_there_is_a_placeholder_that_no_broker_takes():
    _, out, _ = run("redis", "--role", "gate")
    assert out.startswith("user gate on #SHA256-OF-THE-PASSWORD resetkeys")
    _, out, _ = run("nats", "--role", "gate")
    assert "password: $HOOKBENCH_GATE_BCRYPT" in out


def test_names_are_those_of_the_queue():
    _, out, _ = run("redis", "--prefix", "{mail}", "--task-type", "send", "--role", "producer")
    assert "{mail}:send" in out
    assert "{hook}" not in out
    _, out, _ = run("nats", "--stream", "MAIL", "--subject-root", "queue.mail", "--role=producer")
    assert '"$JS.API.STREAM.CREATE.MAIL"' in out
    assert "HOOK" not in out.replace("HOOKBENCH", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ("redis", "--role", "boss"),
            "--role 'boss': use one of producer, worker, gate, operator, harness",
        ),
        (("redis", "--prefix", "a b"), "prefix 'a b'"),
        (("redis", "--task-type", "a b"), "task type 'a b'"),
        (("nats", "--passwords", "/none"), "No such file"),
    ],
)
def test_what_cannot_be_used_is_named(arguments, named):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert named in err


def test_the_gate_may_do_what_its_connections_let_pass():
    first, keys = grants_of(Role.GATE, Scope())
    assert {command.upper() for command in (*first.commands, *keys.commands)} >= READ_COMMANDS
    assert {command.upper() for command in keys.commands} <= READ_COMMANDS
    assert keys.access == "%R~"
    assert all(map(is_reading_subject, permissions_of(Role.GATE, Scope()).publish))


def test_overwriting_is_granted_where_replicas_are_waited_for_alone():
    def commands(replicated):
        grants = grants_of(Role.PRODUCER, Scope(replicated=replicated))
        return {command for grant in grants for command in grant.commands}

    assert commands(replicated=True) - commands(replicated=False) == {"lset", "wait"}
