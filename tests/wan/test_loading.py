from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import UMT5EncoderModel

from ourvidz_serving.engines.engine import LoadSession, ModelUnavailable
from ourvidz_wan.engine import WanEngine
from ourvidz_wan.loading import WanModels, load_wan
from support.wan import load_wan_engine


def load(model: str | Path, vace_model: str | Path, cache: Path = Path("unused")) -> WanModels:
    session = LoadSession(lambda _: None)
    return load_wan(str(model), str(vace_model), cache=cache, dtype=torch.float32, session=session)


def why_not(model: str | Path, vace_model: str | Path) -> str:
    """The line that says why the models can't be loaded."""
    with pytest.raises(ModelUnavailable) as error:
        load(model, vace_model)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def copy(miniature_wan: Path, tmp_path: Path) -> Path:
    """A copy of the text-to-video miniature, to be damaged."""
    return Path(shutil.copytree(miniature_wan, tmp_path / "wan"))


@pytest.fixture
def vace_copy(miniature_wan_vace: Path, tmp_path: Path) -> Path:
    """A copy of the VACE miniature, to be damaged."""
    return Path(shutil.copytree(miniature_wan_vace, tmp_path / "vace"))


def test_the_pipelines_share_all_but_the_transformers(wan_engine: WanEngine) -> None:
    text, vace = wan_engine._models.text, wan_engine._models.vace
    assert text.text_encoder is vace.text_encoder
    assert text.tokenizer is vace.tokenizer
    assert text.vae is vace.vae
    assert text.transformer is not vace.transformer


def test_one_text_encoder_alone_is_loaded(wan_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    construct = UMT5EncoderModel.__init__

    def note(self: UMT5EncoderModel, *args: object, **kwargs: object) -> None:
        made.append(self)
        construct(self, *args, **kwargs)

    monkeypatch.setattr(UMT5EncoderModel, "__init__", note)
    load_wan_engine(wan_cache)
    assert len(made) == 1


def test_of_the_vace_model_only_the_transformer_need_be_there(miniature_wan: Path, vace_copy: Path) -> None:
    for part in ("text_encoder", "tokenizer", "vae"):
        shutil.rmtree(vace_copy / part)
    models = load(miniature_wan, vace_copy)
    assert models.vace.text_encoder is models.text.text_encoder


def test_a_model_that_is_nowhere_is_named(miniature_wan: Path) -> None:
    assert why_not("no/such/model", miniature_wan) == "there is no model at no/such/model"
    assert why_not(miniature_wan, "/no/vace") == "there is no model at /no/vace"


def test_models_in_each_others_place_are_refused(miniature_wan: Path, miniature_wan_vace: Path) -> None:
    assert (
        why_not(miniature_wan_vace, miniature_wan_vace)
        == f"{miniature_wan_vace} is a WanVACEPipeline, not a WanPipeline"
    )
    assert why_not(miniature_wan, miniature_wan) == f"{miniature_wan} is a WanPipeline, not a WanVACEPipeline"


def test_a_folder_without_a_pipeline_is_refused(miniature_wan: Path, tmp_path: Path) -> None:
    assert why_not(tmp_path, miniature_wan) == f"the folder {tmp_path} holds no pipeline: it has no model_index.json"


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_a_part_without_weights_is_an_error_of_one_line(copy: Path, miniature_wan_vace: Path, part: str) -> None:
    [weights] = (copy / part).glob("*.safetensors")
    weights.unlink()
    assert why_not(copy, miniature_wan_vace).startswith(f"the model {copy} can't be loaded: ")


def test_vace_weights_that_are_cut_off_are_an_error_of_one_line(miniature_wan: Path, vace_copy: Path) -> None:
    [weights] = (vace_copy / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert why_not(miniature_wan, vace_copy).startswith(f"the model {vace_copy} can't be loaded: ")
