"""Keeps programs running: starts them, starts them again when they die, stops them in order.

It waits on events and never looks around on a timer, so an idle stack costs nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ourvidz.errors import LocalStackError

SETTINGS_ARE_WRONG = 2
"""The exit status of a server that can't start because of its settings; starting it again would not help."""

DEATHS_BEFORE_READY = 3
"""So often may a server die before it was healthy once; then something is wrong that time does not heal."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
"""When a server that ran this long dies, the pauses begin with the first again."""

_LEASH = Path(__file__).with_name("leash.py")


@dataclass(frozen=True, slots=True)
class Program:
    """A program to keep running."""

    name: str
    command: tuple[str, ...]
    """The executable's full path and its arguments."""
    log: Path
    """What it writes to stdout and stderr; emptied when the stack starts."""
    healthy: Callable[[int], Awaitable[object]]
    """Called with the process id; returns once the program is healthy."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's own."""
    stop_patience_s: float = 30.0
    """How long it may take to end after SIGTERM, before it is killed."""
    watches_stdin: bool = False
    """Whether it ends by itself when its standard input closes; other programs are leashed by the kernel."""


class Supervisor:
    """Runs programs until `stop`. `report` gets a line for people whenever one died or came back."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._running: list[_Keeper] = []
        self._hurry = asyncio.Event()

    def start(self, program: Program) -> None:
        """Start a program and keep it running; the ones started last are stopped first."""
        self._running.append(_Keeper(program, self._report, self._hurry))

    async def all_healthy(self) -> None:
        """Wait until every program was healthy once. Raises `LocalStackError` if one can't be."""
        healthy = asyncio.create_task(self._each_healthy())
        failure = asyncio.create_task(self.failure())
        try:
            await asyncio.wait({healthy, failure}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
        finally:
            for waiting in (healthy, failure):
                waiting.cancel()
                with suppress(asyncio.CancelledError, LocalStackError):
                    await waiting

    async def _each_healthy(self) -> None:
        for keeper in self._running:
            await keeper.healthy.wait()

    async def failure(self) -> None:
        """Wait until a program can't be kept running, and raise the `LocalStackError` that says why."""
        done, _ = await asyncio.wait({keeper.task for keeper in self._running}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stop all programs, one after the other, and wait until nothing of them is left."""
        for keeper in reversed(self._running):
            keeper.stopping.set()
            # Not awaited directly: one that failed must not keep the others from being stopped.
            await asyncio.wait({keeper.task})
        for keeper in self._running:
            error = keeper.task.exception()
            if error is not None and not isinstance(error, LocalStackError):  # those were raised by `failure`
                raise error

    def hurry(self) -> None:
        """Wait for no drain any longer: programs that were told to stop, or will be, are killed at once.

        The database is not a matter of seconds: it is still stopped properly.
        """
        self._hurry.set()


class _Keeper:
    """Keeps one program running, in a task of its own that ends with `stopping` or with a `LocalStackError`."""

    def __init__(self, program: Program, report: Callable[[str], None], hurry: asyncio.Event) -> None:
        self.healthy = asyncio.Event()
        self.stopping = asyncio.Event()
        self._program = program
        self._report = report
        self._hurry = hurry
        self.task = asyncio.create_task(self._keep(), name=f"keep {program.name}")

    async def _keep(self) -> None:
        program, loop = self._program, asyncio.get_running_loop()
        program.log.write_bytes(b"")
        deaths, pause = 0, FIRST_PAUSE_S
        while not self.stopping.is_set():
            started = loop.time()
            process = await self._spawn()
            status = await self._until_it_ends(process)
            if self.stopping.is_set():
                return
            deaths += 1
            if status == SETTINGS_ARE_WRONG or (deaths == DEATHS_BEFORE_READY and not self.healthy.is_set()):
                raise LocalStackError(f"{program.name} can't start: {self._last_words()}")
            if loop.time() - started > STEADY_AFTER_S:
                pause = FIRST_PAUSE_S
            self._report(f"{program.name} {_how_it_ended(status)}; starting it again in {pause:.0f} s ({program.log})")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _spawn(self) -> Process:
        program = self._program
        command = program.command
        if not program.watches_stdin:
            # -I -S: the leash needs nothing but the standard library, and is gone a moment later.
            command = (sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command)
        with program.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE if program.watches_stdin else DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **program.environment},
                # Ctrl-C in the terminal is for the supervisor alone, which stops the programs in order.
                start_new_session=True,
            )

    async def _until_it_ends(self, process: Process) -> int:
        ended = asyncio.create_task(process.wait())
        healthy = asyncio.create_task(self._tell_healthy(process.pid))
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (healthy, stopping):
                task.cancel()
            if not ended.done():
                await self._end(process, ended)
            # What the program started and did not stop lives in its session still.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.wait({healthy, stopping})
        if not healthy.cancelled():
            healthy.result()
        return ended.result()

    async def _end(self, process: Process, ended: asyncio.Task[int]) -> None:
        with suppress(ProcessLookupError):
            process.terminate()
        hurry = asyncio.create_task(self._hurry.wait())
        quick = {hurry} if not self._program.watches_stdin else set()
        await asyncio.wait({ended, *quick}, timeout=self._program.stop_patience_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            self._report(f"{self._program.name} did not end in time and is killed ({self._program.log})")
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await ended

    async def _tell_healthy(self, pid: int) -> None:
        await self._program.healthy(pid)
        if self.healthy.is_set():
            self._report(f"{self._program.name} is healthy again")
        self.healthy.set()

    def _last_words(self, lines: int = 12) -> str:
        """The end of the log, which says what the program itself said, and where there is more."""
        said = [line for line in self._program.log.read_text(errors="replace").splitlines() if line.strip()]
        return "\n".join([f"see {self._program.log}", *said[-lines:]])


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
