from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ourvidz_serving.engines.engine import EngineOutOfMemory, Loading, LoadSession, MemoryRung, Timed
from ourvidz_wan import residency
from ourvidz_wan.engine import WanEngine
from ourvidz_wan.residency import (
    TEXT_ENCODER,
    TEXT_TRANSFORMER,
    VACE_TRANSFORMER,
    Policy,
    Residency,
    choose_policy,
)
from support.miniature import Told
from support.wan import ask_clip, gradient_picture, load_wan_engine, render_frames, wan_config

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

META = torch.device("meta")
"""Stands for a GPU."""
PICTURES = {"start_frame": gradient_picture()}


class Part(nn.Module):
    """A part that only notes where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Part:  # type: ignore[override]
        self.device = device
        return self


@pytest.fixture
def parts() -> dict[str, Part]:
    return {name: Part() for name in (TEXT_ENCODER, TEXT_TRANSFORMER, VACE_TRANSFORMER)}


def there(parts: dict[str, Part]) -> set[str]:
    return {name for name, part in parts.items() if part.device == META}


@pytest.mark.parametrize(
    ("policy", "at_first", "for_vace", "for_text"),
    [
        (
            "both",
            {TEXT_ENCODER, TEXT_TRANSFORMER, VACE_TRANSFORMER},
            {TEXT_ENCODER, TEXT_TRANSFORMER, VACE_TRANSFORMER},
            {TEXT_ENCODER, TEXT_TRANSFORMER, VACE_TRANSFORMER},
        ),
        ("swap", {TEXT_ENCODER, TEXT_TRANSFORMER}, {TEXT_ENCODER, VACE_TRANSFORMER}, {TEXT_ENCODER, TEXT_TRANSFORMER}),
        ("one", set(), {VACE_TRANSFORMER}, {TEXT_TRANSFORMER}),
    ],
)
def test_a_policy_says_which_parts_are_on_the_device(
    parts: dict[str, Part], policy: Policy, at_first: set[str], for_vace: set[str], for_text: set[str]
) -> None:
    home = Residency(parts, META, policy)
    home.fill(lambda _: None)
    assert there(parts) == at_first
    for transformer, expected in ((VACE_TRANSFORMER, for_vace), (TEXT_TRANSFORMER, for_text)):
        home.need(TEXT_ENCODER, lambda _: None)
        home.need(transformer, lambda _: None)
        assert there(parts) == expected


def test_parts_make_room_before_others_come_and_each_move_is_told(parts: dict[str, Part]) -> None:
    home = Residency(parts, META, "swap")
    home.fill(lambda _: None)
    said: list[str] = []
    assert home.need(VACE_TRANSFORMER, said.append)
    assert said == ["text-to-video transformer into main memory", "VACE transformer onto meta"]
    said.clear()
    assert not home.need(VACE_TRANSFORMER, said.append)
    assert not said


def test_a_narrower_policy_takes_effect_with_the_next_need(parts: dict[str, Part]) -> None:
    home = Residency(parts, META, "both")
    home.fill(lambda _: None)
    home.policy = "one"
    assert home.need(VACE_TRANSFORMER, lambda _: None)
    assert there(parts) == {VACE_TRANSFORMER}


@pytest.mark.parametrize(
    ("policy", "left"),
    [("both", {TEXT_ENCODER, VACE_TRANSFORMER}), ("swap", {TEXT_ENCODER, VACE_TRANSFORMER}), ("one", set())],
)
def test_the_autoencoder_gets_the_device_for_itself_where_there_is_room_for_one_part(
    parts: dict[str, Part], policy: Policy, left: set[str]
) -> None:
    home = Residency(parts, META, policy)
    home.need(TEXT_ENCODER, lambda _: None)
    home.need(VACE_TRANSFORMER, lambda _: None)
    home.leave_room(lambda _: None)
    assert there(parts) == left


@pytest.mark.parametrize("pictures", [{}, PICTURES], ids=["text", "frames"])
def test_denoising_needs_no_text_encoder_on_its_device(
    wan_cache: Path, wan_engine: WanEngine, pictures: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_wan_engine(wan_cache)
    encode = engine._encode_prompt

    def encode_and_leave(*args: object) -> object:
        embeddings = encode(*args)
        # A device that computes nothing stands for main memory: whatever runs there has no values.
        engine._models.text.text_encoder.to(META)
        return embeddings

    monkeypatch.setattr(engine, "_encode_prompt", encode_and_leave)
    np.testing.assert_array_equal(
        render_frames(engine, ask_clip(), pictures=pictures), render_frames(wan_engine, ask_clip(), pictures=pictures)
    )
    assert engine._models.text.text_encoder is engine._models.vace.text_encoder is not None


@pytest.mark.parametrize(("free", "policy"), [(10**12, "both"), (residency.ROOM_BYTES + 10**9, "swap")])
def test_auto_is_both_where_there_is_room_for_all_parts_and_a_render(
    monkeypatch: pytest.MonkeyPatch, free: int, policy: Policy
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10**12))
    parts = {"a": nn.Linear(20_000, 20_000, device="meta"), "b": nn.Linear(10, 10)}
    assert choose_policy("auto", parts, torch.device("cuda")) == policy
    assert choose_policy("swap", parts, torch.device("cuda")) == "swap"
    assert choose_policy("both", parts, torch.device("cuda")) == "both"
    assert choose_policy("auto", parts, torch.device("cpu")) == "both"


def test_an_engine_that_swaps_says_so_and_makes_the_same_clips(wan_cache: Path, wan_engine: WanEngine) -> None:
    swapping = load_wan_engine(wan_cache, residency="swap")
    for pictures in ({}, PICTURES, {}, PICTURES):
        told = Told()
        frames = render_frames(swapping, ask_clip(), pictures=pictures, told=told)
        np.testing.assert_array_equal(frames, render_frames(wan_engine, ask_clip(), pictures=pictures))
        came = [message.part for message in told.of(Loading)]
        stages = [timed.stage for timed in told.of(Timed)]
        if pictures:
            assert came == ["text-to-video transformer into main memory", "VACE transformer onto cpu"]
        else:
            # The first one is there from the start.
            assert came in ([], ["VACE transformer into main memory", "text-to-video transformer onto cpu"])
        assert ("load" in stages) == bool(came)


def test_loading_with_swap_leaves_the_vace_transformer_where_it_is(wan_cache: Path) -> None:
    told: list[object] = []
    WanEngine(wan_config(wan_cache, residency="swap")).load(LoadSession(told.append))
    assert Loading("VACE transformer onto cpu") not in told


def test_each_rung_of_the_ladder_keeps_less_on_the_device_and_starts_the_stage_again(
    wan_cache: Path, wan_engine: WanEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_wan_engine(wan_cache)
    # The rungs of a GPU, on a CPU.
    engine._ladder._rungs = [
        ("swap", lambda: engine._set_policy("swap")),
        ("model_cpu_offload", lambda: engine._set_policy("one")),
    ]
    decoder, calls = engine._models.text.vae.decoder, []
    forward = decoder.forward

    def run_out(*args: object, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) in (2, 5):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", run_out)
    told = Told()
    frames = render_frames(engine, ask_clip(frames=13), told=told)
    np.testing.assert_array_equal(frames, render_frames(wan_engine, ask_clip(frames=13)))
    assert told.of(MemoryRung) == [MemoryRung("model_cpu_offload")]
    assert engine._residency.policy == "one"
    np.testing.assert_array_equal(
        render_frames(engine, ask_clip(), pictures=PICTURES), render_frames(wan_engine, ask_clip(), pictures=PICTURES)
    )


def test_without_a_rung_left_the_render_fails(wan_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_wan_engine(wan_cache)

    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._models.text.transformer, "forward", run_out)
    with pytest.raises(EngineOutOfMemory, match="everything that saves some was tried"):
        render_frames(engine, ask_clip())
