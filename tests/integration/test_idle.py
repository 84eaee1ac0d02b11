"""A stack with nothing to do does nothing."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from integration.stack import Stack

WATCHED_S = 20
MAX_SHARE_OF_ONE_CORE = 0.05
"""A loop that spins takes a whole core, and one that polls every millisecond a tenth of it."""


def test_an_idle_stack_does_not_spin_and_its_logs_do_not_grow(stack: Stack):
    def logs() -> dict[str, list[str]]:
        servers = ("gateway", "sdxl", "wan", "enhancer", "postgres")
        lines = {server: stack.log(server).splitlines() for server in servers}
        # What tests before this one left behind may be cleaned up just now.
        return {server: [line for line in lines[server] if '"event": "cleaned"' not in line] for server in servers}

    logs_before = logs()
    cpu_before = {process: cpu_s(process) for process in stack.processes()}
    time.sleep(WATCHED_S)

    spent_s = 0.0
    for process, before_s in cpu_before.items():
        # The database ends connections that nobody needs; a server of ours that ended would have said so in a log.
        with suppress(psutil.NoSuchProcess):
            assert process.status() != psutil.STATUS_ZOMBIE
            spent_s += cpu_s(process) - before_s
    assert spent_s / WATCHED_S < MAX_SHARE_OF_ONE_CORE
    assert logs() == logs_before


def cpu_s(process: psutil.Process) -> float:
    """The time that a process has spent on a CPU, in user code and in the kernel."""
    user, system, *_ = process.cpu_times()
    return user + system
