"""A stack with nothing to do does nothing."""

from __future__ import annotations

import time

import psutil

from integration.stack import Stack

WATCHED_S = 20
MAX_SHARE_OF_ONE_CORE = 0.05
"""A loop that spins takes a whole core, and one that polls every millisecond a tenth of it."""


def test_an_idle_stack_does_not_spin_and_its_logs_do_not_grow(stack: Stack):
    processes = stack.processes()

    def cpu_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    def logs() -> dict[str, str]:
        return {server: stack.log(server) for server in ("gateway", "sdxl", "postgres")}

    logs_before, cpu_before = logs(), cpu_s()
    time.sleep(WATCHED_S)

    assert (cpu_s() - cpu_before) / WATCHED_S < MAX_SHARE_OF_ONE_CORE
    assert logs() == logs_before
    assert all(process.status() != psutil.STATUS_ZOMBIE for process in processes)
