"""The WAN engine: renders a clip or a still with diffusers pipelines. Lives in the engine process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch

from ourvidz.api.render.v1 import render_pb2
from ourvidz_models.devices import choose_device, choose_dtype, peak_memory, prepare, reset_peak_memory, synchronize
from ourvidz_models.loading import load_errors, shown_name
from ourvidz_models.memory import MemoryLadder, Rung
from ourvidz_models.previews import latent_preview
from ourvidz_models.timing import timed
from ourvidz_serving.engines.engine import InvalidForEngine, LoadSession
from ourvidz_serving.rendering.engine import EngineInfo, Pixels, RenderSession, RenderTask
from ourvidz_wan.conditioning import condition_frames
from ourvidz_wan.decoding import decode_frames
from ourvidz_wan.loading import WanModels, load_wan
from ourvidz_wan.prompts import Embeddings, cut_warnings, encode
from ourvidz_wan.residency import TEXT_ENCODER, TEXT_TRANSFORMER, VACE_TRANSFORMER, Policy, Residency, choose_policy
from ourvidz_wan.vace import VideoLatents

SIZES = [(480, 832), (832, 480)]
MAX_FRAMES = 161
MAX_STEPS = 200
FLOW_SHIFT = 3.0
CONDITIONING_SCALE = 0.5

_SAMPLERS = {render_pb2.SAMPLER_UNSPECIFIED, render_pb2.SAMPLER_UNIPC}


@dataclass(frozen=True, slots=True)
class _Clip:
    """What is to be made: a clip, or a still as a clip of one frame."""

    sampling: render_pb2.Sampling
    width_px: int
    height_px: int
    frame_count: int
    seed: int
    pictures: Mapping[str, Pixels] = field(default_factory=dict)
    conditioning_scale: float = CONDITIONING_SCALE

    @property
    def rendered_count(self) -> int:
        """The frames to render: Wan makes one, and then four at a time; those over `frame_count` are dropped."""
        return 4 * -(-(self.frame_count - 1) // 4) + 1


class WanEngine:
    """Implements `ourvidz_serving.engines.engine.Engine`. `config` is `WanSettings.engine_config()`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._device = choose_device(config["device"])
        self._models: WanModels
        self._residency: Residency
        self._ladder: MemoryLadder

    def load(self, session: LoadSession) -> EngineInfo:
        """Load both pipelines and move what is to be resident onto the device. Raises `ModelUnavailable`."""
        config = self._config
        prepare(config)
        self._models = load_wan(
            config["model"],
            config["vace_model"],
            cache=Path(config["model_cache"]),
            dtype=choose_dtype(config["dtype"], self._device),
            session=session,
        )
        text, vace = self._models.text, self._models.vace
        for pipeline in (text, vace):
            pipeline.set_progress_bar_config(disable=True)
        vace.prepare_video_latents = VideoLatents(vace.vae)
        parts = {
            TEXT_ENCODER: text.text_encoder,
            TEXT_TRANSFORMER: text.transformer,
            VACE_TRANSFORMER: vace.transformer,
        }
        with load_errors(config["model"]):
            policy = choose_policy(config["residency"], parts, self._device)
            self._residency = Residency(parts, self._device, policy)
            text.vae.to(self._device)
            self._residency.fill(session.loading)
        self._ladder = MemoryLadder(self._rungs(), self._device)
        return EngineInfo(
            model=shown_name(config["model"]),
            device=str(self._device),
            sizes=SIZES,
            max_image_count=1,
            max_frame_count=MAX_FRAMES,
            max_step_count=MAX_STEPS,
        )

    @torch.inference_mode()
    def run(self, task: RenderTask, session: RenderSession) -> None:
        """Render the clip or the still of a request, and send its frames as each is decoded."""
        clip = _read(task)
        if clip.sampling.sampler not in _SAMPLERS:
            name = render_pb2.Sampler.Name(clip.sampling.sampler)
            raise InvalidForEngine(f"this renderer has no sampler but UniPC, and {name} was asked for")
        reset_peak_memory(self._device)
        for warning in cut_warnings(self._models.text, clip.sampling):
            session.warn(warning)
        embeddings = self._ladder.run(lambda: self._encode_prompt(clip, session))
        latents = self._ladder.run(lambda: self._denoise(clip, embeddings, session))
        sent = 0

        def decode() -> None:
            nonlocal sent
            self._residency.leave_room(session.loading)
            for index, frame in enumerate(self._decode(latents, clip.frame_count, session)):
                # After a rung of the ladder it begins anew, and those before have been sent.
                if index >= sent:
                    session.frame(0, frame)
                    sent += 1

        self._ladder.run(decode)
        if self._ladder.rung:
            session.memory_rung(self._ladder.rung)
        session.peak_memory(peak_memory(self._device))

    def _encode_prompt(self, clip: _Clip, session: RenderSession) -> Embeddings:
        self._need(TEXT_ENCODER, session)
        with timed(session, "text_encode"):
            return encode(self._models.text, clip.sampling, self._device)

    def _denoise(self, clip: _Clip, embeddings: Embeddings, session: RenderSession) -> torch.Tensor:
        """Return the clip's latents: 1 × channels × latent frames × height × width."""
        pipeline, part, given = self._models.text, TEXT_TRANSFORMER, {}
        if clip.pictures:
            session.reference_engine("vace")
            pipeline, part = self._models.vace, VACE_TRANSFORMER
            frames = condition_frames(clip.pictures, frame_count=clip.frame_count, rendered_count=clip.rendered_count)
            given = {"video": frames.video, "mask": frames.mask, "conditioning_scale": clip.conditioning_scale}
        self._need(part, session)
        sampling = clip.sampling
        # A scheduler keeps the state of its last run, so each render gets one of its own.
        shift = sampling.flow_shift if sampling.HasField("flow_shift") else FLOW_SHIFT
        pipeline.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=shift)

        def on_step_end(_pipeline: Any, step: int, _timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
            synchronize(self._device)
            session.step(step + 1, sampling.step_count, 0, 1)
            if session.wants_previews:
                latents = state["latents"][0]
                session.preview(latent_preview(latents[:, latents.shape[1] // 2]), 0, step + 1)
            session.check()
            return state

        session.check()
        with _on_its_autoencoders_device(pipeline), _timed_denoising(pipeline, session):
            output = pipeline(
                prompt_embeds=embeddings.prompt,
                negative_prompt_embeds=embeddings.negative,
                width=clip.width_px,
                height=clip.height_px,
                num_frames=clip.rendered_count,
                num_inference_steps=sampling.step_count,
                guidance_scale=sampling.guidance_scale,
                # On the CPU, so that a seed means the same noise on every device.
                generator=torch.Generator("cpu").manual_seed(clip.seed),
                output_type="latent",
                callback_on_step_end=on_step_end,
                callback_on_step_end_tensor_inputs=["latents"],
                **given,
            )
        latents: torch.Tensor = output.frames
        return latents

    def _decode(self, latents: torch.Tensor, frame_count: int, session: RenderSession) -> Iterator[Pixels]:
        """Yield the first `frame_count` frames. The time that the receiver of a frame takes is not counted."""
        pieces = decode_frames(self._models.text.vae, latents)
        seconds, left = 0.0, frame_count
        while left > 0:
            session.check()
            begun = time.perf_counter()
            frames = next(pieces)[:left]
            seconds += time.perf_counter() - begun
            left -= len(frames)
            yield from frames
        session.timing("decode", seconds)

    def _need(self, part: str, session: RenderSession) -> None:
        begun = time.perf_counter()
        if self._residency.need(part, session.loading):
            session.timing("load", time.perf_counter() - begun)

    def _rungs(self) -> list[Rung]:
        """Return what saves memory: one transformer on the GPU instead of two, then one part of the models."""
        if self._device.type != "cuda":
            return []
        rungs: list[Rung] = [("swap", lambda: self._set_policy("swap"))] if self._residency.policy == "both" else []
        return [*rungs, ("model_cpu_offload", lambda: self._set_policy("one"))]

    def _set_policy(self, policy: Policy) -> None:
        self._residency.policy = policy


def _read(task: RenderTask) -> _Clip:
    """Return what a request asks for. Raises `InvalidForEngine` for what stills can't have."""
    request = task.request
    if request.HasField("clip"):
        clip = request.clip
        scale = clip.conditioning_scale if clip.HasField("conditioning_scale") else CONDITIONING_SCALE
        return _Clip(clip.sampling, clip.width_px, clip.height_px, clip.frame_count, task.seed, task.pictures, scale)
    images = request.images
    if images.HasField("reference"):
        raise InvalidForEngine("this renderer takes no reference picture for a still image")
    return _Clip(images.sampling, images.width_px, images.height_px, 1, task.seed)


@contextmanager
def _on_its_autoencoders_device(pipeline: Any) -> Iterator[None]:
    """Let a pipeline's call run where its autoencoder is, which never moves.

    It runs where its first part is, and that is the text encoder: done with its work, it may be in main memory.
    """
    encoder, pipeline.text_encoder = pipeline.text_encoder, None
    try:
        yield
    finally:
        pipeline.text_encoder = encoder


@contextmanager
def _timed_denoising(pipeline: Any, session: RenderSession) -> Iterator[None]:
    """Time a pipeline's call: until its transformer is first used, given frames are encoded, and then it denoises.

    Also lets a cancel stop that encoding, between two pieces of it.
    """
    begun = time.perf_counter()
    first: list[float] = []

    def on_transformer(*_: Any) -> None:
        first.append(time.perf_counter())
        on_first.remove()

    on_first = pipeline.transformer.register_forward_pre_hook(on_transformer)
    on_encode = pipeline.vae.encoder.register_forward_pre_hook(lambda *_: session.check())
    try:
        yield
    finally:
        on_first.remove()
        on_encode.remove()
    if isinstance(pipeline, diffusers.WanVACEPipeline):
        session.timing("reference_encode", first[0] - begun)
        begun = first[0]
    session.timing("denoise", time.perf_counter() - begun)
