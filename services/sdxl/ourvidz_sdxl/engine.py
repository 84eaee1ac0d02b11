"""The SDXL engine: renders images one after the other with a diffusers pipeline. Lives in the engine process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from ourvidz.api.render.v1 import render_pb2
from ourvidz_models.devices import choose_device, choose_dtype, peak_memory, prepare, reset_peak_memory, synchronize
from ourvidz_models.loading import load_errors, shown_name
from ourvidz_models.memory import MemoryLadder, Rung
from ourvidz_models.previews import latent_preview
from ourvidz_models.timing import timed
from ourvidz_sdxl import latents
from ourvidz_sdxl.conditioning import Conditioning, ReferenceMethod
from ourvidz_sdxl.img2img import Img2Img
from ourvidz_sdxl.ip_adapter import IpAdapter, load_ip_adapter
from ourvidz_sdxl.loading import load_sdxl
from ourvidz_sdxl.sampling import make_scheduler
from ourvidz_serving.engines.engine import LoadSession
from ourvidz_serving.rendering.engine import EngineInfo, Pixels, RenderSession, RenderTask

SIZE = (1024, 1024)
MAX_IMAGES = 6
MAX_STEPS = 200
SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class _Embeddings:
    """An encoded prompt, made once for all images of a job. The negative ones are None without guidance."""

    prompt: torch.Tensor
    negative: torch.Tensor | None
    pooled: torch.Tensor
    negative_pooled: torch.Tensor | None


class SdxlEngine:
    """Implements `ourvidz_serving.engines.engine.Engine`. `config` is `SdxlSettings.engine_config()`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._device = choose_device(config["device"])
        self._pipeline: Any = None
        self._scheduler_config: Any = None
        self._references: ReferenceMethod | None = None
        self._ladder: MemoryLadder | None = None

    def load(self, session: LoadSession) -> EngineInfo:
        """Load the pipeline onto the device. Raises `ModelUnavailable`."""
        config = self._config
        prepare(config)
        session.loading("weights")
        cache, dtype = Path(config["model_cache"]), choose_dtype(config["dtype"], self._device)
        pipeline = load_sdxl(
            config["model"],
            cache=cache,
            single_file_config=Path(config["single_file_config"]) if config["single_file_config"] else None,
            dtype=dtype,
        )
        if config["ip_adapter"]:
            session.loading("IP-Adapter")
            load_ip_adapter(pipeline, config["ip_adapter"], cache=cache, dtype=dtype)
        session.loading(f"weights onto {self._device}")
        with load_errors(config["model"]):
            pipeline.to(self._device)
            self._references = (IpAdapter if config["ip_adapter"] else Img2Img)(pipeline, self._device)
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline
        self._scheduler_config = pipeline.scheduler.config
        self._ladder = MemoryLadder(_rungs(pipeline, self._device), self._device)
        return EngineInfo(
            model=shown_name(config["model"]),
            device=str(self._device),
            sizes=[SIZE],
            max_image_count=MAX_IMAGES,
            max_frame_count=0,
            max_step_count=MAX_STEPS,
        )

    @torch.inference_mode()
    def run(self, task: RenderTask, session: RenderSession) -> None:
        """Render the images of a request, image i with the seed (seed + i) mod 2³²."""
        try:
            self._render(task, session)
        finally:
            # Where idle parts are kept off the GPU, a render that ends early would leave the last one there.
            self._pipeline.maybe_free_model_hooks()

    def _render(self, task: RenderTask, session: RenderSession) -> None:
        images = task.request.images
        assert self._ladder is not None  # noqa: S101  # the server renders only after `load` returned
        reset_peak_memory(self._device)
        for warning in self._cut_warnings(images.sampling):
            session.warn(warning)
        with timed(session, "text_encode"):
            embeddings = self._ladder.run(lambda: self._encode(images.sampling))
        conditioning = self._condition(images, task.pictures.get("reference"), session)
        for index in range(images.image_count):
            image = _Image(images, embeddings, conditioning, index, (task.seed + index) % SEEDS)
            with timed(session, "denoise"):
                denoised = self._ladder.run(lambda image=image: self._denoise(image, session))  # type: ignore[misc]
            session.check()
            with timed(session, "decode"):
                pixels = self._ladder.run(lambda denoised=denoised: self._decode(denoised))  # type: ignore[misc]
            session.frame(index, pixels)
        if self._ladder.rung:
            session.memory_rung(self._ladder.rung)
        session.peak_memory(peak_memory(self._device))

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

    def _condition(self, images: render_pb2.ImageBatch, picture: Pixels | None, session: RenderSession) -> Conditioning:
        assert self._ladder is not None and self._references is not None  # noqa: S101, PT018  # as in `_render`
        references = self._references
        if picture is None:
            return self._ladder.run(lambda: references.without(images))
        session.check()
        session.reference_engine(references.name)
        with timed(session, "reference_encode"):
            return self._ladder.run(lambda: references.follow(images, picture))

    def _denoise(self, image: _Image, session: RenderSession) -> torch.Tensor:
        batch, sampling, embeddings = image.batch, image.batch.sampling, image.embeddings
        pipeline, step_count = image.conditioning.pipeline, image.conditioning.step_count
        pipeline.scheduler = make_scheduler(sampling.sampler, self._scheduler_config)

        def on_step_end(_pipeline: Any, step: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
            synchronize(self._device)
            session.step(step + 1, step_count, image.index, batch.image_count)
            if session.wants_previews:
                session.preview(latent_preview(state["latents"][0]), image.index, step + 1)
            session.check()
            return state

        session.check()
        output = pipeline(
            prompt_embeds=embeddings.prompt,
            negative_prompt_embeds=embeddings.negative,
            pooled_prompt_embeds=embeddings.pooled,
            negative_pooled_prompt_embeds=embeddings.negative_pooled,
            **image.conditioning.arguments,
            guidance_scale=sampling.guidance_scale,
            # On the CPU, so that a seed means the same noise on every device.
            generator=torch.Generator("cpu").manual_seed(image.seed),
            output_type="latent",
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=["latents"],
        )
        denoised: torch.Tensor = output.images
        return denoised

    def _decode(self, denoised: torch.Tensor) -> Pixels:
        picture = self._pipeline.image_processor.postprocess(
            latents.decode(self._pipeline.vae, denoised), output_type="np"
        )
        pixels: Pixels = np.ascontiguousarray((picture[0] * 255).round().astype(np.uint8))
        return pixels

    def _cut_warnings(self, sampling: render_pb2.Sampling) -> Iterator[str]:
        """Say which words of the prompts the text encoders don't see: those that any of the two leaves out."""
        tokenizers = (self._pipeline.tokenizer, self._pipeline.tokenizer_2)
        for name, text in (("prompt", sampling.prompt), ("negative prompt", sampling.negative_prompt)):
            cuts = [cut for tokenizer in tokenizers if (cut := _cut(tokenizer, text))]
            if cuts:
                cut = max(cuts, key=lambda cut: len(cut.lost))
                shown = cut.lost if len(cut.lost) <= 200 else f"{cut.lost[:200].rstrip()}…"
                yield (
                    f"The {name} is longer than the model reads ({cut.tokens} of {cut.room} tokens); "
                    f"left out: “{shown}”"
                )


@dataclass(frozen=True, slots=True)
class _Cut:
    """A text that is longer than a tokenizer's model reads, in tokens, and the words that are lost."""

    tokens: int
    room: int
    lost: str


def _cut(tokenizer: Any, text: str) -> _Cut | None:
    room = tokenizer.model_max_length - 2
    tokens = tokenizer(text, add_special_tokens=False, truncation=False).input_ids
    return _Cut(len(tokens), room, tokenizer.decode(tokens[room:])) if len(tokens) > room else None


@dataclass(frozen=True, slots=True)
class _Image:
    """One image of a batch."""

    batch: render_pb2.ImageBatch
    embeddings: _Embeddings
    conditioning: Conditioning
    index: int
    seed: int


def _rungs(pipeline: diffusers.StableDiffusionXLPipeline, device: torch.device) -> list[Rung]:
    """Return what saves memory: decode in tiles, then keep idle parts off the GPU."""
    rungs: list[Rung] = [("vae_tiling", lambda: _decode_in_tiles(pipeline.vae))]
    if device.type == "cuda":
        rungs.append(("model_cpu_offload", lambda: pipeline.enable_model_cpu_offload(device=device)))
    return rungs


def _decode_in_tiles(vae: diffusers.AutoencoderKL) -> None:
    """Let an autoencoder decode in overlapping tiles of half a picture's side, a quarter of its memory.

    By itself it would tile only what is larger than the pictures that it was trained on, and SDXL's are our largest.
    """
    vae.tile_sample_min_size //= 2
    vae.tile_latent_min_size //= 2
    vae.enable_tiling()
