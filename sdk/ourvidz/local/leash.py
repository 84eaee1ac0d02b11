"""Runs a program that ends when its parent ends, even if the parent is killed.

Started as a script, with the parent's process id and the program's command line: it asks the kernel to kill this
process once the parent has died, and becomes the program. Linux only; elsewhere it just becomes the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL, not SIGTERM: with the supervisor gone nobody waits for a drain, and the next stack needs the ports.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel was asked.
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
