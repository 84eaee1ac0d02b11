"""Models that can't be loaded: one line each, that says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ourvidz_enhancer.loading import load_encoder_tokenizer
from ourvidz_enhancer.task import EnhancerInfo
from ourvidz_miniature.qwen2 import ensure_miniature_qwen2
from ourvidz_miniature.umt5 import make_umt5_tokenizer
from ourvidz_serving.engines.engine import LoadSession, ModelUnavailable
from support.enhancer import EnhancerEngine, engine_config


@pytest.fixture
def folder(qwen2_cache: Path, tmp_path: Path) -> Path:
    """A copy of the miniature, to be changed."""
    return Path(shutil.copytree(ensure_miniature_qwen2(qwen2_cache), tmp_path / "my-qwen"))


def load(cache: Path, **settings: object) -> EnhancerInfo:
    return EnhancerEngine(engine_config(cache, tokenizer="miniature", **settings)).load(LoadSession(lambda _: None))


def failure(cache: Path, **settings: object) -> str:
    with pytest.raises(ModelUnavailable) as raised:
        load(cache, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_is_loaded_and_shown_by_its_name_alone(qwen2_cache, folder: Path) -> None:
    assert load(qwen2_cache, model=str(folder)).model == "my-qwen"


def test_a_place_where_nothing_is(qwen2_cache, tmp_path: Path) -> None:
    assert failure(qwen2_cache, model=str(tmp_path / "gone")) == f"there is no model at {tmp_path / 'gone'}"


def test_a_folder_without_a_model(qwen2_cache, tmp_path: Path) -> None:
    assert f"the model {tmp_path} can't be loaded" in failure(qwen2_cache, model=str(tmp_path))


def test_weights_that_are_cut_off(qwen2_cache, folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "can't be loaded" in failure(qwen2_cache, model=str(folder))


def test_weights_in_a_format_that_can_run_code(qwen2_cache, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "can't be loaded" in failure(qwen2_cache, model=str(folder))


def test_code_that_comes_with_a_model_is_never_run(qwen2_cache, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "can't be loaded" in failure(qwen2_cache, model=str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_chat_with_a_model_that_has_no_template(qwen2_cache, folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in failure(qwen2_cache, model=str(folder), style="chat")


def test_a_model_that_reads_too_little_for_the_instruction(qwen2_cache, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    assert "which leaves no room for prompts" in failure(qwen2_cache, model=str(folder))


def test_the_renderers_tokenizer_comes_from_a_pipelines_folder_or_its_own(tmp_path: Path) -> None:
    expected = make_umt5_tokenizer()("一只 red fox").input_ids
    make_umt5_tokenizer().save_pretrained(tmp_path / "wan" / "tokenizer")
    for place in (tmp_path / "wan", tmp_path / "wan" / "tokenizer"):
        assert load_encoder_tokenizer(str(place))("一只 red fox").input_ids == expected
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        load_encoder_tokenizer(str(tmp_path / "gone"))
