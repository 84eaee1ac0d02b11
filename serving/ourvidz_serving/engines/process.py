"""The server's side of its engine: a child process that is loaded, watched, told what to do, and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from typing import Any, Generic, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from ourvidz_serving.engines.channel import AsyncChannel, StartEngine, StartTask, StopTask
from ourvidz_serving.engines.engine import (
    EndMessage,
    EngineDied,
    EngineError,
    EngineFailed,
    EngineNotReady,
    EngineOutOfMemory,
    InvalidForEngine,
    Loaded,
    LoadFailed,
    ModelUnavailable,
    Task,
    TaskCancelledEvent,
    TaskDone,
    TaskFailed,
    TaskWasCancelled,
)

_log = structlog.get_logger(__name__)

Info = TypeVar("Info")
"""What a service's engine says of itself when it is loaded."""

_EXIT_GRACE_S = 5.0
"""How long a child may take to leave by itself; it has nothing to save."""
_MESSAGES_IN_HAND = 4
"""How many messages wait for a slow reader before the child is held back; a picture is 3 MiB."""


class EngineState(StrEnum):
    """Where the engine's model stands."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    """Loading failed, and is tried again."""


class EngineProcess(Generic[Info]):
    """One engine in a child process, which is started again whenever it ends.

    A child that could not load is started again after a pause that grows from `first_backoff_s` to `max_backoff_s`.
    One that ran out of memory or raised something unforeseen is replaced too: what state it is in, nobody knows.

    Lives from `start` to `stop`, on one event loop.
    """

    def __init__(
        self,
        factory: str,
        config: dict[str, Any],
        *,
        cancel_grace_s: float = 30.0,
        first_backoff_s: float = 1.0,
        max_backoff_s: float = 60.0,
    ) -> None:
        """Describe the engine: `factory` is `module:callable`, imported in the child only; `config` is plain data."""
        self.state = EngineState.LOADING
        self.error = ""
        """Why loading failed; empty unless the state is FAILED."""
        self.info: Info | None = None
        """What the engine is and can do; None until it was loaded once."""
        self.generation = 0
        """How many children were started."""
        self._start = StartEngine(factory, config, list(sys.path))
        self._cancel_grace_s = cancel_grace_s
        self._backoff = wait_exponential(multiplier=first_backoff_s, max=max_backoff_s)
        self._callbacks: list[Callable[[], None]] = []
        self._child: _Child | None = None
        self._run: _Run | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping_task: asyncio.Task[None] | None = None

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback`, on the event loop, whenever `state`, `error` or `generation` changes."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Start the child; returns at once, and `state` becomes READY when the model is loaded."""
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")

    async def stop(self) -> None:
        """End the child. A task that runs ends with `EngineDied`."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            if not self._supervisor.cancelled():
                self._supervisor.result()
        if self._stopping_task is not None:
            await self._stopping_task

    async def run(self, task: Task) -> AsyncGenerator[Any, None]:
        """Yield what the engine says about a task, as it says it; ends when the task is done.

        One task at a time. A slow reader holds the engine back. Closing the iterator cancels the task and waits
        until it has ended: use `contextlib.aclosing`.

        Raises `EngineNotReady` before the first message; `InvalidForEngine`, `EngineOutOfMemory`, `EngineFailed`,
        `EngineDied` or `TaskWasCancelled` after the last one.
        """
        if self.state is not EngineState.READY or self._child is None:
            raise EngineNotReady(self.error or "the model is being loaded")
        if self._run is not None:
            raise RuntimeError("an engine does one task at a time")
        run = self._run = _Run()
        self._child.channel.send(StartTask(task))
        try:
            while (message := await run.get()) is not None:
                yield message
        finally:
            await self._stop_task(run)

    async def cancel(self) -> None:
        """Ask the engine to end the task that runs, if one does, and wait until it has ended.

        An engine that takes longer than `cancel_grace_s` is killed and replaced.
        """
        if self._run is not None:
            await self._stop_task(self._run)

    async def replace(self, reason: str) -> None:
        """Kill the child; a new one is started. A task that runs ends with `EngineDied`."""
        if self._child is not None:
            _log.warning("engine replaced", reason=reason, generation=self.generation)
            self._child.kill()

    async def _stop_task(self, run: _Run) -> None:
        if run.ended.is_set():
            return
        if not run.cancelled:
            # A task of its own, shielded: whoever asked may be cancelled meanwhile, and the engine must still stop.
            self._stopping_task = asyncio.create_task(self._end_task(run), name="engine-stop-task")
            await run.cancel()
        if self._stopping_task is not None:
            await asyncio.shield(self._stopping_task)

    async def _end_task(self, run: _Run) -> None:
        child = self._child
        if child is not None:
            child.channel.send(StopTask())
            try:
                async with asyncio.timeout(self._cancel_grace_s):
                    await run.ended.wait()
            except TimeoutError:
                _log.error("engine did not stop; killed", grace_s=self._cancel_grace_s, generation=self.generation)
                child.kill()
        await run.ended.wait()

    async def _supervise(self) -> None:
        """Keep a loaded child, for ever."""
        try:
            while True:
                retrying = AsyncRetrying(
                    wait=self._backoff,
                    retry=retry_if_exception_type((EngineError, OSError)),
                    before_sleep=self._report_failure,
                )
                child: _Child = await retrying(self._load)
                self._change(EngineState.READY)
                reason = await self._serve(child)
                self._child = None
                self._change(EngineState.LOADING)
                await self._end_run(EngineDied(reason))
        finally:
            if self._child is not None:
                await self._child.end()
                self._child = None
            await self._end_run(EngineDied("the server is stopping"))

    async def _load(self) -> _Child:
        """Start a child and return it once it is loaded. Raises `ModelUnavailable` or `EngineDied`."""
        child = self._child = await _Child.spawn(self._start)
        self.generation += 1
        self._change(self.state)
        try:
            while True:
                message = await child.channel.receive()
                if isinstance(message, Loaded):
                    self.info = message.info
                    _log.info("engine loaded", generation=self.generation, engine=repr(message.info))
                    return child
                if isinstance(message, LoadFailed):
                    await child.end()
                    if message.detail:
                        _log.error("engine failed to load", traceback=message.detail)
                    raise ModelUnavailable(message.message)
        except EOFError:
            raise EngineDied(f"the engine process {await child.end()} while it loaded the model") from None

    def _report_failure(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        pause_s = attempt.next_action.sleep if attempt.next_action else 0.0
        _log.error("model not loaded", error=str(error), retry_in_s=pause_s, generation=self.generation)
        self._child = None
        self._change(EngineState.FAILED, str(error))

    async def _serve(self, child: _Child) -> str:
        """Pass on what the child says until it has ended; return how it ended, for people."""
        try:
            while True:
                message = await child.channel.receive()
                run = self._run
                if run is None:
                    continue
                if isinstance(message, TaskFailed) and message.kind != "invalid_request":
                    _log.error("task failed in the engine", error=message.message, traceback=message.detail)
                    # Before the task is seen to end: who asks next must find that nothing is loaded.
                    self._change(EngineState.LOADING)
                    await self._end_run(_outcome(message))
                    child.kill()
                    return await child.end()
                if isinstance(message, EndMessage):
                    await self._end_run(_outcome(message))
                else:
                    await run.put(message)
        except EOFError:
            reason = f"the engine process {await child.end()}"
            _log.error("engine ended", reason=reason, generation=self.generation)
            return reason

    async def _end_run(self, error: EngineError | None) -> None:
        run, self._run = self._run, None
        if run is not None:
            await run.end(error)

    def _change(self, state: EngineState, error: str = "") -> None:
        self.state = state
        self.error = error or (self.error if state is EngineState.FAILED else "")
        for callback in self._callbacks:
            callback()


class _Child:
    """One child process and the channel to it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: AsyncChannel) -> None:
        self._process = process
        self.channel = channel

    @classmethod
    async def spawn(cls, start: StartEngine) -> _Child:
        """Start a fresh interpreter, not a fork: CUDA does not survive one, nor do gRPC's threads."""
        ours, theirs = socket.socketpair()
        channel = await AsyncChannel.over(ours)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "ourvidz_serving.engines.child",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # Threads that wait for each other shall sleep, not spin: with anything else on the same cores, an
                    # operation on the processor would take ten times as long. Read when torch is loaded.
                    env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                    # Ctrl-C in a terminal goes to the server alone, which then decides when the engine ends.
                    start_new_session=True,
                )
            except BaseException:
                channel.close()
                raise
        child = cls(process, channel)
        child.channel.send(start)
        return child

    def kill(self) -> None:
        """Kill the process at once, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()

    async def end(self) -> str:
        """Close the channel, see the process out, and return how it ended, for people."""
        self.channel.close()
        try:
            async with asyncio.timeout(_EXIT_GRACE_S):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


class _Run:
    """One task's messages on their way from the child to whoever reads them, a bounded number at a time."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._changed = asyncio.Condition()
        self._error: EngineError | None = None
        self.cancelled = False
        self.ended = asyncio.Event()

    async def put(self, message: object) -> None:
        """Add a message once there is room; drop it if the task was cancelled."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.cancelled or len(self._waiting) < _MESSAGES_IN_HAND)
            if not self.cancelled:
                self._waiting.append(message)
                self._changed.notify_all()

    async def get(self) -> object | None:
        """Return the next message, or None at a good end. Raises how the task ended otherwise."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self.ended.is_set())
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
        if self._error is not None:
            raise self._error
        return None

    async def cancel(self) -> None:
        """Throw away what waits and what still comes, so that the child is never held back on its way out."""
        self.cancelled = True
        async with self._changed:
            self._waiting.clear()
            self._changed.notify_all()

    async def end(self, error: EngineError | None) -> None:
        """Say that the child is done with it, and how."""
        async with self._changed:
            self._error = TaskWasCancelled("it was cancelled") if self.cancelled else error
            self.ended.set()
            self._changed.notify_all()


def _outcome(message: EndMessage) -> EngineError | None:
    match message:
        case TaskDone():
            return None
        case TaskCancelledEvent():
            return TaskWasCancelled("it was cancelled")
        case TaskFailed(kind="invalid_request"):
            return InvalidForEngine(message.message)
        case TaskFailed(kind="out_of_memory"):
            return EngineOutOfMemory(message.message)
        case TaskFailed():
            return EngineFailed(message.message)
