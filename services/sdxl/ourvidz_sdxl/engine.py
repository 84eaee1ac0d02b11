"""The SDXL engine: renders images one after the other with a diffusers pipeline. Lives in the engine process."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from ourvidz.api.render.v1 import render_pb2
from ourvidz_sdxl.loading import load_pipeline
from ourvidz_sdxl.memory import MemoryLadder
from ourvidz_sdxl.sampling import make_scheduler
from ourvidz_serving.rendering.engine import EngineInfo, InvalidForEngine, LoadSession, Pixels, RenderSession

SIZE = (1024, 1024)
MAX_IMAGES = 6
MAX_STEPS = 200
PREVIEW_PX = 256
SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class _Embeddings:
    """An encoded prompt, made once for all images of a job. The negative ones are None without guidance."""

    prompt: torch.Tensor
    negative: torch.Tensor | None
    pooled: torch.Tensor
    negative_pooled: torch.Tensor | None


class SdxlEngine:
    """Implements `ourvidz_serving.rendering.engine.Engine`. `config` is `SdxlSettings.engine_config()`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._device = torch.device(_choose_device(config["device"]))
        self._pipeline: Any = None
        self._scheduler_config: Any = None
        self._ladder: MemoryLadder | None = None

    def load(self, session: LoadSession) -> EngineInfo:
        """Load the pipeline onto the device. Raises `ModelUnavailable`."""
        # What the libraries would print is either in our own progress and warnings or of no use to an operator. They
        # import most of themselves when it is first used, that is, after this.
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        config = self._config
        if config["threads"]:
            torch.set_num_threads(config["threads"])
        session.loading("weights")
        pipeline = load_pipeline(
            config["model"],
            cache=Path(config["model_cache"]),
            single_file_config=Path(config["single_file_config"]) if config["single_file_config"] else None,
            dtype=_choose_dtype(config["dtype"], self._device),
        )
        session.loading(f"weights onto {self._device}")
        pipeline.to(self._device)
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline
        self._scheduler_config = pipeline.scheduler.config
        self._ladder = MemoryLadder(pipeline, self._device)
        return EngineInfo(
            model=_shown_name(config["model"]),
            device=str(self._device),
            sizes=[SIZE],
            max_image_count=MAX_IMAGES,
            max_frame_count=0,
            max_step_count=MAX_STEPS,
        )

    @torch.inference_mode()
    def render(self, request: render_pb2.RenderRequest, seed: int, session: RenderSession) -> None:
        """Render the images of a request, image i with the seed (seed + i) mod 2³²."""
        images = request.images
        if images.HasField("reference"):
            raise InvalidForEngine("this renderer takes no reference images yet")
        assert self._ladder is not None  # noqa: S101  # the server renders only after `load` returned
        self._reset_peak_memory()
        for warning in self._cut_warnings(images.sampling):
            session.warn(warning)
        with _timed(session, "text_encode"):
            embeddings = self._ladder.run(lambda: self._encode(images.sampling))
        for index in range(images.image_count):
            image = _Image(images, embeddings, index, (seed + index) % SEEDS)
            with _timed(session, "denoise"):
                latents = self._ladder.run(lambda image=image: self._denoise(image, session))  # type: ignore[misc]
            session.check()
            with _timed(session, "decode"):
                pixels = self._ladder.run(lambda latents=latents: self._decode(latents))  # type: ignore[misc]
            session.frame(index, pixels)
        if self._ladder.rung:
            session.memory_rung(self._ladder.rung)
        session.peak_memory(self._peak_memory())

    def _encode(self, sampling: render_pb2.Sampling) -> _Embeddings:
        embeddings = self._pipeline.encode_prompt(
            prompt=sampling.prompt,
            # None and "" differ: SDXL's guidance without a negative prompt is against zeros, not against "".
            negative_prompt=sampling.negative_prompt or None,
            device=self._device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=sampling.guidance_scale > 1.0,
        )
        return _Embeddings(*embeddings)

    def _denoise(self, image: _Image, session: RenderSession) -> torch.Tensor:
        batch, sampling, embeddings = image.batch, image.batch.sampling, image.embeddings
        self._pipeline.scheduler = make_scheduler(sampling.sampler, self._scheduler_config)

        def on_step_end(_pipeline: Any, step: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
            if self._device.type == "cuda":
                # The GPU runs behind this loop. Waiting for it makes a step that is told one that is done, and lets a
                # cancel stop the work itself.
                torch.cuda.synchronize(self._device)
            session.step(step + 1, sampling.step_count, image.index, batch.image_count)
            if session.wants_previews:
                session.preview(_preview(state["latents"]), image.index, step + 1)
            session.check()
            return state

        session.check()
        output = self._pipeline(
            prompt_embeds=embeddings.prompt,
            negative_prompt_embeds=embeddings.negative,
            pooled_prompt_embeds=embeddings.pooled,
            negative_pooled_prompt_embeds=embeddings.negative_pooled,
            width=batch.width_px,
            height=batch.height_px,
            num_inference_steps=sampling.step_count,
            guidance_scale=sampling.guidance_scale,
            # On the CPU, so that a seed means the same noise on every device.
            generator=torch.Generator("cpu").manual_seed(image.seed),
            output_type="latent",
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=["latents"],
        )
        latents: torch.Tensor = output.images
        return latents

    def _decode(self, latents: torch.Tensor) -> Pixels:
        """Turn latents into a picture, as the stock pipeline does."""
        vae = self._pipeline.vae
        upcast = vae.dtype == torch.float16 and vae.config.force_upcast
        if upcast:
            # SDXL's own autoencoder overflows in half precision.
            vae.to(dtype=torch.float32)
        try:
            latents = _unscale(latents.to(vae.dtype), vae.config)
            picture = self._pipeline.image_processor.postprocess(
                vae.decode(latents, return_dict=False)[0], output_type="np"
            )
        finally:
            if upcast:
                vae.to(dtype=torch.float16)
        pixels: Pixels = np.ascontiguousarray((picture[0] * 255).round().astype(np.uint8))
        return pixels

    def _cut_warnings(self, sampling: render_pb2.Sampling) -> Iterator[str]:
        """Say which words of the prompts the text encoders don't see."""
        tokenizer = self._pipeline.tokenizer
        room = tokenizer.model_max_length - 2
        for name, text in (("prompt", sampling.prompt), ("negative prompt", sampling.negative_prompt)):
            tokens = tokenizer(text, add_special_tokens=False, truncation=False).input_ids
            if len(tokens) > room:
                lost = tokenizer.decode(tokens[room:])
                shown = lost if len(lost) <= 200 else f"{lost[:200].rstrip()}…"
                yield f"The {name} is longer than the model reads ({len(tokens)} of {room} tokens); left out: “{shown}”"

    def _reset_peak_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def _peak_memory(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True, slots=True)
class _Image:
    """One image of a batch."""

    batch: render_pb2.ImageBatch
    embeddings: _Embeddings
    index: int
    seed: int


def _choose_device(name: str) -> str:
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _choose_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return dtypes[name]


def _shown_name(model: str) -> str:
    """Return the model's name without the folders above it, which are the operator's own affair."""
    path = Path(model).expanduser()
    return path.name if path.exists() else model


def _unscale(latents: torch.Tensor, config: Any) -> torch.Tensor:
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        unscaled: torch.Tensor = latents / config.scaling_factor
        return unscaled
    shape = (1, latents.shape[1], 1, 1)
    mean, std = (torch.tensor(each, device=latents.device, dtype=latents.dtype).view(shape) for each in (mean, std))
    unscaled = latents * std / config.scaling_factor + mean
    return unscaled  # noqa: RET504  # named for its type


def _preview(latents: torch.Tensor) -> Pixels:
    """Return a small picture of latents: three of their channels as colours, each stretched to its full range."""
    colours = latents[0, :3].float()
    low, high = colours.amin((1, 2), keepdim=True), colours.amax((1, 2), keepdim=True)
    scaled = (colours - low) / (high - low).clamp(min=1e-6)
    longer = max(scaled.shape[1:])
    size = tuple(side * PREVIEW_PX // longer for side in scaled.shape[1:])
    enlarged = torch.nn.functional.interpolate(scaled[None], size=size, mode="bilinear")[0]
    pixels: Pixels = np.ascontiguousarray((enlarged * 255).byte().permute(1, 2, 0).cpu().numpy())
    return pixels


@contextmanager
def _timed(session: RenderSession, stage: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    session.timing(stage, time.perf_counter() - begun)
