"""What the whole stack takes while nobody asks for anything: processor time and memory, for each kind of process."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console

from ourvidz_bench.results import Row
from support.cluster.audit import until_ended
from support.cluster.cluster import Cluster, running_cluster
from support.postgres import running_postgres

TITLE = "The whole stack at rest"
TEXT = (
    "One gateway, one SDXL and one WAN renderer and one enhancer, all real but for their models, and PostgreSQL; each server's "
    "engine process counts by itself, without weights. One job of each kind has been made before. Processor time is user and "
    "system time over 30 seconds, as a share of one core; memory is each process's share (PSS)."
)
PACKAGES = ("psutil",)

SECONDS = 30
MADE = ("picture", "enhanced_clip")
"""Job types that together need all servers."""


async def measure(rounds: int, console: Console) -> list[Row]:
    """Start the stack, let it make something, and watch it do nothing."""
    return await asyncio.to_thread(_measure, rounds, console)


def _measure(rounds: int, console: Console) -> list[Row]:
    shares: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        dsn = stack.enter_context(stack.enter_context(running_postgres()).database())
        cluster = stack.enter_context(running_cluster(folder, dsn, gateways=1, sdxl=1, wan=1, enhancers=1))
        asyncio.run(_make_some(cluster))
        for number in range(1, rounds + 1):
            console.print(f"round {number} of {rounds}")
            kinds = asyncio.run(_processes(cluster))
            before = {kind: _used_s(processes) for kind, processes in kinds.items()}
            began = time.monotonic()
            time.sleep(SECONDS)
            passed_s = time.monotonic() - began
            for kind, processes in kinds.items():
                shares[kind].append(100 * (_used_s(processes) - before[kind]) / passed_s)
                sizes[kind].append(sum(process.memory_full_info().pss for process in processes) / 2**20)
    for figures in (shares, sizes):
        figures["all of it"] = [sum(each) for each in zip(*figures.values(), strict=True)]
    return [
        *(Row(f"{kind}, processor", "% of a core", figures) for kind, figures in shares.items()),
        *(Row(f"{kind}, memory", "MiB", figures) for kind, figures in sizes.items()),
    ]


async def _make_some(cluster: Cluster) -> None:
    """Let each server do its work once, so that all that it loads late is there."""
    await until_ended(cluster, [await cluster.ask(cluster.gateways[0], job_type=each) for each in MADE])


async def _processes(cluster: Cluster) -> dict[str, list[psutil.Process]]:
    kinds = {"gateway": [psutil.Process(cluster.gateways[0].node.process.pid)]}
    for kind, [node] in (
        ("SDXL renderer", cluster.sdxl),
        ("WAN renderer", cluster.wan),
        ("enhancer", cluster.enhancers),
    ):
        kinds[kind] = [psutil.Process(node.process.pid)]
        kinds[f"{kind}'s engine"] = [node.engine]
    [row] = await cluster.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    postmaster = psutil.Process(row["pid"]).parent()
    kinds["PostgreSQL"] = [postmaster, *postmaster.children()]
    return kinds


def _used_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))
