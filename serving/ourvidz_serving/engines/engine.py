"""The boundary between a server and its engine: what an engine implements, and what it tells the server.

An engine lives in a child process and is all that may import torch. This module is imported on both sides and is
torch-free. What engine processes have in common is here; what is said about pictures or texts alone stands beside the
service that makes them.

Errors that cross the boundary:

- `EngineError`
    - `ModelUnavailable`: the model can't be loaded (raised by `Engine.load`)
    - `TaskCancelled`: the task was told to stop (raised in the child by `Session.check`)
    - `InvalidForEngine`: this engine can't do what the task asks for
    - `EngineOutOfMemory`: memory ran out and nothing was left to try
    - `EngineFailed`: the engine raised something unforeseen
    - `EngineDied`: the child process ended in the middle of a task
    - `EngineNotReady`: no model is loaded at the moment
    - `TaskWasCancelled`: how the server side sees a task that was cancelled
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias


class EngineError(Exception):
    """Anything that can go wrong with an engine; its text is fit for users and operators."""


class ModelUnavailable(EngineError):
    """The model can't be loaded; the text is one line that says why."""


class TaskCancelled(EngineError):
    """The task was told to stop; let it pass through the engine."""


class InvalidForEngine(EngineError):
    """This engine can't do what the task asks for; another attempt would end the same way."""


class EngineOutOfMemory(EngineError):
    """Memory ran out and every rung of the engine's ladder was tried."""


class EngineFailed(EngineError):
    """The engine raised something unforeseen."""


class EngineDied(EngineError):
    """The child process ended in the middle of a task."""


class EngineNotReady(EngineError):
    """No model is loaded at the moment, so that nothing was started."""


class TaskWasCancelled(EngineError):
    """The task was cancelled, by `EngineProcess.cancel` or by closing its iterator."""


@dataclass(frozen=True, slots=True)
class Loading:
    """A part of the model is being loaded or moved."""

    part: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine can work."""

    info: Any
    """What `Engine.load` returned."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine could not be loaded; the child ends after it."""

    message: str
    detail: str = ""
    """A traceback, for the log alone; empty for a failure that was foreseen."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know, in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Timed:
    """How long a stage took, summed over the outputs."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The most memory that was in use at once, in bytes: the GPU's, or the process's own where there is no GPU."""

    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryRung:
    """The rung of the out-of-memory ladder that was needed, for example `vae_tiling`."""

    name: str


@dataclass(frozen=True, slots=True)
class TaskDone:
    """All that was asked for has been sent."""


@dataclass(frozen=True, slots=True)
class TaskCancelledEvent:
    """The engine stopped because it was told to."""


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The engine could not do it."""

    kind: Literal["invalid_request", "out_of_memory", "engine_failed"]
    message: str
    detail: str = ""
    """A traceback, for the log alone."""


EndMessage: TypeAlias = TaskDone | TaskCancelledEvent | TaskFailed
Send: TypeAlias = Callable[[object], None]
"""Sends one message to the server; it may block while the server is slow to take messages."""


class LoadSession:
    """What an engine may say while it loads."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def loading(self, part: str) -> None:
        """Say which part is being loaded, in words for people, for example `weights`."""
        self._send(Loading(part))


class Session:
    """What an engine may say during one task, and how it learns that it must stop.

    Lives as long as the task. Every call may block while the server is slow to take messages.
    """

    def __init__(self, send: Send, cancel: threading.Event) -> None:
        self.send = send
        self._cancel = cancel

    @property
    def cancelled(self) -> bool:
        """Whether the task must stop."""
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise `TaskCancelled` if the task must stop; call it between steps."""
        if self._cancel.is_set():
            raise TaskCancelled("it was cancelled")

    def loading(self, part: str) -> None:
        """Say which part of the model is being loaded or moved."""
        self.send(Loading(part))

    def warn(self, text: str) -> None:
        """Tell the user something, in words."""
        self.send(Warned(text))

    def timing(self, stage: str, seconds: float) -> None:
        """Say how long a stage took, summed over the outputs."""
        self.send(Timed(stage, seconds))

    def peak_memory(self, byte_count: int) -> None:
        """Say the most memory that was in use at once, in bytes."""
        self.send(PeakMemory(byte_count))

    def memory_rung(self, name: str) -> None:
        """Say which rung of the out-of-memory ladder was needed."""
        self.send(MemoryRung(name))


class Task(Protocol):
    """What an engine is asked for: data that can be pickled, with the kind of session that it is done in."""

    def open_session(self, send: Send, cancel: threading.Event) -> Session:
        """Return the session of this task. Called in the child."""
        ...


class Engine(Protocol):
    """What a service implements. It is made in the child by the service's factory and only ever used by one thread.

    Its `run` takes the service's own task and session, which is what `Any` stands for.
    """

    def load(self, session: LoadSession) -> Any:
        """Load the model; blocks. Returns what the server must know of it, as data that can be pickled.

        Raises `ModelUnavailable` with one line that says why not.
        """
        ...

    def run(self, task: Any, session: Any) -> None:
        """Do all that the task asks for; blocks. The server has validated the task already.

        Raises `InvalidForEngine` or `EngineOutOfMemory`, lets `TaskCancelled` pass, and is ready for the next task
        after the first and the last of these.
        """
        ...


EngineFactory: TypeAlias = Callable[[dict[str, Any]], Engine]
"""Makes an engine from its configuration, which is plain data. Called in the child."""
