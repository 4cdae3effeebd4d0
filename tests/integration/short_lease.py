"""Runs the ``hookbench`` command with a shorter lease of an operator.

``python -m tests.integration.short_lease SECONDS renewed|once ARGUMENTS…``: with ``once`` it is not
renewed while nothing is changed, so that only what is asked before each change can notice.
"""

import asyncio
import importlib
import sys

from hookbench.live.boards import Boards
from hookbench.live.hold import Hold


async def never(_hold):
    await asyncio.Event().wait()


if __name__ == "__main__":
    Boards.__init__.__kwdefaults__["lease_s"] = float(sys.argv[1])
    if sys.argv[2] == "once":
        Hold._renew_all = never
    sys.argv = ["hookbench", *sys.argv[3:]]
    importlib.import_module("hookbench.cli.main").main()
