"""Processor time of a render through our server, over the same pipeline called in a script.

Run as a program, it is that script: it renders each seed that it reads, and says what it has used.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import psutil  # type: ignore[import-untyped]
from PIL import Image
from rich.console import Console

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_bench.results import Row
from ourvidz_serving.rendering.renderer import SERVICE
from support.program import environment, running_program

TITLE = "A render's processor time, beside plain diffusers"
TEXT = (
    "The miniature SDXL family at 1024×1024, 30 steps, DPM++ 2M Karras, float32, one thread. Ours is the whole server, both "
    "its processes, asked over gRPC, with the picture stored in a local folder; plain is a script that calls the pipeline "
    "and saves what it makes with Pillow. Both have rendered once before, and render the same seeds in turn; pictures are "
    "compared first. Processor time is user and system time of all processes of each side."
)
PACKAGES = ("torch", "diffusers", "transformers")

SIDE = 1024
STEPS = 30
PROMPT = "a lighthouse at dawn"
GUIDANCE = 5.0
_TOLERANCE = 1
"""How far pictures may be from each other, of 255."""


async def measure(rounds: int, console: Console) -> list[Row]:
    """Render the same seeds with the server and with the script, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with _script(folder) as script, _server(folder) as server:
            ours_png, theirs_png = await server.render(0), await script.render(0)
            ours_picture, theirs_picture = (np.asarray(Image.open(io.BytesIO(png))) for png in (ours_png, theirs_png))
            difference = int(np.abs(ours_picture.astype(int) - theirs_picture).max())
            if difference > _TOLERANCE:
                raise RuntimeError(f"the pictures differ by {difference} of 255")
            ours: list[float] = []
            theirs: list[float] = []
            for seed in range(1, rounds + 1):
                console.print(f"round {seed} of {rounds}")
                for side, figures in ((server, ours), (script, theirs)):
                    before = side.processor_s()
                    await side.render(seed)
                    figures.append(side.processor_s() - before)
    row = Row("SDXL miniature, 30 steps, processor time", "s", ours, "plain diffusers", theirs, "≤ 1.05")
    note = f"pictures differ by {difference} of 255"
    if rounds > 1:
        # Two standard errors on either side: 95 % for many rounds, less for a few.
        half = 2 * stdev(row.ratios) / rounds**0.5
        note += f"; the mean ratio is {mean(row.ratios):.3f} ± {half:.3f} (two standard errors)"
    return [Row(row.what, row.unit, ours, row.beside, theirs, row.goal, f"{note}.")]


class _Server:
    """The SDXL server under test."""

    def __init__(
        self, stub: render_pb2_grpc.RenderServiceAsyncStub, objects: Path, processes: list[psutil.Process]
    ) -> None:
        self._stub = stub
        self._objects = objects
        self._processes = processes

    async def render(self, seed: int) -> bytes:
        """Render, and return the PNG that was stored."""
        sampling = render_pb2.Sampling(prompt=PROMPT, step_count=STEPS, guidance_scale=GUIDANCE, seed=seed)
        batch = render_pb2.ImageBatch(sampling=sampling, width_px=SIDE, height_px=SIDE, image_count=1)
        place = render_pb2.OutputLocation(bucket="sdxl-image-fast", prefix=f"user/job-{seed}/1")
        request = render_pb2.RenderRequest(render_id=f"job-{seed}/1", images=batch, output=place)
        events = [event async for event in self._stub.Render(request)]
        [output] = events[-1].finished.outputs
        png: bytes = (self._objects / output.bucket / output.key).read_bytes()
        return png

    def processor_s(self) -> float:
        """What its processes have used."""
        return _used(self._processes)


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[_Server]:
    objects = folder / "objects"
    storage = {"OURVIDZ_STORAGE_KIND": "local", "OURVIDZ_STORAGE_PATH": str(objects)}
    variables = {**environment("ourvidz_sdxl", folder), **storage}
    others = set(psutil.Process().children(recursive=True))
    async with running_program("ourvidz_sdxl", SERVICE, variables) as program:
        processes = [each for each in psutil.Process().children(recursive=True) if each not in others]
        yield _Server(
            render_pb2_grpc.RenderServiceStub(program.channel),
            objects,
            processes,
        )


class _Script:
    """The script that it is compared with."""

    def __init__(self, process: asyncio.subprocess.Process, picture: Path) -> None:
        self._process = process
        self._picture = picture

    async def render(self, seed: int) -> bytes:
        """Render, and return the PNG that was saved."""
        if not (self._process.stdin and self._process.stdout):
            raise RuntimeError("the script was started without pipes")
        self._process.stdin.write(f"{seed}\n".encode())
        if not await self._process.stdout.readline():
            raise RuntimeError("the script has ended")
        return self._picture.read_bytes()

    def processor_s(self) -> float:
        """What it has used."""
        return _used([psutil.Process(self._process.pid)])


@asynccontextmanager
async def _script(folder: Path) -> AsyncIterator[_Script]:
    picture = folder / "plain.png"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(folder), str(picture), stdin=pipe, stdout=pipe
    )
    try:
        yield _Script(process, picture)
    finally:
        if process.stdin:
            process.stdin.close()
        await process.wait()


def _used(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def _plain(cache: Path, picture: Path) -> None:
    import diffusers  # the program alone needs it
    import torch

    from ourvidz_miniature.sdxl import ensure_miniature_sdxl

    torch.set_num_threads(1)
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
        ensure_miniature_sdxl(cache), dtype=torch.float32, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.scheduler.config
    for line in sys.stdin:
        pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
        [made] = pipeline(
            PROMPT,
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(int(line)),
        ).images
        made.save(picture)
        print(line.strip(), flush=True)


if __name__ == "__main__":
    _plain(Path(sys.argv[1]), Path(sys.argv[2]))
