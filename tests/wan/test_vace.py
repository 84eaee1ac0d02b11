from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanVACEPipeline

from ourvidz_wan.conditioning import condition_frames
from ourvidz_wan.vace import VideoLatents
from support.wan import gradient_picture

SIZE = (96, 160)


@pytest.fixture(scope="module")
def pipeline(miniature_wan_vace: Path) -> WanVACEPipeline:
    return WanVACEPipeline.from_pretrained(miniature_wan_vace)


def conditions(pipeline: WanVACEPipeline, *, turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip of nine frames whose first and last are given, as the pipeline hands it to the encoder."""
    pictures = {"start_frame": gradient_picture(SIZE, turned=turned), "end_frame": gradient_picture(SIZE)}
    frames = condition_frames(pictures, frame_count=7, rendered_count=9)
    width, height = SIZE
    video, mask, _ = pipeline.preprocess_conditions(
        frames.video, frames.mask, None, 1, height, width, 9, torch.float32, torch.device("cpu")
    )
    return video, mask


@torch.inference_mode()
def test_the_latents_are_those_of_the_stock_pipeline_also_when_half_of_them_is_kept(pipeline: WanVACEPipeline) -> None:
    ours = VideoLatents(pipeline.vae)
    for turned in (False, True):
        video, mask = conditions(pipeline, turned=turned)
        stock = pipeline.prepare_video_latents(video, mask, [[]], None, torch.device("cpu"))
        np.testing.assert_array_equal(ours(video, mask).numpy(), stock.numpy())


@torch.inference_mode()
def test_what_is_gray_all_over_is_encoded_once_for_each_size(pipeline: WanVACEPipeline) -> None:
    calls: list[torch.Size] = []
    hook = pipeline.vae.encoder.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape))
    ours = VideoLatents(pipeline.vae)
    video, mask = conditions(pipeline, turned=False)
    counts = []
    for frames in (9, 9, 5):
        calls.clear()
        ours(video[:, :, :frames], mask[:, :, :frames])
        counts.append(len(calls))
    hook.remove()
    # Nine frames are three latent ones, five are two.
    assert counts == [6, 3, 4]


@torch.inference_mode()
def test_only_a_few_sizes_are_kept(pipeline: WanVACEPipeline) -> None:
    ours = VideoLatents(pipeline.vae)
    for height in range(32, 32 * 8, 32):
        ours(torch.zeros(1, 3, 1, height, 32), torch.ones(1, 1, 1, height, 32))
    assert len(ours._gray) == 4
