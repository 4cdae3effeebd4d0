"""Runs the ``hookbench`` command with a shorter lease of an operator: ``… SECONDS ARGUMENTS…``."""

import importlib
import sys

from hookbench.live.boards import Boards

if __name__ == "__main__":
    Boards.__init__.__kwdefaults__["lease_s"] = float(sys.argv[1])
    sys.argv = ["hookbench", *sys.argv[2:]]
    importlib.import_module("hookbench.cli.main").main()
