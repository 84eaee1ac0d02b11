"""What a renderer's engine is asked for, and what it says about pictures, beside what every engine can say."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import Loading, MemoryRung, PeakMemory, Send, Session, Timed, Warned

Pixels: TypeAlias = NDArray[np.uint8]
"""A picture: height × width × 3, RGB."""


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
class ReferenceEngine:
    """How the reference pictures act, for example `img2img`."""

    name: str


RenderMessage: TypeAlias = (
    Loading | StepDone | PreviewMade | FrameMade | ReferenceEngine | Warned | Timed | PeakMemory | MemoryRung
)
"""All that an engine says during a render."""


class RenderSession(Session):
    """What an engine may say during one render."""

    def __init__(self, send: Send, cancel: threading.Event, *, wants_previews: bool = False) -> None:
        super().__init__(send, cancel)
        self.wants_previews = wants_previews

    def step(self, step: int, step_count: int, image_index: int, image_count: int) -> None:
        """Say that a denoising step is done: `step` from 1, `image_index` from 0."""
        self.send(StepDone(step, step_count, image_index, image_count))

    def preview(self, pixels: Pixels, image_index: int, step: int) -> None:
        """Show the state at a step: height × width × 3, at most 256 pixels at the longer side."""
        self.send(PreviewMade(pixels, image_index, step))

    def frame(self, output_index: int, pixels: Pixels) -> None:
        """Hand over a finished picture, or the next frame of a clip: height × width × 3, C-contiguous."""
        self.send(FrameMade(output_index, pixels))

    def reference_engine(self, name: str) -> None:
        """Say how the reference pictures act: `img2img`, `ip_adapter` or `vace`."""
        self.send(ReferenceEngine(name))


@dataclass(frozen=True, slots=True, eq=False)
class RenderTask:
    """One render, as it is put to the engine. The request is valid, and within the engine's limits."""

    request_bytes: bytes
    """A serialised `RenderRequest`."""
    seed: int
    """The seed of output 0."""
    pictures: Mapping[str, Pixels] = field(default_factory=dict)
    """The reference pictures that the request names, at its width and height, by what they are for: `reference` for
    images; `start_frame` and `end_frame` for a clip."""

    @property
    def request(self) -> render_pb2.RenderRequest:
        """What is to be rendered."""
        return render_pb2.RenderRequest.FromString(self.request_bytes)

    def open_session(self, send: Send, cancel: threading.Event) -> RenderSession:
        """Return the session of this render."""
        return RenderSession(send, cancel, wants_previews=self.request.previews)
