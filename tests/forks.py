"""Processes that are forked from one that has imported what they need.

Each is a process like any other: it has a pid, an exit code and memory of its own, and can be
killed at any moment. What it is spared are the imports, which cost more than all that a short
process does beside them; tests that start hundreds of the same kind are several times as quick.
What starts as ``python -m MODULE ARGUMENTS`` starts here as ``Forks.run(MODULE, ARGUMENTS)``.

``python -m tests.forks MODULE…`` is the process that they are forked from: it imports the modules,
and forks once for each line of its input. It has one thread, and no event loop, connection or open
file that those could share.
"""

import asyncio
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Forks"]

ROOT = Path(__file__).parents[1]
_START_S = 60.0


class Forks:
    """Forks processes one at a time, each to its end.

    Args:
        modules: what all of them need; imported once.
        folder: for what they print.
    """

    def __init__(self, modules, folder):
        self._folder = folder
        self._count = 0
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", *modules],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def run(self, module, arguments, *, timeout_s=90.0):
        """Exit code of a process, negative for a signal, and all that it printed.

        Raises:
            TimeoutError: it took longer, and was killed.
        """
        self._count += 1
        said = self._folder / f"{self._count}.log"
        code = await asyncio.to_thread(self._run, module, arguments, said, said, timeout_s)
        return code, said.read_text()

    def call(self, module, arguments, *, timeout_s=90.0):
        """Like ``subprocess.run`` of ``python -m MODULE``, with both outputs as text.

        Raises:
            TimeoutError: it took longer, and was killed.
        """
        self._count += 1
        output, errors = (self._folder / f"{self._count}.{kind}" for kind in ("out", "err"))
        code = self._run(module, arguments, output, errors, timeout_s)
        command = [module, *arguments]
        return subprocess.CompletedProcess(command, code, output.read_text(), errors.read_text())

    def _run(self, module, arguments, output, errors, timeout_s):
        order = {
            "module": module,
            "arguments": list(map(str, arguments)),
            "output": str(output),
            "errors": str(errors),
        }
        self._parent.stdin.write(json.dumps(order).encode() + b"\n")
        self._parent.stdin.flush()
        pid = self._told(_START_S)
        try:
            return self._told(timeout_s)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)  # it is waited for there, so the number is still its own
            self._told(_START_S)
            raise

    def _told(self, timeout_s):
        """A number on a line; the pipe is empty before it, so that it can be waited for."""
        readable, _, _ = select.select([self._parent.stdout], [], [], timeout_s)
        if not readable:
            raise TimeoutError(f"no answer within {timeout_s} s")
        line = b""
        while not line.endswith(b"\n"):
            got = os.read(self._parent.stdout.fileno(), 1)
            assert got, "the process that forks has ended"
            line += got
        return int(line)

    def close(self):
        """End the process that forks."""
        self._parent.stdin.close()
        self._parent.wait(timeout=_START_S)
        self._parent.stdout.close()


def serve():
    """Fork for each order and say its pid and exit code; the order, in a process that was forked.

    That process then goes on as if it had been started, so it must not return in here.
    """
    while line := _next_line():
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _take_over(order["output"], order["errors"])
            return order
        os.write(1, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    return None


def _next_line():
    """Unbuffered, for what is read ahead would be in every fork."""
    line = b""
    while not line.endswith(b"\n"):
        got = os.read(0, 1)
        if not got:
            return b""
        line += got
    return line


def _take_over(output, errors):
    appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND  # for both may be the same
    places = ((os.devnull, os.O_RDONLY), (output, appended), (errors, appended))
    for target, (path, flags) in enumerate(places):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    taken = serve()
    if taken is not None:
        sys.argv = [taken["module"], *taken["arguments"]]
        if not hasattr(sys.modules.get(taken["module"]), "__path__"):
            sys.modules.pop(taken["module"], None)  # as it is in a process that has just started
        runpy.run_module(taken["module"], run_name="__main__", alter_sys=True)
