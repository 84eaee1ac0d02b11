"""A small engine without any model, imported in the child only. Words of the prompt say what it does:

- `hold:I:S`: at step S of image I, tell the test's gate and wait until it lets go
- `endless`: go on with the last step for ever, checking for a cancel
- `chatty`: say 200 kB with each step
- `oom`, `invalid`, `bug`, `few`: fail in that way; `few` leaves the last picture out
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import numpy as np

from ourvidz_serving.engines.engine import EngineOutOfMemory, InvalidForEngine, LoadSession, ModelUnavailable
from ourvidz_serving.rendering.engine import EngineInfo, Pixels, RenderSession, RenderTask

MODEL = "painter"
SIZES = [(64, 48), (128, 48), (128, 96)]


class FakeEngine:
    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def load(self, session: LoadSession) -> EngineInfo:
        if self._config.get("hold_load"):
            self._hold()
        if self._config.get("broken"):
            raise ModelUnavailable("there are no weights")
        return EngineInfo(MODEL, "none", SIZES, 6, 0, 50)

    def run(self, task: RenderTask, session: RenderSession) -> None:
        images, seed = task.request.images, task.seed
        words = images.sampling.prompt.split()
        self._fail(words)
        session.warn("painted, not rendered")
        for index in range(images.image_count - ("few" in words)):
            for step in range(1, images.sampling.step_count + 1):
                session.check()
                if f"hold:{index}:{step}" in words:
                    self._hold()
                if "chatty" in words:
                    session.loading(f"{index}:{step}".ljust(200_000))
                session.step(step, images.sampling.step_count, index, images.image_count)
                if session.wants_previews:
                    session.preview(np.full((512, 256, 3), step, np.uint8), index, step)
            while "endless" in words:
                session.check()
                time.sleep(0.005)
            session.frame(index, paint((seed + index) % 2**32, images.width_px, images.height_px))
        session.timing("denoise", 0.5)
        session.peak_memory(12_345)
        session.memory_rung("vae_tiling")

    def _fail(self, words: list[str]) -> None:
        if "oom" in words:
            raise EngineOutOfMemory("no memory is left")
        if "invalid" in words:
            raise InvalidForEngine("this engine paints no such thing")
        if "bug" in words:
            raise KeyError("unforeseen")

    def _hold(self) -> None:
        with socket.socket(socket.AF_UNIX) as gate:
            gate.connect(self._config["gate"])
            gate.sendall(f"{os.getpid()}\n".encode())
            # The test says something, or is over.
            gate.recv(1)


def paint(seed: int, width_px: int, height_px: int) -> Pixels:
    """The picture that belongs to a seed."""
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), np.uint8)


def create_engine(config: dict[str, Any]) -> FakeEngine:
    return FakeEngine(config)
