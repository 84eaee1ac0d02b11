"""A small engine without any model, imported in the child only. Words of the prompt say what it does:

- `hold:I:S`: at step S of image I, tell the test's gate and wait until it lets go
- `hold-frame:F`: the same before frame F of a clip; `hold-after`: after its last frame
- `endless`: go on with the last step for ever, checking for a cancel
- `chatty`: say 200 kB with each step
- `pace:MS`: each step takes that many milliseconds
- `noisy`: previews are noise, and so as large as previews get; `unseen`: there are none
- `die:I:S`: the process is killed before step S of image I; `die-first:I:S`: only in the job's first attempt
- `wait-for:PATH`: before its last step, wait until that file is there
- `die-while:PATH`: the process is killed at once if that file is there
- `echo`: make the reference pictures themselves: each image the one, or a clip's first and last frame
- `oom`, `invalid`, `bug`: fail in that way
- `few`, `many`, `small`: make one picture or frame too few, one too many, or all of half the size
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from ourvidz_serving.engines.engine import EngineOutOfMemory, InvalidForEngine, LoadSession, ModelUnavailable
from ourvidz_serving.rendering.engine import EngineInfo, Pixels, RenderSession, RenderTask

MODEL = "painter"
SIZES = [(64, 48), (128, 48), (128, 96)]


class FakeEngine:
    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._render_id = ""

    def load(self, session: LoadSession) -> EngineInfo:
        if self._config.get("hold_load"):
            self._hold()
        if self._config.get("broken"):
            raise ModelUnavailable("there are no weights")
        sizes = [(width, height) for width, height in self._config.get("sizes", SIZES)]
        max_frames, max_steps = self._config.get("max_frame_count", 0), self._config.get("max_step_count", 50)
        return EngineInfo(MODEL, "none", sizes, 6, max_frames, max_steps)

    def run(self, task: RenderTask, session: RenderSession) -> None:
        request = task.request
        words = (request.clip if request.HasField("clip") else request.images).sampling.prompt.split()
        self._fail(words)
        session.warn("painted, not rendered")
        if task.pictures:
            session.reference_engine("echo")
        if b"\x89PNG" in task.request_bytes:
            session.warn("the request carries a file")
        self._render_id = request.render_id
        if request.HasField("clip"):
            self._make_clip(task, words, session)
        else:
            self._make_images(task, words, session)
        session.timing("denoise", 0.5)
        session.peak_memory(12_345)
        session.memory_rung("vae_tiling")

    def _make_images(self, task: RenderTask, words: list[str], session: RenderSession) -> None:
        images = task.request.images
        for index in range(images.image_count - ("few" in words)):
            self._denoise(words, session, images.sampling.step_count, index, images.image_count)
            picture = paint((task.seed + index) % 2**32, images.width_px, images.height_px)
            session.frame(index, task.pictures["reference"] if "echo" in words else picture)

    def _make_clip(self, task: RenderTask, words: list[str], session: RenderSession) -> None:
        clip = task.request.clip
        self._denoise(words, session, clip.sampling.step_count, 0, 1)
        echoed = {0: "start_frame", clip.frame_count - 1: "end_frame"} if "echo" in words else {}
        for index in range(clip.frame_count - ("few" in words) + ("many" in words)):
            session.check()
            if f"hold-frame:{index}" in words:
                self._hold()
            pixels = paint_frame(task.seed, index, clip.width_px, clip.height_px)
            if echoed.get(index) in task.pictures:
                pixels = task.pictures[echoed[index]]
            if count_file := self._config.get("count_file"):
                with Path(count_file).open("ab") as file:
                    file.write(b".")
            session.frame(0, pixels[::2, ::2].copy() if "small" in words else pixels)
        if "hold-after" in words:
            self._hold()

    def _denoise(self, words: list[str], session: RenderSession, steps: int, index: int, count: int) -> None:
        for step in range(1, steps + 1):
            session.check()
            if f"hold:{index}:{step}" in words:
                self._hold()
            if f"die:{index}:{step}" in words or (
                f"die-first:{index}:{step}" in words and self._render_id.endswith("/1")
            ):
                os.kill(os.getpid(), signal.SIGKILL)
            if step == steps:
                self._wait(words, session)
            if "chatty" in words:
                session.loading(f"{index}:{step}".ljust(200_000))
            time.sleep(sum(float(word.removeprefix("pace:")) for word in words if word.startswith("pace:")) / 1000)
            self._note_step(index, step)
            session.step(step, steps, index, count)
            if session.wants_previews and "unseen" not in words:
                pixels = paint(step, 256, 256) if "noisy" in words else np.full((512, 256, 3), step, np.uint8)
                session.preview(pixels, index, step)
        while "endless" in words:
            session.check()
            time.sleep(0.005)

    def _wait(self, words: list[str], session: RenderSession) -> None:
        awaited = [Path(word.removeprefix("wait-for:")) for word in words if word.startswith("wait-for:")]
        while not all(path.exists() for path in awaited):
            session.check()
            time.sleep(0.005)

    def _note_step(self, index: int, step: int) -> None:
        if steps_file := self._config.get("steps_file"):
            done = {"render": self._render_id, "image": index, "step": step, "pid": os.getpid()}
            line = json.dumps({**done, "monotonic_ns": time.monotonic_ns()})
            with Path(steps_file).open("a") as file:
                file.write(f"{line}\n")

    def _fail(self, words: list[str]) -> None:
        if any(word.startswith("die-while:") and Path(word.removeprefix("die-while:")).exists() for word in words):
            os.kill(os.getpid(), signal.SIGKILL)
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


def paint_frame(seed: int, index: int, width_px: int, height_px: int) -> Pixels:
    """Frame `index` of the clip that belongs to a seed: coloured squares that move to the right, 8 pixels a frame."""
    squares = paint(seed, width_px // 16, height_px // 16).repeat(16, 0).repeat(16, 1)
    return np.roll(squares, 8 * index, axis=1)


def create_engine(config: dict[str, Any]) -> FakeEngine:
    return FakeEngine(config)
