"""A small engine without any model; the prompt says what it does. Imported in the child only."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import EngineOutOfMemory, InvalidForEngine, LoadSession, ModelUnavailable
from ourvidz_serving.rendering.engine import EngineInfo, RenderSession, RenderTask

FRAME_SHAPE = (512, 640, 3)


class ScriptedEngine:
    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def load(self, session: LoadSession) -> EngineInfo:
        session.loading("weights")
        if (folder := self._config.get("needs_folder")) and not Path(folder).exists():
            raise ModelUnavailable(f"{folder} is not there")
        if (marker := self._config.get("dies_unless")) and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return EngineInfo("scripted", "none", [(640, 512)], 6, 0, 200)

    def run(self, task: RenderTask, session: RenderSession) -> None:
        images = task.request.images
        getattr(self, f"_{images.sampling.prompt}")(images, task.seed, session)

    def _picture(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        session.warn(f"pid {os.getpid()}")
        for index in range(images.image_count):
            for step in range(1, images.sampling.step_count + 1):
                session.check()
                session.step(step, images.sampling.step_count, index, images.image_count)
                if session.wants_previews:
                    session.preview(np.zeros((4, 4, 3), np.uint8), index, step)
            session.frame(index, np.random.default_rng(seed + index).integers(0, 256, FRAME_SHAPE, np.uint8))
        session.timing("denoise", 0.5)
        session.peak_memory(1 << 40)
        session.memory_rung("vae_tiling")

    def _wait(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        session.step(1, 2, 0, 1)
        while True:
            session.check()
            time.sleep(0.005)

    def _flood(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        for index in range(10_000):
            session.check()
            Path(self._config["count_file"]).write_text(str(index))
            session.frame(index, np.zeros(FRAME_SHAPE, np.uint8))

    def _hang(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        session.step(1, 2, 0, 1)
        while True:
            time.sleep(3600)

    def _crash(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        session.frame(0, np.zeros(FRAME_SHAPE, np.uint8))
        os.kill(os.getpid(), signal.SIGKILL)

    def _oom(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        raise EngineOutOfMemory("no memory is left")

    def _invalid(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        raise InvalidForEngine("no such thing")

    def _bug(self, images: render_pb2.ImageBatch, seed: int, session: RenderSession) -> None:
        raise KeyError("unforeseen")


def create_engine(config: dict[str, Any]) -> ScriptedEngine:
    return ScriptedEngine(config)
