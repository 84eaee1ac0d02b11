"""The local stack in a terminal: start it, say how to use it, stop it on Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ourvidz.client import DEFAULT_ADDRESS, DEFAULT_URL
from ourvidz.local.engine_servers import EngineServer
from ourvidz.local.folder import DataFolder
from ourvidz.local.stack import LocalStack

WEBHOOK_SETTINGS = ("OURVIDZ_WEBHOOK_URL", "OURVIDZ_WEBHOOK_HOSTS")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_until_stopped(
    data_dir: Path | None, *, rest_port: int, grpc_port: int, servers: Sequence[EngineServer]
) -> None:
    """Run the stack until a signal ends it. Raises `LocalStackError` if it can't be started or kept running."""
    folder = DataFolder.at(data_dir)
    folder.make()
    with folder.lock():
        console = Console(highlight=False)

        def report(line: str) -> None:
            console.print(line, style="yellow", markup=False, soft_wrap=True)

        stack = LocalStack(folder, rest_port=rest_port, grpc_port=grpc_port, servers=servers, report=report)
        asyncio.run(_run(stack, console, lambda: _tell_how_to_use(console, stack, folder, named=data_dir is not None)))


async def _run(stack: LocalStack, console: Console, tell: Callable[[], None]) -> None:
    stopping = asyncio.Event()

    def stop() -> None:
        # The first signal drains, the second one waits no longer.
        if stopping.is_set():
            stack.hurry()
        stopping.set()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        with console.status("Starting database, renderers, enhancer and gateway …"):
            await _unless(stopping, stack.start())
        if not stopping.is_set():
            tell()
            await _unless(stopping, stack.failure())
    finally:
        with console.status("Stopping …"):
            await stack.stop()
    console.print("Stopped.")


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until it is done or has failed, or until the stack is to stop."""
    working = asyncio.create_task(work)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stop):
            task.cancel()
        await asyncio.wait({working, stop})


def _tell_how_to_use(console: Console, stack: LocalStack, folder: DataFolder, *, named: bool) -> None:
    program = "ourvidz" if shutil.which("ourvidz") else f"{shlex.quote(sys.executable)} -m ourvidz.cli"
    data_dir = f" --data-dir {shlex.quote(str(folder.path))}" if named else ""
    token = f"{program} token demo{data_dir}"
    settings = [f"OURVIDZ_TOKEN=$({token})"]
    if stack.grpc_address != DEFAULT_ADDRESS:
        settings.append(f"OURVIDZ_GRPC={stack.grpc_address}")
    if stack.url != DEFAULT_URL:
        settings.append(f"OURVIDZ_URL={stack.url}")
    commands = [f"{program} generate {options} --out out" for options in _examples(stack.servers)]
    job_type = "sdxl_image_fast" if EngineServer.SDXL in stack.servers else "image_fast"
    body = f'{{"jobType": "{job_type}", "metadata": {{"prompt": "a lighthouse at dusk"}}}}'
    curl = (
        f'curl -s {stack.url}/api/queue-job -H "Authorization: Bearer $({token})" '
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
    for line in (
        "",
        f"[bold green]OurVidz runs.[/] REST [bold]{stack.url}[/] (API pages at /docs), gRPC [bold]{stack.grpc_address}[/]",
        f"Data and logs are in {folder.path}",
    ):
        console.print(line, soft_wrap=True)
    # Lines to paste must come out as they are, on one line each, however narrow the terminal.
    for heading, line in (
        ("Make pictures and clips:", "\n".join([f"export {' '.join(settings)}", *commands])),
        ("Or with curl alone:", curl),
    ):
        console.print(f"\n[bold]{heading}[/]")
        console.print(line, markup=False, soft_wrap=True)
    if any(os.environ.get(name) for name in WEBHOOK_SETTINGS):
        console.print("\n[bold]Webhooks are sent; receivers check them with the secret that this prints:[/]")
        console.print(f"{program} webhooks secret{data_dir}", markup=False, soft_wrap=True)
    console.print("\nCtrl-C stops everything.")


def _examples(servers: Collection[EngineServer]) -> Iterator[str]:
    """Yield what to ask for where these servers run."""
    if EngineServer.SDXL in servers:
        yield "'a lighthouse at dusk' --count 3"
    if EngineServer.WAN in servers:
        enhanced = EngineServer.ENHANCER in servers
        yield f"'woman walking' --type {'video7b_fast_enhanced' if enhanced else 'video_fast'}"
