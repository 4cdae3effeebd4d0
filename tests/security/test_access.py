"""Credentials and certificates of a URL."""

import ssl
import sys
import types

import pytest

from hookbench.errors import SettingError
from hookbench.queues.access import MAX_SECRET_BYTES, nats_access, read_secret, redis_access
from hookbench.queues.addresses import nats_nodes, redis_nodes
from hookbench.secrets import has_secret
from hookbench.settings import read_file

PASSWORD = "zq-xyzzy-2"  # noqa: S105 - of nobody


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


def test_a_plain_url_is_left_alone():
    for url in ("redis://me:secret@h:1/2", "redis+cluster://a:1,b:2", "redis://h"):
        assert redis_access(url) == (url, {})
    assert nats_access("nats://a:1") == ("nats://a:1", {})
    assert nats_access("nats://a:1,nats://b:2") == (["nats://a:1", "nats://b:2"], {})


def test_a_password_comes_from_a_file(file):
    url = f"redis://worker@h:1/2?password_file={file}&health_check_interval=3"
    assert not has_secret(url.replace("worker@", ""))
    plain, options = redis_access(url)
    assert plain == "redis://worker@h:1/2?health_check_interval=3"
    assert options == {"password": PASSWORD}
    servers, options = nats_access(f"nats://worker@a:1,b:2?password_file={file}&inbox_prefix=_I_w")
    assert servers == ["nats://a:1", "b:2"]
    assert options == {"user": "worker", "password": PASSWORD, "inbox_prefix": "_I_w"}


def test_the_nodes_of_several_share_the_options(file):
    query = f"user=worker&password_file={file}"
    plain, options = redis_access(f"redis+replica://a:1,b:2?{query}")
    assert (plain, options) == (
        "redis+replica://a:1,b:2", {"username": "worker", "password": PASSWORD}
    )  # fmt: skip
    assert redis_nodes(f"redis+cluster://a:1,b:2?{query}") == [
        f"redis://a:1?{query}", f"redis://b:2?{query}"
    ]  # fmt: skip
    assert redis_nodes("rediss+cluster://a:1") == ["rediss://a:1"]
    assert nats_nodes("tls://a:1,tls://b:2?tls_ca=c") == [
        "tls://a:1?tls_ca=c", "tls://b:2?tls_ca=c"
    ]  # fmt: skip


def test_users_and_passwords_of_nats_are_percent_decoded():
    assert nats_access("nats://me:p%40s%2Cs@a:1")[1] == {"user": "me", "password": "p@s,s"}
    assert nats_access("nats://t%2Fken@a:1")[1] == {"token": "t/ken"}


def test_redis_over_tls_checks_certificate_and_host():
    plain, options = redis_access("rediss://h:1/0")
    assert plain == "rediss://h:1/0"
    assert options == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    context = nats_access("tls://h:1")[1]["tls"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://h:1/0?tls_ca=x", "tls_ca needs rediss"),
        ("nats://h:1?tls_ca=x", "tls_ca needs rediss"),
        ("rediss://h:1/0?ssl_cert_reqs=none", "no option 'ssl_cert_reqs'"),
        ("redis://h:1/0?retry_on_timeout=1", "no option 'retry_on_timeout'"),
        ("redis+cluster://h:1?db=1", "no option 'db'"),
        ("nats://h:1?pasword_file=x", "no option 'pasword_file'"),
        ("redis://me:secret@h:1/0?password_file=/x", "a password and password_file"),
        ("redis://me@h:1/0?user=you&password_file=/x", "the user is there twice"),
        ("redis://h:1/0?password_file=", "password_file has no value"),
        ("redis://h:1/0?password_file=/x&password_file=/y", "is there twice"),
        ("redis://h:1/0?password_file=/none", "password_file /none: No such file"),
        ("nats://h:1?creds=/none", "creds /none: No such file"),
        ("nats://a:p@h:1,nats://b:q@i:2", "one user for all nodes"),
        ("nats://h:1?user=a,nats://i:2?user=b", "different options"),
        ("redis://h:1/0?password_file=%00", "password_file"),
    ],
)
def test_what_cannot_be_used_is_named(url, named):
    with pytest.raises(SettingError, match=named) as raised:
        redis_access(url) if url.startswith("redis") else nats_access(url)
    assert "secret" not in str(raised.value)


def test_without_its_package_credentials_name_the_extra(file, monkeypatch):
    url = f"nats://h:1?creds={file}"
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(SettingError, match=r"pip install 'hookbench\[creds\]'") as raised:
        nats_access(url)
    assert str(file) in str(raised.value)
    monkeypatch.setitem(sys.modules, "nkeys", types.ModuleType("nkeys"))
    assert nats_access(url) == ("nats://h:1", {"user_credentials": str(file)})


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o444])
def test_a_secret_that_everybody_may_read_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(SettingError, match=f"mode {mode:04o}.*chmod 600") as raised:
        read_secret(file, "password_file")
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_secret_may_be_read_by_its_group(file, mode):
    file.chmod(mode)
    assert read_secret(file, "password_file") == PASSWORD


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "one line"),
        (b"\n", "one line"),
        (b"a\nb\n", "one line"),
        (b"a\x00b", "one line"),
        (b"\xff\xfe", "no UTF-8"),
        (b"x" * (MAX_SECRET_BYTES + 1), "no password"),
    ],
)
def test_a_file_that_holds_no_password(file, content, named):
    file.write_bytes(content)
    with pytest.raises(SettingError, match=named):
        read_secret(file, "password_file")


def test_a_folder_and_a_device_are_no_secret(tmp_path):
    for path in (tmp_path, tmp_path / "none", "/dev/zero"):
        with pytest.raises(SettingError):
            read_secret(tmp_path / path, "password_file")


@pytest.mark.parametrize(
    ("mode", "url", "told"),
    [
        (0o644, f"redis://:{PASSWORD}@h:1", True),
        (0o640, f"redis://:{PASSWORD}@h:1", False),
        (0o644, "redis://worker@h:1", True),
        (0o644, "redis://h:1?password_file=/x", False),
    ],
)
def test_settings_with_a_password_that_everybody_may_read_are_told(
    tmp_path, caplog, mode, url, told
):
    path = tmp_path / "hookbench.toml"
    path.write_text(f'redis_url = "{url}"\n')
    path.chmod(mode)
    read_file(path)
    assert bool(caplog.records) is told
    assert ("chmod 600" in caplog.text) is told
    assert PASSWORD not in caplog.text
