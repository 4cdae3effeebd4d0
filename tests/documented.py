"""What the documents say to type: every fenced block of every page, and the commands in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = ("", "console", "sh")
"""Languages of a block of commands; what they print stands in a block ``text``."""
_FENCE = re.compile(r"^```(\S*)$")
_PROMPT = "$ "


class Block(NamedTuple):
    """A fenced block: where it begins, its language, and its lines."""

    page: str
    line: int
    language: str
    lines: list[str]

    @property
    def place(self):
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """One command line, split as a shell does."""

    place: str
    words: tuple[str, ...]

    @property
    def text(self):
        return shlex.join(self.words)


def blocks_of(page):
    """The fenced blocks of a page."""
    found, opened = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line.strip())
        if opened is not None and line.strip() == "```":
            found.append(opened)
            opened = None
        elif opened is not None:
            opened.lines.append(line)
        elif fence:
            opened = Block(page.relative_to(ROOT).as_posix(), number, fence[1], [])
    assert opened is None, f"{opened.place}: the block has no end"
    return found


def commands_of(block):
    """The commands of a block: every line, or those behind a ``$`` where there are such.

    A line goes on after a backslash, ``status|flush`` stands for two commands, and what follows a
    ``#`` is for the reader.
    """
    text = "\n".join(block.lines).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    if any(line.startswith(_PROMPT) for line in lines):
        lines = [line.removeprefix(_PROMPT) for line in lines if line.startswith(_PROMPT)]
    found = []
    for line in lines:
        words = words_of(line)
        if words:
            found += [Command(block.place, tuple(one)) for one in _alternatives(words)]
    return found


def words_of(line):
    """The words of a line, without a file that its output goes to."""
    words = shlex.split(line, comments=True)
    return words[: words.index(">")] if ">" in words else words


def _alternatives(words):
    """Of ``hook status|flush``: both."""
    for place, word in enumerate(words):
        if re.fullmatch(r"[a-z]+(\|[a-z]+)+", word):
            return [[*words[:place], one, *words[place + 1 :]] for one in word.split("|")]
    return [words]


def all_blocks():
    return [block for page in PAGES for block in blocks_of(page)]


def all_commands():
    return [
        command
        for block in all_blocks()
        if block.language in COMMANDS
        for command in commands_of(block)
    ]
