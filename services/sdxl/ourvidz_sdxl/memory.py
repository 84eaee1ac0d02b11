"""What the engine does when GPU memory runs out: one rung of a ladder after the other, then give up."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import diffusers
import torch

from ourvidz_serving.rendering.engine import EngineOutOfMemory

Result = TypeVar("Result")


class MemoryLadder:
    """The rungs of one loaded pipeline: decode in tiles, then keep idle parts off the GPU.

    A rung that was needed stays in use: the next render would need it too.
    """

    def __init__(self, pipeline: diffusers.StableDiffusionXLPipeline, device: torch.device) -> None:
        self._device = device
        self._rungs: list[tuple[str, Callable[[], None]]] = [("vae_tiling", lambda: _decode_in_tiles(pipeline.vae))]
        if device.type == "cuda":
            self._rungs.append(("model_cpu_offload", lambda: pipeline.enable_model_cpu_offload(device=device)))
        self.rung = ""
        """The rung in use; empty for none."""

    def run(self, work: Callable[[], Result]) -> Result:
        """Do `work`, again from its start after each rung that it takes. Raises `EngineOutOfMemory` past the last."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if not self._rungs:
                    raise EngineOutOfMemory("GPU memory ran out, and everything that saves some was tried") from error
            # Outside the handler, where the error no longer holds on to what the failed work had allocated.
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self.rung, take = self._rungs.pop(0)
            take()


def _decode_in_tiles(vae: diffusers.AutoencoderKL) -> None:
    """Let an autoencoder decode in overlapping tiles of half a picture's side, a quarter of its memory.

    By itself it would tile only what is larger than the pictures that it was trained on, and SDXL's are our largest.
    """
    vae.tile_sample_min_size //= 2
    vae.tile_latent_min_size //= 2
    vae.enable_tiling()
