from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_sdxl.loading import load_sdxl
from ourvidz_serving.engines.engine import ModelUnavailable
from support.miniature import ask, load_engine, render
from support.single_file import write_single_file

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def why_not(model: Path | str, *, config: Path | None = None) -> str:
    """Return why a model can't be loaded, which is one line."""
    with pytest.raises(ModelUnavailable) as caught:
        load_sdxl(str(model), cache=Path("unused"), single_file_config=config, dtype=torch.float32)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def copy(miniature: Path, tmp_path: Path) -> Path:
    """A copy of the miniature, to be damaged."""
    return shutil.copytree(miniature, tmp_path / "model")


@pytest.fixture(scope="module")
def single_file(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single") / "miniature.safetensors"
    pipeline = load_sdxl(str(miniature), cache=Path("unused"), single_file_config=None, dtype=torch.float32)
    write_single_file(pipeline, path)
    return path


@pytest.fixture(scope="module")
def config(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder without its weights."""
    folder = tmp_path_factory.mktemp("config") / "sdxl"
    return shutil.copytree(miniature, folder, ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_is_loaded_with_weights_of_the_type_that_was_asked_for(miniature: Path, dtype: torch.dtype) -> None:
    pipeline = load_sdxl(str(miniature), cache=Path("unused"), single_file_config=None, dtype=dtype)
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    assert [part.dtype for part in parts] == [dtype] * 4
    assert pipeline.watermark is None


def test_the_miniature_is_built_in_the_cache_and_taken_from_there(tmp_path: Path) -> None:
    for _ in range(2):
        load_sdxl("miniature", cache=tmp_path, single_file_config=None, dtype=torch.float32)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_single_file_and_a_folder_make_the_same_picture(
    engine: SdxlEngine, model_cache: Path, single_file: Path, config: Path
) -> None:
    of_file = load_engine(model_cache, model=str(single_file), single_file_config=str(config))
    np.testing.assert_array_equal(render(of_file, ask())[0], render(engine, ask())[0])


def test_a_single_file_is_loaded_with_weights_of_the_type_that_was_asked_for(single_file: Path, config: Path) -> None:
    pipeline = load_sdxl(str(single_file), cache=Path("unused"), single_file_config=config, dtype=torch.bfloat16)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder_2.dtype} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/models/one.safetensors", "~/nothing"])
def test_a_model_that_is_not_there_is_named(name: str) -> None:
    assert why_not(name) == f"there is no model at {name}"


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    assert why_not(tmp_path) == f"the folder {tmp_path} holds no pipeline: it has no model_index.json"


def test_a_folder_whose_weights_are_not_safetensors_is_refused(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert why_not(copy) == f"the folder {copy} has no safetensors weights; other formats are not read"


@pytest.mark.parametrize("part", ["vae", "text_encoder", "text_encoder_2"])
def test_weights_of_a_part_that_are_missing_are_an_error_of_one_line(copy: Path, part: str) -> None:
    [weights] = (copy / part).glob("*.safetensors")
    weights.unlink()
    assert why_not(copy).startswith(f"the model {copy} can't be loaded: ")


def test_weights_that_are_cut_off_are_an_error_of_one_line(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert why_not(copy).startswith(f"the model {copy} can't be loaded: ")


def test_a_pipeline_of_another_kind_is_refused(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    for name in ("text_encoder_2", "tokenizer_2"):
        del index[name]
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionPipeline"}))
    assert why_not(copy) == f"{copy} is a StableDiffusionPipeline, not a StableDiffusionXLPipeline"


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model"])
def test_a_file_of_another_format_is_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch(mode=0)
    assert why_not(tmp_path / name) == f"{name} is not a .safetensors file; other formats are not read"


def test_a_file_that_holds_no_weights_is_an_error_of_one_line(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("not weights")
    assert why_not(path, config=config).startswith(f"the model {path} can't be loaded: ")


def test_a_configuration_folder_that_is_not_there_is_named(single_file: Path, tmp_path: Path) -> None:
    assert why_not(single_file, config=tmp_path / "none") == f"there is no configuration folder {tmp_path / 'none'}"


def test_a_folder_with_half_precision_files_alone_is_loaded(miniature: Path, tmp_path: Path) -> None:
    whole = load_sdxl(str(miniature), cache=Path("unused"), single_file_config=None, dtype=torch.float16)
    whole.save_pretrained(tmp_path, variant="fp16")
    assert [path.name for path in (tmp_path / "unet").glob("*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]

    half = load_sdxl(str(tmp_path), cache=Path("unused"), single_file_config=None, dtype=torch.float16)

    assert half.unet.dtype == torch.float16
    assert torch.equal(half.unet.conv_in.weight, whole.unet.conv_in.weight)
