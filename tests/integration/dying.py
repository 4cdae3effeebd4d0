"""Runs the ``hookbench`` command, and dies by SIGKILL where a method is called.

``python -m tests.integration.dying MODULE:CLASS.METHOD before|after NUMBER ARGUMENTS…``: at the
call with that number, before or after what the method does.
"""

import functools
import importlib
import os
import signal
import sys

from hookbench.cli.main import main


def die():
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def plant(place, when, number):
    module, _, path = place.partition(":")
    owner_name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    original = getattr(owner, method)
    calls = []

    @functools.wraps(original)
    async def planted(*arguments, **named):
        calls.append(1)
        if len(calls) == number and when == "before":
            die()
        answer = await original(*arguments, **named)
        if len(calls) == number:
            die()
        return answer

    setattr(owner, method, planted)


if __name__ == "__main__":
    plant(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.argv = ["hookbench", *sys.argv[4:]]
    main()
