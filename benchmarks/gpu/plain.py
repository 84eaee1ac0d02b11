"""Renders with plain diffusers calls, as its documentation shows them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.utils import export_to_video
from PIL import Image

from ourvidz_serving.rendering.engine import Pixels
from recipes import Recipe

Plain = Callable[[Recipe], tuple[list[Pixels], float]]
"""Renders a recipe and saves it; returns its frames, and the seconds that it took."""


def plain_sdxl(folder: Path, device: torch.device, dtype: torch.dtype) -> Plain:
    """Return the stock text-to-image call."""
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=dtype, add_watermarker=False)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.scheduler.config

    def render(recipe: Recipe) -> tuple[list[Pixels], float]:
        sampling = recipe.sampling
        begun = time.perf_counter()
        pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
        [picture] = pipeline(
            sampling.prompt,
            width=recipe.size[0],
            height=recipe.size[1],
            num_inference_steps=sampling.step_count,
            guidance_scale=sampling.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(sampling.seed),
        ).images
        with tempfile.TemporaryDirectory() as place:
            picture.save(Path(place) / "0.png")
        return [np.asarray(picture)], time.perf_counter() - begun

    return render


def plain_wan(folder: Path, vace_folder: Path, device: torch.device, dtype: torch.dtype) -> Plain:
    """Return the stock calls of both Wan pipelines, which share what they can."""
    vae = diffusers.AutoencoderKLWan.from_pretrained(folder, subfolder="vae", dtype=torch.float32)
    text = diffusers.WanPipeline.from_pretrained(folder, vae=vae, dtype=dtype).to(device)
    transformer = diffusers.WanVACETransformer3DModel.from_pretrained(
        vace_folder, subfolder="transformer", dtype=dtype
    ).to(device)
    vace = diffusers.WanVACEPipeline(
        tokenizer=text.tokenizer,
        text_encoder=text.text_encoder,
        vae=vae,
        scheduler=text.scheduler,
        transformer=transformer,
    )
    config = text.scheduler.config
    for pipeline in (text, vace):
        pipeline.set_progress_bar_config(disable=True)

    def render(recipe: Recipe) -> tuple[list[Pixels], float]:
        sampling = recipe.sampling
        frame_count = recipe.request.clip.frame_count if recipe.is_clip else 1
        rendered_count = -(-(frame_count - 1) // 4) * 4 + 1
        begun = time.perf_counter()
        pipeline = vace if recipe.pictures else text
        pipeline.scheduler = diffusers.UniPCMultistepScheduler.from_config(config, flow_shift=sampling.flow_shift)
        frames = pipeline(
            prompt=sampling.prompt,
            negative_prompt=sampling.negative_prompt,
            width=recipe.size[0],
            height=recipe.size[1],
            num_frames=rendered_count,
            num_inference_steps=sampling.step_count,
            guidance_scale=sampling.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(sampling.seed),
            output_type="np",
            **(_conditioning(recipe, rendered_count) if recipe.pictures else {}),
        ).frames[0][:frame_count]
        with tempfile.TemporaryDirectory() as place:
            if recipe.is_clip:
                export_to_video(list(frames), str(Path(place) / "0.mp4"), fps=17)
            else:
                Image.fromarray((frames[0] * 255).round().astype(np.uint8)).save(Path(place) / "0.png")
        seconds = time.perf_counter() - begun
        return list((frames * 255).round().astype(np.uint8)), seconds

    return render


def _conditioning(recipe: Recipe, rendered_count: int) -> dict[str, Any]:
    """Return video and mask: the pictures given where the mask is black, grey where it is white."""
    width, height = recipe.size
    grey, white, black = (Image.new(*each) for each in (
        ("RGB", (width, height), (128, 128, 128)), ("L", (width, height), 255), ("L", (width, height), 0)
    ))  # fmt: skip
    video, mask = [grey] * rendered_count, [white] * rendered_count
    video[0], mask[0] = Image.fromarray(recipe.pictures["start_frame"]), black
    for index in range(recipe.request.clip.frame_count - 1, rendered_count):
        video[index], mask[index] = Image.fromarray(recipe.pictures["end_frame"]), black
    return {"video": video, "mask": mask, "conditioning_scale": recipe.request.clip.conditioning_scale}
