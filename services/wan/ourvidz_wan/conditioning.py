"""What VACE is shown of the frames that a clip must begin or end with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ourvidz_serving.rendering.engine import Pixels

_UNKNOWN = 0.5
"""The gray that stands for what is not given."""


@dataclass(frozen=True, slots=True)
class FrameConditioning:
    """The `video` and `mask` of a VACE pipeline."""

    video: torch.Tensor
    """1 × frames × 3 × height × width, 0 to 1: the frames that are given; gray elsewhere."""
    mask: torch.Tensor
    """1 × frames × 1 × height × width: 0 where a frame is given, 1 where it is to be made."""


def condition_frames(pictures: Mapping[str, Pixels], *, frame_count: int, rendered_count: int) -> FrameConditioning:
    """Return what shows VACE the `start_frame` and the `end_frame` among `pictures`, at least one of them.

    Of `rendered_count` frames the first `frame_count` are kept. The end frame is the last of these, and all that come
    after it: those share its latent frame, which would otherwise be for the most part gray.
    """
    height, width, _ = next(iter(pictures.values())).shape
    video = torch.full((1, rendered_count, 3, height, width), _UNKNOWN)
    mask = torch.ones(1, rendered_count, 1, height, width)
    places = {"start_frame": slice(0, 1), "end_frame": slice(frame_count - 1, rendered_count)}
    for name, place in places.items():
        if name in pictures:
            # A copy: what comes from the server is read-only, which a tensor can't be.
            video[:, place] = torch.tensor(pictures[name]).permute(2, 0, 1) / 255
            mask[:, place] = 0
    return FrameConditioning(video, mask)
