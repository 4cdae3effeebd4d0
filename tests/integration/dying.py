"""Runs the ``hookbench`` command, and dies by SIGKILL where a method is called.

``python -m tests.integration.dying MODULE:CLASS.METHOD before|after NUMBER ARGUMENTS…``: at the
call with that number, before or after what the method does.
"""

import functools
import importlib
import inspect
import os
import signal
import sys


def die():
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def plant(place, when, number):
    """Let this process die at a call of a method."""
    module, _, path = place.partition(":")
    owner_name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    original = getattr(owner, method)
    calls = []

    def count(moment):
        if moment == "before":
            calls.append(1)
        if len(calls) == number and when == moment:
            die()

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def planted(*arguments, **named):
            count("before")
            answer = await original(*arguments, **named)
            count("after")
            return answer

    else:

        @functools.wraps(original)
        def planted(*arguments, **named):
            count("before")
            answer = original(*arguments, **named)
            count("after")
            return answer

    setattr(owner, method, planted)


if __name__ == "__main__":
    plant(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.argv = ["hookbench", *sys.argv[4:]]
    importlib.import_module("hookbench.cli.main").main()
