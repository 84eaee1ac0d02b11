"""The boundary between a server and its engine: what an engine implements, and what it tells the server.

An engine lives in a child process and is all that may import torch. This module is imported on both sides and is
torch-free.

Errors that cross the boundary:

- `EngineError`
    - `ModelUnavailable`: the model can't be loaded (raised by `Engine.load`)
    - `RenderCancelled`: the render was told to stop (raised in the child by `RenderSession.check`)
    - `InvalidForEngine`: this engine can't make what the request asks for
    - `EngineOutOfMemory`: memory ran out and nothing was left to try
    - `EngineFailed`: the engine raised something unforeseen
    - `EngineDied`: the child process ended in the middle of a render
    - `EngineNotReady`: no model is loaded at the moment
    - `RenderWasCancelled`: how the server side sees a render that was cancelled
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ourvidz.api.render.v1 import render_pb2

Pixels: TypeAlias = NDArray[np.uint8]
"""A picture: height × width × 3, RGB."""


class EngineError(Exception):
    """Anything that can go wrong with an engine; its text is fit for users and operators."""


class ModelUnavailable(EngineError):
    """The model can't be loaded; the text is one line that says why."""


class RenderCancelled(EngineError):
    """The render was told to stop; let it pass through the engine."""


class InvalidForEngine(EngineError):
    """This engine can't make what the request asks for; another attempt would end the same way."""


class EngineOutOfMemory(EngineError):
    """Memory ran out and every rung of the engine's ladder was tried."""


class EngineFailed(EngineError):
    """The engine raised something unforeseen."""


class EngineDied(EngineError):
    """The child process ended in the middle of a render."""


class EngineNotReady(EngineError):
    """No model is loaded at the moment, so that nothing was started."""


class RenderWasCancelled(EngineError):
    """The render was cancelled, by `EngineProcess.cancel` or by closing its iterator."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a loaded engine is and what it can make."""

    model: str
    """The model as configured: `miniature`, a Hub name, or the name of a folder or file."""
    device: str
    """For example `cpu` or `cuda`."""
    sizes: list[tuple[int, int]]
    """Widths and heights in pixels."""
    max_image_count: int
    """0: no still images."""
    max_frame_count: int
    """0: no clips."""
    max_step_count: int


@dataclass(frozen=True, slots=True)
class Loading:
    """A part of the model is being loaded or moved."""

    part: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine can render."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine could not be loaded; the child ends after it."""

    message: str
    detail: str = ""
    """A traceback, for the log alone; empty for a failure that was foreseen."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """A denoising step is done: `step` of `step_count`, from 1; `image_index` from 0."""

    step: int
    step_count: int
    image_index: int
    image_count: int


@dataclass(frozen=True, slots=True, eq=False)
class PreviewMade:
    """A small picture of the state at a step: height × width × 3, RGB."""

    pixels: Pixels
    image_index: int
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class FrameMade:
    """A finished picture, or the next frame of a clip: height × width × 3, RGB."""

    output_index: int
    pixels: Pixels


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
class RenderDone:
    """All that was asked for has been sent."""


@dataclass(frozen=True, slots=True)
class RenderCancelledEvent:
    """The engine stopped because it was told to."""


@dataclass(frozen=True, slots=True)
class RenderFailed:
    """The engine could not do it."""

    kind: Literal["invalid_request", "out_of_memory", "engine_failed"]
    message: str
    detail: str = ""
    """A traceback, for the log alone."""


LoadMessage: TypeAlias = Loading | Loaded | LoadFailed
ProgressMessage: TypeAlias = Loading | StepDone | PreviewMade | FrameMade | Warned | Timed | PeakMemory | MemoryRung
EndMessage: TypeAlias = RenderDone | RenderCancelledEvent | RenderFailed
EngineMessage: TypeAlias = LoadMessage | ProgressMessage | EndMessage


class LoadSession:
    """What an engine may say while it loads."""

    def __init__(self, send: Callable[[EngineMessage], None]) -> None:
        self._send = send

    def loading(self, part: str) -> None:
        """Say which part is being loaded, in words for people, for example `weights`."""
        self._send(Loading(part))


class RenderSession:
    """What an engine may say during one render, and how it learns that it must stop.

    Lives as long as the render. Every call may block while the server is slow to take messages.
    """

    def __init__(
        self, send: Callable[[EngineMessage], None], cancel: threading.Event, *, wants_previews: bool = False
    ) -> None:
        self._send = send
        self._cancel = cancel
        self.wants_previews = wants_previews

    @property
    def cancelled(self) -> bool:
        """Whether the render must stop."""
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise `RenderCancelled` if the render must stop; call it between steps and before each decode."""
        if self._cancel.is_set():
            raise RenderCancelled("the render was cancelled")

    def loading(self, part: str) -> None:
        """Say which part of the model is being loaded or moved."""
        self._send(Loading(part))

    def step(self, step: int, step_count: int, image_index: int, image_count: int) -> None:
        """Say that a denoising step is done: `step` from 1, `image_index` from 0."""
        self._send(StepDone(step, step_count, image_index, image_count))

    def preview(self, pixels: Pixels, image_index: int, step: int) -> None:
        """Show the state at a step: height × width × 3, at most 256 pixels at the longer side."""
        self._send(PreviewMade(pixels, image_index, step))

    def frame(self, output_index: int, pixels: Pixels) -> None:
        """Hand over a finished picture, or the next frame of a clip: height × width × 3, C-contiguous."""
        self._send(FrameMade(output_index, pixels))

    def warn(self, text: str) -> None:
        """Tell the user something, in words."""
        self._send(Warned(text))

    def timing(self, stage: str, seconds: float) -> None:
        """Say how long a stage took, summed over the outputs."""
        self._send(Timed(stage, seconds))

    def peak_memory(self, byte_count: int) -> None:
        """Say the most memory that was in use at once, in bytes."""
        self._send(PeakMemory(byte_count))

    def memory_rung(self, name: str) -> None:
        """Say which rung of the out-of-memory ladder was needed."""
        self._send(MemoryRung(name))


class Engine(Protocol):
    """What a service implements. It is made in the child by the service's factory and only ever used by one thread."""

    def load(self, session: LoadSession) -> EngineInfo:
        """Load the model; blocks. Raises `ModelUnavailable` with one line that says why not."""
        ...

    def render(self, request: render_pb2.RenderRequest, seed: int, session: RenderSession) -> None:
        """Render all that the request asks for; blocks. The server has validated the request already.

        `seed` is the seed of output 0. Raises `InvalidForEngine` or `EngineOutOfMemory`, lets `RenderCancelled` pass,
        and is ready for the next render after the first and the last of these.
        """
        ...


EngineFactory: TypeAlias = Callable[[dict[str, Any]], Engine]
"""Makes an engine from its configuration, which is plain data. Called in the child."""
