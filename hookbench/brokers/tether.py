"""``python tether.py PARENT_PID COMMAND...``: run a command that does not outlive its parent.

On Linux the kernel kills the command when the parent is gone (PR_SET_PDEATHSIG survives exec), so
this process becomes the command and its pid is the command's. Elsewhere it stays, and kills the
command when the parent disappears. Standard library only, run with ``-S -E`` for a quick start.
"""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
POLL_S = 0.2
PARENT_GONE = 76


def main(argv: list[str]) -> int:
    """Exec the command (Linux) or watch over it."""
    parent = int(argv[1])
    command = argv[2:]
    if platform.system() == "Linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            return PARENT_GONE
        if os.getppid() != parent:  # it went before the call above
            return PARENT_GONE
        os.execv(command[0], command)
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
            child.wait()
            return PARENT_GONE
        time.sleep(POLL_S)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv))
