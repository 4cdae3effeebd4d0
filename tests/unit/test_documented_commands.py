"""Every command line in the documents: it is known what it is, and it is well-formed.

Each option is looked up where it is read: in the parser of the program itself. What is short is
really run, by tests/integration/test_documented_commands.py; what takes minutes, or a browser, is
checked here only.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from hookbench.cli.main import app
from tests.bench.compare import _parser as bench_parser
from tests.bench.growth.__main__ import _parser as growth_parser
from tests.bench.peers.__main__ import _parser as peers_parser
from tests.documented import COMMANDS, ROOT, Block, all_blocks, all_commands, commands_of, words_of

OTHER_LANGUAGES = ("text", "python", "toml", "yaml", "json", "html")
CLI = get_command(app)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ARGS_OF_PROGRAMS = {"bench": bench_parser, "peers": peers_parser, "growth": growth_parser}

PARSE_LOCUST = """
import json, sys
sys.path.insert(0, "loadtests")
from locust.argument_parser import get_parser
from _options import add_options
parser = get_parser()
add_options(parser)
for words in json.load(sys.stdin):
    parser.parse_args(words)
"""


# What each program takes


def leaf(words):
    """The command of hookbench that ``words`` name, and the words that are left for it."""
    command, name = CLI, "hookbench"
    while words and words[0] in getattr(command, "commands", ()):
        name, *words = words
        command = command.commands[name]
    return command, name, words


def check_hookbench(words):
    command, name, left = leaf(words)
    if left and left[0].partition("=")[0] in {
        option for item in CLI.params for option in item.opts
    } | {"--help"}:
        assert len(left) == 1
        return
    assert command is not CLI, f"no verb {words[:1]}"
    command.make_context(name, list(left))


def check_make(words):
    targets = [word for word in words if "=" not in word]
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert targets
    assert set(targets) <= set(phony)
    assert set(variables) <= {"ARGS", "PYTHON"}
    arguments = shlex.split(variables.get("ARGS", "").replace("$BASE", "main"))
    if targets[0] in ARGS_OF_PROGRAMS:
        ARGS_OF_PROGRAMS[targets[0]]().parse_args(arguments)
    elif targets[0] == "rehearse":
        check_hookbench(["rehearse", *arguments])
    elif arguments:
        assert targets[0] in ("test", "evidence", "endurance")
        option, word = arguments
        assert option == "-k"
        sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
        assert f"def test_{word}" in sources


def check_docker(words):
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    assert words[0] == "compose"
    rest = words[1:]
    while rest[:1] == ["--profile"]:
        assert rest[1] in profiles
        rest = rest[2:]
    what, *rest = rest
    assert what in ("up", "down", "run", "logs", "ps")
    while rest:
        word, *rest = rest
        if word == "--scale":
            assert rest.pop(0).partition("=")[0] in services
        elif not word.startswith("-"):
            assert word in services
            if what == "run":
                assert rest[0] == "hookbench"
                return check_hookbench(rest[1:])
        else:
            assert word in ("--build", "-d", "--rm", "--volumes")
    return None


def check_pip(words):
    assert words[0] == "install"
    for word in words[1:]:
        found = re.fullmatch(r"(?:hookbench|\.|dist/[\w.*-]+\.whl)(?:\[([a-z,]+)\])?", word)
        assert found or word == "-e", word
        if found and found[1]:
            assert set(found[1].split(",")) <= set(PROJECT["optional-dependencies"])


def check_python(words):
    assert words[0] == "-m"
    if words[1] == "pip":
        return check_pip(words[2:])
    if words[1] == "venv":
        return None
    path = ROOT.joinpath(*words[1].split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return None


def check_export(words):
    known = "".join(path.read_text() for path in (ROOT / "hookbench").rglob("*.py"))
    for word in words:
        assert f'"{word.partition("=")[0]}"' in known


def check_git(words):
    assert words[0] in ("clone", "push", "commit")


def check_pytest(words):
    assert all((ROOT / word).exists() for word in words)


def check_shell(words):
    assert words


CHECKS = {
    "hookbench": check_hookbench,
    "make": check_make,
    "docker": check_docker,
    "pip": check_pip,
    "python": check_python,
    "python3": check_python,
    ".venv/bin/pip": check_pip,
    ".venv/bin/hookbench": check_hookbench,
    ".venv/bin/pytest": check_pytest,
    "export": check_export,
    "git": check_git,
    "cd": check_shell,
    "locust": check_shell,  # all of them in one process, below
    # Tools of others: theirs is what they take.
    **dict.fromkeys(("curl", "openssl", "promtool", "redis-cli"), check_shell),
}


def classify(command):
    program, *words = command.words
    assert program in CHECKS, f"{command.place}: {program} is not known: {command.text}"
    try:
        CHECKS[program](words)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - parsers have errors of their own
        pytest.fail(f"{command.place}: {command.text}: {error}")


# The documents


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Settings of this folder and environment would be read by the parsers."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HOOKBENCH_"):
            monkeypatch.delenv(name)


def test_every_command_is_known_and_well_formed():
    commands = all_commands()
    assert len(commands) > 100, "the documents are not read"
    for command in commands:
        classify(command)


def test_every_block_has_a_language_that_is_checked():
    for block in all_blocks():
        assert block.language in (*COMMANDS, *OTHER_LANGUAGES), block.place
        text = "\n".join(block.lines)
        if block.language == "python":
            compile(text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif block.language == "toml":
            tomllib.loads(text)


def test_what_locust_is_told():
    lines = [list(command.words[1:]) for command in all_commands() if command.words[0] == "locust"]
    assert lines

    def parse(words):
        return subprocess.run(
            [sys.executable, "-c", PARSE_LOCUST], cwd=ROOT, input=json.dumps(words), text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    done = parse([*lines, ["--no-such-option"]])
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr.splitlines()[-1], "one before it was refused"


@pytest.mark.parametrize(
    "line",
    [
        "hookbench rehears --quick",
        "hookbench rehearse --quik",
        "hookbench dead show",
        "hookbench worker --concurrency many",
        "hookbench hook status|flush",
        "make rehearsal",
        'make bench ARGS="--bse main"',
        'make rehearse ARGS="--quik"',
        'make evidence ARGS="-k nosuchproof"',
        "docker compose up --scale wrker=2",
        "docker compose --profile distributed up",
        "python -m tests.evidence.no_such_table",
        "pip install 'hookbench[embeded]'",
        "export HOOKBENCH_REDIS_ULR=redis://127.0.0.1:6379",
        "wget http://127.0.0.1:8089",
    ],
)
def test_a_wrong_line_is_found(line):
    commands = commands_of(Block("a.md", 1, "", [line]))
    assert commands
    for command in commands:
        with pytest.raises((AssertionError, pytest.fail.Exception), match=r"a\.md:1"):
            classify(command)


# The verbs


def verbs(command=CLI, names=()):
    """Every verb with its names, also those that a group has beside its own work."""
    inner = getattr(command, "commands", {})
    if not inner or (names and command.invoke_without_command):
        yield names, command
    for name, item in inner.items():
        yield from verbs(item, (*names, name))


VERBS = dict(verbs())


def examples_of(command):
    """The command lines of a help text, from ``Example`` on; a paragraph is one."""
    text = (command.help or "").replace("\b", "")
    _before, _word, rest = re.split(r"(Examples?: )", text, maxsplit=1) if "Example" in text else (
        text, "", ""
    )  # fmt: skip
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", rest)]
    return [part for part in paragraphs if part.startswith("hookbench ")]


@pytest.mark.parametrize("names", VERBS, ids=" ".join)
def test_every_verb_has_an_example_that_is_its_own(names):
    found = examples_of(VERBS[names])
    assert found
    for line in found:
        words = words_of(line)[1:]
        assert tuple(words[: len(names)]) == names
        check_hookbench(words)


WITHOUT_JSON = {"acl", "proxy", "version"}
"""Rules are in the form of their broker, the proxy speaks JSON, and a version is one word."""


def test_every_verb_speaks_json():
    silent = {
        names
        for names, command in VERBS.items()
        if not any("--json" in item.opts for item in command.params)
    }
    assert {names[0] for names in silent} <= WITHOUT_JSON
    assert ("version",) in silent, "the options are not read"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("hookbench reh", {"rehearse"}), ("hookbench dead ", {"list", "show", "requeue"}),
     ("hookbench worker --ha", {"--handler"})],
)  # fmt: skip
def test_the_shell_completes(typed, expected):
    """As bash asks for it after ``hookbench --install-completion bash``."""
    words = typed.split(" ")
    environment = {
        "_HOOKBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = CliRunner().invoke(app, [], env=environment, prog_name="hookbench")
    assert set(done.stdout.split()) == expected


def test_completion_is_offered():
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
