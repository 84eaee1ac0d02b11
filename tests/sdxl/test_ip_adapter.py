"""References by IP-Adapter, on the real pipeline with the miniature adapter.

The miniature is untrained. What its adapter carries over from a reference is its mean colour, so distances are measured
to references of one colour each; that layout and faces come over as well only a trained adapter can show.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

from ourvidz.api.render.v1 import render_pb2
from ourvidz_miniature.ip_adapter import IMAGE_ENCODER, SUBFOLDER, WEIGHT, ensure_miniature_ip_adapter
from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_sdxl.ip_adapter import block_scales
from ourvidz_serving.engines.engine import Loading, LoadSession, ModelUnavailable, TaskCancelled, Timed
from ourvidz_serving.rendering.engine import FrameMade, ReferenceEngine, StepDone
from support.miniature import SIDE, Told, ask, difference, engine_config, following, load_engine, render, task
from support.reference_pictures import plain

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

STYLE, COMPOSITION, CHARACTER = KINDS = (
    render_pb2.REFERENCE_TYPE_STYLE,
    render_pb2.REFERENCE_TYPE_COMPOSITION,
    render_pb2.REFERENCE_TYPE_CHARACTER,
)
BLUE, ORANGE = (30, 60, 220), (240, 140, 20)


def adapter(name: str | Path = "miniature", **changes: str) -> dict[str, str]:
    return {"name": str(name), "subfolder": SUBFOLDER, "weight": WEIGHT, "image_encoder": IMAGE_ENCODER, **changes}


@pytest.fixture(scope="module")
def adapted(model_cache: Path) -> SdxlEngine:
    """An engine with the miniature adapter that all tests share."""
    return load_engine(model_cache, ip_adapter=adapter())


@pytest.fixture
def copy(model_cache: Path, tmp_path: Path) -> Path:
    """A copy of the adapter, to be damaged."""
    return shutil.copytree(ensure_miniature_ip_adapter(model_cache), tmp_path / "adapter")


def why_not(model_cache: Path, config: dict[str, str]) -> str:
    """Return why an engine with this adapter can't be loaded, which is one line."""
    engine = SdxlEngine(engine_config(model_cache, ip_adapter=config))
    with pytest.raises(ModelUnavailable) as caught:
        engine.load(LoadSession(lambda _: None))
    text = str(caught.value)
    assert "\n" not in text
    return text


def scales(engine: SdxlEngine) -> dict[str, float]:
    """Return the scale of each attention layer that has one above 0."""
    layers: dict[str, Any] = engine._pipeline.unet.attn_processors
    return {name: layer.scale[0] for name, layer in layers.items() if getattr(layer, "scale", [0])[0]}


def test_loading_names_the_adapter(model_cache: Path) -> None:
    told: list[object] = []
    SdxlEngine(engine_config(model_cache, ip_adapter=adapter())).load(LoadSession(told.append))
    assert told == [Loading("weights"), Loading("IP-Adapter"), Loading("weights onto cpu")]


@pytest.mark.parametrize("colour", [BLUE, ORANGE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_a_picture_comes_nearer_to_its_references_colour_as_influence_rises(
    adapted: SdxlEngine, kind: render_pb2.ReferenceType.ValueType, seed: int, colour: tuple[int, int, int]
) -> None:
    reference = plain(SIDE, colour)

    def distance(influence: float) -> float:
        request = following(ask(steps=6), influence, kind)
        return difference(render(adapted, request, seed, reference)[0], reference)

    without = difference(render(adapted, ask(steps=6), seed)[0], reference)
    far, middle, near = distance(0.1), distance(0.5), distance(0.9)
    assert without > far > middle + 2 > near + 4


@pytest.mark.parametrize("kind", KINDS)
def test_which_picture_is_the_reference_matters(adapted: SdxlEngine, kind: render_pb2.ReferenceType.ValueType) -> None:
    references = [plain(SIDE, colour) for colour in (BLUE, ORANGE)]
    blue, orange = (render(adapted, following(ask(), 0.8, kind), reference=reference)[0] for reference in references)
    assert difference(blue, references[0]) < difference(orange, references[0])
    assert difference(orange, references[1]) < difference(blue, references[1])


def test_each_type_acts_in_the_blocks_that_instantstyle_names(adapted: SdxlEngine) -> None:
    seen = {}
    for kind in KINDS:
        render(adapted, following(ask(steps=1), 0.5, kind), reference=plain(SIDE, BLUE))
        seen[kind] = scales(adapted)
    blocks = {kind: {name.partition(".transformer_blocks")[0] for name in layers} for kind, layers in seen.items()}
    assert blocks[STYLE] == {"up_blocks.0.attentions.1"}
    assert blocks[COMPOSITION] == {"down_blocks.2.attentions.1"}
    assert len(blocks[CHARACTER]) == 11
    assert {round(scale, 6) for kind in (STYLE, CHARACTER) for scale in seen[kind].values()} == {0.5}
    assert {round(scale, 6) for scale in seen[COMPOSITION].values()} == {0.7}


def test_a_type_that_is_not_said_is_style() -> None:
    assert block_scales(render_pb2.REFERENCE_TYPE_UNSPECIFIED, 0.5) == block_scales(STYLE, 0.5)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_without_a_reference_the_picture_is_that_of_a_pipeline_without_an_adapter(
    adapted: SdxlEngine, engine: SdxlEngine, guidance: float
) -> None:
    render(adapted, following(ask(), 1.0, CHARACTER), reference=plain(SIDE, BLUE))
    told = Told()
    adapted.run(task(ask(images=2, guidance=guidance)), told.session)
    for made, expected in zip(told.of(FrameMade), render(engine, ask(images=2, guidance=guidance)), strict=True):
        np.testing.assert_array_equal(made.pixels, expected)
    assert not told.of(ReferenceEngine)


def test_image_i_of_a_batch_is_the_image_of_seed_plus_i(adapted: SdxlEngine) -> None:
    reference = plain(SIDE, BLUE)
    for index, picture in enumerate(render(adapted, following(ask(images=3), 0.5), 40, reference)):
        [alone] = render(adapted, following(ask(), 0.5), 40 + index, reference)
        np.testing.assert_array_equal(picture, alone)


def test_the_reference_is_encoded_once_for_all_images_and_the_method_is_named(adapted: SdxlEngine) -> None:
    calls: list[object] = []
    handle = adapted._pipeline.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    told = Told()
    adapted.run(task(following(ask(images=3, steps=2), 0.5), reference=plain(SIDE, BLUE)), told.session)
    handle.remove()
    assert len(calls) == 1
    assert told.of(ReferenceEngine) == [ReferenceEngine("ip_adapter")]
    assert [timed.stage for timed in told.of(Timed)][:2] == ["text_encode", "reference_encode"]
    # Unlike image-to-image, it runs all steps, however close the reference is.
    assert told.of(StepDone) == [StepDone(step, 2, image, 3) for image in range(3) for step in (1, 2)]


def test_a_cancel_ends_the_render_with_the_step_that_runs(adapted: SdxlEngine) -> None:
    told = Told(cancel_when=lambda message: message == StepDone(2, 4, 0, 1))
    with pytest.raises(TaskCancelled):
        adapted.run(task(following(ask(steps=4), 0.5), reference=plain(SIDE, BLUE)), told.session)
    assert told.of(StepDone)[-1] == StepDone(2, 4, 0, 1)


def test_half_precision_weights_follow_a_reference(model_cache: Path) -> None:
    half = load_engine(model_cache, dtype="bfloat16", ip_adapter=adapter())
    reference = plain(SIDE, BLUE)
    near, far = (render(half, following(ask(), influence), reference=reference)[0] for influence in (0.9, 0.1))
    assert difference(near, reference) < difference(far, reference)
    assert half._pipeline.image_encoder.dtype == torch.bfloat16


def test_an_adapter_is_loaded_from_a_folder(model_cache: Path, adapted: SdxlEngine, copy: Path) -> None:
    of_folder = load_engine(model_cache, ip_adapter=adapter(copy))
    request, reference = following(ask(), 0.5), plain(SIDE, BLUE)
    np.testing.assert_array_equal(
        render(of_folder, request, reference=reference)[0], render(adapted, request, reference=reference)[0]
    )


def test_an_adapter_that_is_not_there_is_named(model_cache: Path) -> None:
    assert why_not(model_cache, adapter("nowhere")) == "there is no model at nowhere"


def test_weights_of_another_format_are_refused_unopened(model_cache: Path, copy: Path) -> None:
    (copy / SUBFOLDER / "adapter.bin").touch(mode=0)
    reason = why_not(model_cache, adapter(copy, weight="adapter.bin"))
    assert reason == "adapter.bin is not a .safetensors file; other formats are not read"


def test_weights_that_are_missing_are_an_error_of_one_line(model_cache: Path, copy: Path) -> None:
    (copy / SUBFOLDER / WEIGHT).unlink()
    assert why_not(model_cache, adapter(copy)).startswith(f"the model {copy} can't be loaded: ")


def test_an_image_encoder_whose_weights_are_not_safetensors_is_refused(model_cache: Path, copy: Path) -> None:
    weights = copy / IMAGE_ENCODER / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert why_not(model_cache, adapter(copy)).startswith(f"the model {copy} can't be loaded: ")


@pytest.mark.parametrize("damage", ["another file", "another size", "layers missing"])
def test_weights_that_do_not_fit_the_model_are_refused(model_cache: Path, copy: Path, damage: str) -> None:
    path = copy / SUBFOLDER / WEIGHT
    tensors = load_file(path)
    if damage == "another file":
        tensors = {"lora.down.weight": torch.zeros(2)}
    elif damage == "another size":
        tensors = {
            name: tensor.repeat(1, 2).contiguous() if "_ip" in name else tensor for name, tensor in tensors.items()
        }
    else:
        del tensors["ip_adapter.3.to_k_ip.weight"]
    save_file(tensors, path)
    assert why_not(model_cache, adapter(copy)) == f"{WEIGHT} of {copy} is no IP-Adapter for this model"


def test_an_image_encoder_that_does_not_fit_the_adapter_is_refused_while_loading(model_cache: Path, copy: Path) -> None:
    encoder = CLIPVisionModelWithProjection.from_pretrained(copy / IMAGE_ENCODER)
    encoder.config.projection_dim *= 2
    CLIPVisionModelWithProjection(encoder.config).save_pretrained(copy / IMAGE_ENCODER)
    assert why_not(model_cache, adapter(copy)) == "the IP-Adapter was made for another image encoder"
