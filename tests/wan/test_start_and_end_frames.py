"""Start and end frames through VACE: what they do to a clip.

The measure is the mean absolute difference of all pixel values between the reference, as it was given, and the frame
that must look like it, as it comes out. Nothing on the way is tapped. The miniature is untrained and was written so that
conditioning acts as VACE's does, through its inactive latents and its masks; the autoencoder loses detail, so that no
frame gets nearer than about 15 of 255. Were the pictures ignored, a strength would change nothing, and the tests of
strengths, of the two ends, of another picture and of the mask would fail; they did when VACE was shown gray alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from ourvidz_serving.engines.engine import Timed
from ourvidz_serving.rendering.engine import Pixels, ReferenceEngine
from ourvidz_wan.conditioning import condition_frames
from ourvidz_wan.engine import WanEngine
from support.miniature import Told, difference
from support.wan import ask_clip, gradient_picture, render_frames

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

FRAMES, STEPS = 15, 6
"""Of 17 frames that are rendered, 15 are kept; the last of them is not the last that was rendered."""
SEEDS = [1, 2, 3]
START, END = gradient_picture(), gradient_picture(turned=True)


def clip(engine: WanEngine, seed: int, pictures: Mapping[str, Pixels], scale: float | None = None) -> list[Pixels]:
    return render_frames(engine, ask_clip(frames=FRAMES, steps=STEPS, scale=scale), seed, pictures)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "pictures",
    [{"start_frame": START}, {"end_frame": END}, {"start_frame": START, "end_frame": END}],
    ids=["start", "end", "both"],
)
def test_the_frames_come_nearer_to_the_pictures_as_the_strength_rises(
    wan_engine: WanEngine, seed: int, pictures: dict[str, Pixels]
) -> None:
    without = clip(wan_engine, seed, {})
    weak, middle, strong = (clip(wan_engine, seed, pictures, scale) for scale in (0.2, 0.5, 1.0))
    for name, picture in pictures.items():
        place = 0 if name == "start_frame" else -1
        distances = [difference(frames[place], picture) for frames in (without, weak, middle, strong)]
        assert distances == sorted(distances, reverse=True)
        # Not by a hair: at full strength most of the way is gone.
        assert distances[3] < 0.6 * distances[0]
        assert distances[3] < 0.75 * distances[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_end_follows_its_own_picture(wan_engine: WanEngine, seed: int) -> None:
    frames = clip(wan_engine, seed, {"start_frame": START, "end_frame": END}, 1.0)
    assert difference(frames[0], START) < difference(frames[0], END)
    assert difference(frames[-1], END) < difference(frames[-1], START)


def test_another_picture_makes_another_clip(wan_engine: WanEngine) -> None:
    one, other = (clip(wan_engine, 1, {"start_frame": picture}, 1.0) for picture in (START, END))
    assert difference(one[0], other[0]) > 30


def test_without_a_strength_it_is_one_half(wan_engine: WanEngine) -> None:
    pictures = {"start_frame": START}
    np.testing.assert_array_equal(clip(wan_engine, 1, pictures), clip(wan_engine, 1, pictures, 0.5))


def test_the_middle_of_the_clip_still_follows_seed_and_prompt(wan_engine: WanEngine) -> None:
    pictures = {"start_frame": START, "end_frame": END}
    middle = FRAMES // 2
    one, other = (clip(wan_engine, seed, pictures, 1.0)[middle] for seed in (1, 2))
    elsewhere = render_frames(
        wan_engine, ask_clip("a blue boat at sea", frames=FRAMES, steps=STEPS, scale=1.0), 1, pictures
    )[middle]
    assert difference(one, other) > 2
    assert difference(one, elsewhere) > 2


def test_the_same_seed_makes_the_same_clip(wan_engine: WanEngine) -> None:
    pictures = {"start_frame": START, "end_frame": END}
    np.testing.assert_array_equal(clip(wan_engine, 1, pictures, 1.0), clip(wan_engine, 1, pictures, 1.0))


def test_the_mask_reaches_the_transformer_and_changes_the_clip(
    wan_engine: WanEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {"end_frame": END}
    seen: list[torch.Tensor] = []
    hook = wan_engine._models.vace.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["control_hidden_states"]), with_kwargs=True
    )
    try:
        frames = clip(wan_engine, 1, pictures, 1.0)
    finally:
        hook.remove()
    # Inactive and reactive latents have three channels each; the mask has one per pixel of a cell.
    mask = seen[0][0, 6:]
    assert mask.shape[:2] == (32 * 32, 5)
    assert mask[:, :4].min() == 1
    assert mask[:, 4].max() == 0
    # The same call but for the mask's latents.
    prepare_masks = wan_engine._models.vace.prepare_masks
    monkeypatch.setattr(wan_engine._models.vace, "prepare_masks", lambda *args: torch.ones_like(prepare_masks(*args)))
    assert difference(clip(wan_engine, 1, pictures, 1.0)[-1], frames[-1]) > 0


def test_how_the_pictures_act_is_said_and_their_encoding_is_timed(wan_engine: WanEngine) -> None:
    told, without = Told(), Told()
    request = ask_clip(frames=FRAMES, steps=STEPS)
    render_frames(wan_engine, request, pictures={"start_frame": START}, told=told)
    render_frames(wan_engine, request, told=without)
    assert told.of(ReferenceEngine) == [ReferenceEngine("vace")]
    assert [timed.stage for timed in told.of(Timed)] == ["text_encode", "reference_encode", "denoise", "decode"]
    assert not without.of(ReferenceEngine)


@pytest.mark.parametrize(
    ("frame_count", "rendered_count", "end"), [(83, 85, [82, 83, 84]), (85, 85, [84]), (82, 85, [81, 82, 83, 84])]
)
def test_the_end_frame_is_the_last_that_is_kept_and_all_after_it(
    frame_count: int, rendered_count: int, end: list[int]
) -> None:
    shown = condition_frames(
        {"start_frame": START, "end_frame": END}, frame_count=frame_count, rendered_count=rendered_count
    )
    given = (shown.mask.amax((0, 2, 3, 4)) == 0).nonzero().flatten().tolist()
    assert given == [0, *end]
    pixels = (shown.video[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(pixels[0], START)
    for place in end:
        np.testing.assert_array_equal(pixels[place], END)
    unknown = [place for place in range(rendered_count) if place not in given]
    assert (shown.video[0, unknown] == 0.5).all()
    assert (shown.mask[0, unknown] == 1).all()
