"""Settings: options over environment over a file, with their origins, and no secret shown."""

import inspect
import json
import logging
import re
import subprocess
import sys
import typing
from dataclasses import fields
from pathlib import Path

import pytest

from hookbench.cli.gate import gate
from hookbench.cli.migrate import migrate
from hookbench.cli.produce import produce
from hookbench.cli.watch import watch
from hookbench.cli.worker import worker
from hookbench.errors import SettingError
from hookbench.secrets import MaskingFormatter, redact
from hookbench.settings import DEFAULT_ORIGIN, TABLES, Settings, find_settings, shown

VERBS = {"worker": worker, "produce": produce, "gate": gate, "migrate": migrate, "watch": watch}
NOT_SETTINGS = {"json", "config", "verbose", "execute", "back"}
PASSWORD = "zq/xyzzy@2"  # noqa: S105 - as somebody writes it who does not percent-encode it


def options_of(verb):
    """The options of a verb that are settings: name, type and default."""
    hints = typing.get_type_hints(VERBS[verb], include_extras=True)
    found = {}
    for name, item in inspect.signature(VERBS[verb]).parameters.items():
        kind, *more = typing.get_args(hints[name])
        described = more[0]
        if type(described).__name__ == "ArgumentInfo" or described.hidden or name in NOT_SETTINGS:
            continue
        found[name] = (kind, item.default)
    return found


@pytest.mark.parametrize("verb", list(TABLES))
def test_the_settings_of_a_verb_are_its_options(verb):
    hints = typing.get_type_hints(TABLES[verb])
    table = {item.name: (hints[item.name], item.default) for item in fields(TABLES[verb])}
    assert table == options_of(verb)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "site.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_the_environment_is_over_the_file_and_a_table_over_what_is_shared(file):
    path = file('max_age = 60\nstream = "A"\n[worker]\nmax_age = 7.5\nconcurrency = 3\n')
    env = {"HOOKBENCH_STREAM": "B", "HOOKBENCH_WORKER_CONCURRENCY": "9", "HOME": "/"}
    found = find_settings(path, env=env)
    assert found["worker"]["max_age"].value == 7.5
    assert found["worker"]["max_age"].origin == f"{path} [worker] max_age"
    assert (found["produce"]["max_age"].value, found["produce"]["stream"].value) == (60.0, "B")
    assert found["worker"]["stream"].origin == "HOOKBENCH_STREAM"
    assert found["worker"]["concurrency"].value == 9
    assert found["worker"]["lease"] == type(found["worker"]["lease"])(
        value=10.0, origin=DEFAULT_ORIGIN
    )
    assert found[""]["stream"].value == "B"


def test_an_empty_variable_is_none(file):
    path = file('redis_url = "redis://a"\n')
    assert (
        find_settings(path, env={"HOOKBENCH_REDIS_URL": ""})[""]["redis_url"].value == "redis://a"
    )


def test_the_file_is_named_by_a_variable(file):
    path = file("replicas = 3\n")
    assert find_settings(env={"HOOKBENCH_CONFIG": str(path)})["gate"]["replicas"].value == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('redis_ulr = "x"', "redis_ulr: there is no such key; the nearest is redis_url"),
        ("[worker]\nconcurency = 3", r"\[worker\] concurency: .* nearest is concurrency"),
        ("[workr]\nlease = 3", "workr: there is no such key; the nearest is worker"),
        ("[produce]\nlease = 3", r"\[produce\] lease: there is no such key"),
        ('[worker]\nconcurrency = "3"', "Expected `int`, got `str`"),
        ("redis_url = 5", "redis_url: Expected `str | null`, got `int`"),
        ("worker = 5", r"worker is a table: write \[worker\]"),
        ("[worker]\norigins = 3", "a path is wanted"),
        ("a = [", "line|end of document"),
    ],
)
def test_what_a_file_must_not_say(file, text, message):
    with pytest.raises(SettingError, match=message):
        find_settings(file(text), env={})


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"HOOKBENCH_REDIS_ULR": "x"}, "the nearest is HOOKBENCH_REDIS_URL"),
        ({"HOOKBENCH_WORKER_CONCURRENCY": "many"}, "Expected `int`"),
        ({"HOOKBENCH_CONFIG": "/nowhere.toml"}, "No such file"),
    ],
)
def test_what_a_variable_must_not_say(env, message):
    with pytest.raises(SettingError, match=message):
        find_settings(env=env)


def test_variables_of_others_are_let_be():
    env = {"HOOKBENCH_CHROMIUM": "/x", "HOOKBENCH_LOCUST_PART": "1", "HOOK": "y"}
    assert find_settings(env=env)["worker"]["lease"].origin == DEFAULT_ORIGIN


def test_every_setting_can_be_shown():
    for table in find_settings(env={}).values():
        for key, found in table.items():
            json.dumps(shown(key, found.value))
    assert {item.name for item in fields(Settings)} >= set(TABLES)


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{PASSWORD}@host:6379/0 does not answer",
        f"nats://me:{PASSWORD}@a:4222,nats://me:{PASSWORD}@b:4222",
        f"nats://a:4222,me:{PASSWORD}@b:4222",
        "nats://zq-xyzzy-2@a:4222",
        "redis://host/0?password=xyzzy&db=1",
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(text):
    hidden = redact(text)
    assert "xyzzy" not in hidden
    assert "***" in hidden
    assert redact(hidden) == hidden


def test_what_is_no_secret_stays():
    for text in ("redis+cluster://a:1,b:2", "ask me@example.org", "nats://a:4222, see b@c"):
        assert redact(text) == text


def test_a_log_shows_no_secret():
    try:
        raise ValueError(f"redis://:{PASSWORD}@h")
    except ValueError:
        record = logging.LogRecord("a", 40, "f", 1, "no answer", (), sys.exc_info())
    line = MaskingFormatter("%(message)s").format(record)
    assert "ValueError" in line
    assert "xyzzy" not in line


def command(*arguments, cwd, **env):
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path)), **env},
    )
    return done.returncode, done.stdout, done.stderr


def test_show_has_the_origin_of_each_value(file, tmp_path):
    path = file(f'nats_url = "nats://me:{PASSWORD}@a:4222"\n[worker]\nlease = 4\n')
    code, out, err = command(
        "config", "show", "worker", "--config", str(path), "--concurrency", "32", "--json",
        cwd=tmp_path, HOOKBENCH_REDIS_URL=f"redis://:{PASSWORD}@h:1",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "xyzzy" not in out
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(out)}
    assert rows["concurrency"] == (32, "option")
    assert rows["redis_url"] == ("redis://***@h:1", "HOOKBENCH_REDIS_URL")
    assert rows["nats_url"] == ("nats://***@a:4222", f"{path} nats_url")
    assert rows["lease"] == (4.0, f"{path} [worker] lease")
    assert rows["ack_wait"] == (30.0, "default")
    code, out, err = command("config", "show", "--changed", "--config", str(path), cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "[worker]\n" in out
    assert "4.0" in out
    assert "concurrency" not in out


def test_a_verb_takes_what_the_file_says(tmp_path):
    (tmp_path / "hookbench.toml").write_text('[worker]\nhandler = "dance"\nphase = "0"\n')
    code, _out, err = command("worker", cwd=tmp_path)
    assert (code, err) == (2, "hookbench: --handler 'dance': use one of noop, sleep, fail, git\n")
    (tmp_path / "hookbench.toml").write_text("[worker]\nconcurrency = 0\n")
    code, _out, err = command("worker", cwd=tmp_path)
    assert code == 2
    assert err == (
        "hookbench: Invalid value for '--concurrency': 0 is not in the range 1<=x<=10000;"
        " see python -m hookbench worker --help\n"
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ("gate", "1", "2", "--sample=3"),
            "3 is not in the range x>=10; see python -m hookbench",
        ),
        (("gtae",), "No such command 'gtae'. Did you mean 'gate', 'trace'?; see python -m"),
        (("phase", "set", "nats:a"), "Missing argument 'phase'; see python -m hookbench phase set"),
        (("gate", "1", "2", "--sampel=3"), "--sampel"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, named, tmp_path):
    code, out, err = command(*words, cwd=tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("hookbench: ")
    assert named in err


@pytest.mark.parametrize(
    "words",
    [
        ("phase", "show", "redis:a"),
        ("dead", "list"),
        ("migrate", "0", "1", "--producers=redis:a", "--workers=redis:b", "--nats=nats://a"),
    ],
)
def test_a_redis_that_is_away_is_named_with_what_to_do(words, tmp_path):
    url = "redis://127.0.0.1:1"
    code, _out, err = command(*words, cwd=tmp_path, HOOKBENCH_REDIS_URL=url)
    assert (code, err.count("\n")) == (2, 1)
    assert f"Redis at {url} does not answer" in err
    assert "--redis-url" in err


def test_a_group_without_a_verb_shows_its_help(tmp_path):
    code, out, err = command("phase", cwd=tmp_path)
    assert code == 2
    assert "Commands:" in out + err
    assert "hookbench: " not in out + err


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "--phase=0", f"--redis-url=redis://:{PASSWORD}@127.0.0.1:1"),
        ("worker", "--phase=4", f"--nats-url=nats://me:{PASSWORD}@127.0.0.1:1"),
        ("gate", "dual_write", "dual_read", f"--nats-url=nats://xyzzy:{PASSWORD}@["),
        ("scan", f"--nats-url=nats://me:{PASSWORD}@127.0.0.1:1"),
        ("worker", f"redis://:{PASSWORD}@127.0.0.1:1"),
        ("worker", f"--concurrency=redis://:{PASSWORD}@127.0.0.1:1"),
        ("config", "show", f"redis://:{PASSWORD}@127.0.0.1:1"),
    ],
)
def test_no_error_shows_a_secret(arguments, tmp_path):
    code, out, err = command(*arguments, cwd=tmp_path)
    assert code in (2, 3), err
    assert "xyzzy" not in out + err


def test_variables_that_the_tests_read_are_no_misspelt_settings():
    """They stand in the environment of every process that a test starts."""
    tests = Path(__file__).resolve().parents[1]
    read = {
        name
        for path in tests.rglob("*.py")
        for name in re.findall(r"environ(?:\.get)?[(\[]\"(HOOKBENCH_\w+)\"", path.read_text())
    }
    assert len(read) > 4
    find_settings(env=dict.fromkeys(read, "1"))
