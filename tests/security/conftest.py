"""Brokers whose users are the roles, and brokers behind certificates of a CA of the test's own."""

import contextlib
import os

import pytest
import redis
import trustme

from hookbench.acl.nats_rules import authorization
from hookbench.acl.passwords import bcrypt_of, make_passwords, password_file, sha256_of
from hookbench.acl.redis_rules import setuser_command
from hookbench.acl.roles import Role, Scope, inbox_prefix
from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.queues.redis_kind import RedisKind

ADMIN = "an-administrator"
ADMIN_PASSWORD = "of-the-test-alone"  # noqa: S105 - of a broker that this test starts and stops


class Guarded:
    """Both brokers, with a user for each role and one for the test itself."""

    def __init__(self, folder):
        self.passwords = folder / "passwords"
        make_passwords(self.passwords, list(Role))
        self.scope = Scope()
        self.redis = start_redis(resolve_redis(env={"PATH": ""}), folder, Durability.MEMORY)
        hashes = [(role, bcrypt_of(self.file("nats", role))) for role in Role]
        block = authorization(self.scope, hashes).replace(
            "  users = [", f"  users = [\n    {{ user: {ADMIN}, password: {ADMIN_PASSWORD} }}"
        )
        self.nats = start_nats(
            resolve_nats(env={"PATH": ""}), folder, Durability.LAZY, more=[block]
        )
        with contextlib.closing(redis.Redis(port=self.redis.port)) as admin:
            admin.execute_command(f"ACL SETUSER {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all")
        self.admin = redis.Redis(
            port=self.redis.port, username=ADMIN, password=ADMIN_PASSWORD, decode_responses=True
        )
        self.use(self.scope)
        self.admin.execute_command("ACL SETUSER default off")

    def use(self, scope):
        """The roles as this scope has them; on NATS they are the same in all."""
        for role in Role:
            secret = sha256_of(self.file("redis", role))
            self.admin.execute_command(setuser_command(role, scope, secret))

    def file(self, broker, role):
        return password_file(self.passwords, broker, role)

    def secrets(self):
        return [path.read_text().strip() for path in sorted(self.passwords.iterdir())]

    def redis_url(self, role):
        return (
            f"redis://{role}@127.0.0.1:{self.redis.port}/0?password_file={self.file('redis', role)}"
        )

    def nats_url(self, role):
        return (
            f"nats://{role}@127.0.0.1:{self.nats.port}?password_file={self.file('nats', role)}"
            f"&inbox_prefix={inbox_prefix(role)}"
        )

    @property
    def admin_nats_url(self):
        return f"nats://{ADMIN}:{ADMIN_PASSWORD}@127.0.0.1:{self.nats.port}"

    def environment(self, role):
        return os.environ | {
            "HOOKBENCH_REDIS_URL": self.redis_url(role),
            "HOOKBENCH_NATS_URL": self.nats_url(role),
        }

    def refusals(self):
        """What either broker refused since the last call."""
        found = [
            f"{entry['username']}: {entry['object']} ({entry['reason']})"
            for entry in self.admin.acl_log()
        ]
        self.admin.acl_log_reset()
        lines = self.nats.log.read_text(errors="replace").splitlines()
        found += [line for line in lines if "Violation" in line]
        self.nats.log.write_text("")
        return found

    def stop(self):
        self.admin.close()
        self.redis.stop()
        self.nats.stop()


@pytest.fixture(scope="package")
def guarded(tmp_path_factory):
    brokers = Guarded(tmp_path_factory.mktemp("guarded"))
    yield brokers
    brokers.stop()


@pytest.fixture
def scope_of(guarded):
    """The brokers without data, and the roles of a kind of queue on Redis."""

    def use(kind=RedisKind.LIST):
        guarded.admin.flushall()
        guarded.use(Scope(redis_kind=kind))
        guarded.refusals()
        return guarded

    return use


class Authority:
    """A CA, and certificates of it in files."""

    def __init__(self, folder):
        self._folder = folder
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def certificate(self, name):
        """Of a host, or of an address: a file that holds it with its key, for its owner alone."""
        issued = self._ca.issue_cert(name, key_type=trustme.KeyType.ECDSA)
        path = self._folder / f"{name}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(path)
        path.chmod(0o600)
        return path


@pytest.fixture(scope="package")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="package")
def stranger(tmp_path_factory):
    """A CA that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))
